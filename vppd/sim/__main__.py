"""Run the simulated site as a process of its own: ``python -m vppd.sim --dir DIR --seed N --speed N --broker HOST:PORT``.

It writes ``DIR/site.json`` (whole or not at all, after every port is open) and ``DIR/slurm.token`` (mode 0600), then runs until
SIGTERM or SIGINT. Without ``--broker`` the building bus (DSX BMS) is left out. All servers listen on 127.0.0.1, on free ports.

site.json
---------
::

    {
      "schema": 1,
      "pid": 4711, "seed": 1, "speed": 1.0,
      "control_url": "http://127.0.0.1:41000",       # GET /vppd-sim/v1/state, GET /vppd-sim/v1/writes/{id}, POST /vppd-sim/v1/fault
      "bms": {"host": "127.0.0.1", "port": 1883, "protocol": "3.1.1"},        # null without --broker
      "feeds": {
        "main-a": {"meter": "poi-a", "import_max_w": 700000.0, "export_max_w": 0.0, "baseline_w": 520000.0},
        "main-b": {"meter": "poi-b", ...}
      },
      "devices": [                                    # every asset; "id" is unique; power is + = into the asset
        {"id": "poi-a", "kind": "meter", "feed": "main-a", "adapter": "modbus-sunspec",
         "connection": {"host": "127.0.0.1", "port": 41001, "unit_id": 1}},
        {"id": "ups-a", "kind": "ups", "feed": "main-a", "adapter": "modbus-sunspec",
         "connection": {"host": "127.0.0.1", "port": 41003, "unit_id": 1},
         "rated_w": 200000.0,                         # nameplate of the power electronics
         "rated_charge_w": 50000.0, "rated_discharge_w": 100000.0,            # what its settings (702) allow: use these two
         "capacity_wh": 100000.0, "reserve_frac": 0.3, "efficiency_frac": 0.96, "ramp_w_per_s": 100000.0},
        {"id": "bess-b", "kind": "battery", ... the same keys ...},
        {"id": "pv-b", "kind": "pv", "feed": "main-b", "adapter": "modbus-sunspec", "connection": {...}, "rated_w": 150000.0},
        {"id": "hall-a", "kind": "cluster", "feed": "main-a", "adapter": "slurm",
         "connection": {"url": "http://127.0.0.1:41005",                      # slurmrestd base: {url}/slurm/v0.0.38/jobs
                        "user_name": "vppd", "token_file": "/abs/DIR/slurm.token",
                        "cap_url": "http://127.0.0.1:41005/vppd-sim/v1"},     # GET, POST {cap_url}/nodes/{name}  {"cap_w": W | null}
         "partition": "hall-a", "nodes": 32, "gpus_per_node": 8,
         "node_idle_w": 2070.0, "node_max_w": 8400.0, "rated_w": 268800.0},
        {"id": "cooling-a", "kind": "load", "feed": "main-a", "adapter": "dsx-bms",      # only with --broker
         "point": {"object_type": "PowerMeter", "point_type": "ActivePower", "tag_path": "cooling-a", "unit": "kW"}},
        {"id": "racks-a", "kind": "load", "feed": "main-a", "adapter": "dsx-bms",
         "point": {"object_type": "Rack", "point_type": "RackPower", "tag_path": "racks-a", "unit": "kW"}}
      ]
    }

Truth
-----
``GET {control_url}/vppd-sim/v1/state`` tells what is really so::

    {
      "t_s": 12.3, "plant_t_s": 12.3,
      "feeds": {"main-a": {"power_w": 542782.2, "racks_w": ..., "cooling_w": ..., "imported_wh": ..., "exported_wh": ...}, ...},
      "devices": {
        "ups-a": {"power_w": -40000.0, "soc_frac": 0.89, "reserve_frac": 0.3, "setpoint_w": -40000.0,     # null: follows none
                  "writes": 4, "transitions": 2, "reversions": 0, "heartbeats": 2, "refused": 0},
        "pv-b": {"power_w": ..., "available_w": ..., "setpoint_w": null, ... the same counts ...}, "poi-a": {... the counts ...}
      },
      "halls": {
        "hall-a": {"power_w": ..., "tier_power_w": [4 numbers], "jobs": {"RUNNING": 38, "STOPPED": 0, "PENDING": 38},
                   "stopped": [job ids], "held": [job ids], "caps_w": {"a03": 5600.0}, "completed": 0, "cancelled": 0,
                   "work_gpu_s": ..., "lost_gpu_s": 0.0,                          # lost: work of jobs that were killed
                   "stops": 0, "continues": 0, "cancels": 0, "updates": 0, "cap_writes": 0, "cap_transitions": 0,
                   "cap_expiries": 0, "refused": 0,
                   "job_list": [{"job_id", "tier", "state", "held", "stops", "comment", "done_gpu_s"}, ...]}
      },
      "faults": {"bess-b": "silent"}
    }

A write is an accepted request, heartbeats apart; a transition is one that changed what the device follows; a reversion is the device's
own fallback. ``GET .../writes/{id}`` lists transitions and reversions with their times.

points.json
-----------
``--points N [--ports K]`` serves N bare storage units on K ports instead of a site, for benches, and writes ``DIR/points.json``:
``{"pid": 4711, "points": [{"id": "point-0000", "host": "127.0.0.1", "port": 41000, "unit_id": 1, "rated_w": 100000.0}, ...]}``. On SIGTERM
it writes ``DIR/writes.json``: ``{"point-0000": {"writes": 3, "transitions": 2, ...}, ...}``.

What speed changes
------------------
``--speed N`` makes stored energy, heat and job progress run N times faster than wall time. Ramps, noise, reversion timers,
heartbeats and message periods stay in wall time.

Faults
------
``POST {control_url}/vppd-sim/v1/fault {"device": "bess-b", "kind": "silent", "for_s": 20}``. Kinds: ``silent`` (accepts, never answers),
``reset`` (drops each connection), ``refuse`` (Modbus exception 4 / HTTP 500), ``ack_ignore`` (acknowledges writes, does nothing).
``device`` is a Modbus device, a hall, or ``bms``, the building bus, which any fault silences.
``for_s`` 0 ends the fault.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import secrets
import signal
from pathlib import Path

from vppd.sim.bms import Broker
from vppd.sim.describe import describe
from vppd.sim.points import SPEC, serve_points
from vppd.sim.serve import serve
from vppd.sim.site import Site

_LOG = logging.getLogger("vppd.sim")


def main() -> None:
    """Run the site named by the command line until a signal ends it."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    asyncio.run(run(arguments().parse_args()))


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m vppd.sim", description="A simulated site that speaks the real protocols."
    )
    parser.add_argument("--dir", type=Path, required=True, help="where site.json and slurm.token go")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same site")
    parser.add_argument(
        "--speed", type=float, default=1.0, help="how much faster than wall time energy, heat and jobs go"
    )
    parser.add_argument("--broker", metavar="HOST:PORT", help="MQTT broker of the building bus")
    parser.add_argument(
        "--points", type=int, default=0, metavar="N", help="serve N bare storage units instead of a site"
    )
    parser.add_argument("--ports", type=int, metavar="K", help="how many ports the N units share (default: one each)")
    parser.add_argument("--mqtt", choices=("3.1.1", "5"), default="3.1.1", help="its protocol version")
    return parser


async def run(options: argparse.Namespace) -> None:
    """Serve what the command line asks for, say where it is, and wait for SIGTERM or SIGINT."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    options.dir.mkdir(parents=True, exist_ok=True)
    if options.points:
        await run_points(options, ended)
    else:
        await run_site(options, ended)


async def run_points(options: argparse.Namespace, ended: asyncio.Event) -> None:
    """Serve bare units until the event; leave their write counts behind."""
    async with serve_points(options.points, ports=options.ports) as points:
        places = [
            {"id": p.unit.name, "host": p.host, "port": p.port, "unit_id": p.unit_id, "rated_w": SPEC.rated_w}
            for p in points
        ]
        write(options.dir / "points.json", json.dumps({"pid": os.getpid(), "points": places}) + "\n")
        _LOG.info("points_ready pid=%d n=%d", os.getpid(), len(points))
        await ended.wait()
        write(options.dir / "writes.json", json.dumps({p.unit.name: p.unit.log.counts() for p in points}) + "\n")


async def run_site(options: argparse.Namespace, ended: asyncio.Event) -> None:
    """Serve the site until the event; its epoch goes by the file it has just written."""
    loop = asyncio.get_running_loop()
    (options.dir / "site.json").unlink(missing_ok=True)
    token = secrets.token_urlsafe(32)
    token_file = (options.dir / "slurm.token").resolve()
    write(token_file, token + "\n")
    born_s = token_file.stat().st_mtime - loop.time()
    site = Site(options.seed, loop.time, lambda: born_s + loop.time(), plant_s_per_s=options.speed)
    async with serve(site, token=token, broker=_broker(options)) as endpoints:
        write(options.dir / "site.json", json.dumps(describe(site, endpoints, token_file), indent=2) + "\n")
        _LOG.info("site_ready pid=%d control_url=%s", os.getpid(), endpoints.control_url)
        await ended.wait()
    _LOG.info("site_ended")


def write(path: Path, text: str) -> None:
    """Put a file in place whole or not at all, readable by its owner alone."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(path)


def _broker(options: argparse.Namespace) -> Broker | None:
    """Return the broker named on the command line."""
    if options.broker is None:
        return None
    host, _, port = options.broker.rpartition(":")
    return Broker(host, int(port), options.mqtt)


if __name__ == "__main__":
    main()

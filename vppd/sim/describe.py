"""site.json: where the simulated site listens and what stands in it. The schema is in ``vppd.sim.__main__``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vppd.sim.bms import bus_points
from vppd.sim.modbus import HOST
from vppd.sim.serve import UNIT_ID, USER_NAME, Endpoints
from vppd.sim.site import Site, meter_of
from vppd.sim.storage import StorageSpec

JsonObject = dict[str, Any]


def describe(site: Site, endpoints: Endpoints, token_file: Path) -> JsonObject:
    """Return the content of site.json."""
    broker = endpoints.broker
    return {
        "schema": 1,
        "pid": os.getpid(),
        "seed": site.seed,
        "speed": site.plant_s_per_s,
        "control_url": endpoints.control_url,
        "bms": None if broker is None else {"host": broker.host, "port": broker.port, "protocol": broker.protocol},
        "feeds": {tag: _feed(site, tag) for tag in site.plan.feeds},
        "devices": [
            *(_modbus(endpoints, meter_of(tag), "meter", tag) for tag in site.plan.feeds),
            *(_storage(endpoints, name, feed, spec) for name, (feed, spec) in site.plan.storage.items()),
            *(
                {**_modbus(endpoints, n, "pv", feed), "rated_w": spec.rated_w}
                for n, (feed, spec) in site.plan.pv.items()
            ),
            *(_hall(site, endpoints, name, token_file) for name in site.halls),
            *(_bus(site) if broker is not None else ()),
        ],
    }


def _feed(site: Site, tag: str) -> JsonObject:
    """Return a feed with its limits."""
    return {
        "meter": meter_of(tag),
        "import_max_w": site.plan.feeds[tag].import_max_w,
        "export_max_w": 0.0,
        "baseline_w": site.state.feeds[tag].power_w,
    }


def _modbus(endpoints: Endpoints, name: str, kind: str, feed: str) -> JsonObject:
    """Return a Modbus device."""
    connection = {"host": HOST, "port": endpoints.modbus[name], "unit_id": UNIT_ID}
    return {"id": name, "kind": kind, "feed": feed, "adapter": "modbus-sunspec", "connection": connection}


def _storage(endpoints: Endpoints, name: str, feed: str, spec: StorageSpec) -> JsonObject:
    """Return a storage unit with its ratings."""
    return {
        **_modbus(endpoints, name, "ups" if name.startswith("ups") else "battery", feed),
        "rated_w": spec.rated_w,
        "rated_charge_w": spec.max_charge_w,
        "rated_discharge_w": spec.max_discharge_w,
        "capacity_wh": spec.capacity_wh,
        "reserve_frac": spec.reserve_frac,
        "efficiency_frac": spec.efficiency_frac,
        "ramp_w_per_s": spec.ramp_w_per_s,
    }


def _hall(site: Site, endpoints: Endpoints, name: str, token_file: Path) -> JsonObject:
    """Return a hall with its ratings."""
    spec, url = site.halls[name].hall.spec, endpoints.halls[name]
    return {
        "id": name,
        "kind": "cluster",
        "feed": site.feed_of(name),
        "adapter": "slurm",
        "connection": {
            "url": url,
            "user_name": USER_NAME,
            "token_file": str(token_file),
            "cap_url": f"{url}/vppd-sim/v1",
        },
        "partition": site.halls[name].partition,
        "nodes": spec.nodes,
        "gpus_per_node": spec.gpus_per_node,
        "node_idle_w": spec.node_idle_w + spec.gpus_per_node * spec.gpu_idle_w,
        "node_max_w": spec.node_max_w,
        "rated_w": spec.nodes * spec.node_max_w,
    }


def _bus(site: Site) -> list[JsonObject]:
    """Return the points of the building bus."""
    return [
        {
            "id": point.name,
            "kind": "load",
            "feed": point.feed,
            "adapter": "dsx-bms",
            "point": {
                "object_type": point.object_type,
                "point_type": point.point_type,
                "tag_path": point.name,
                "unit": "kW",
            },
        }
        for point in bus_points(site)
    ]

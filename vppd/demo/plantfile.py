"""The files of a trial run: ``vppd.toml`` for the daemon, ``demo.json`` for whoever wants to dispatch by himself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vppd.demo.dispatcher import Parties
from vppd.demo.keys import KeyPair, key_pair, write_jwks
from vppd.demo.tomlwriter import Value, dump
from vppd.demo.trade import MARKET, trade, write_product
from vppd.grid.issuer_line import Broker

PARTIES = Parties(issuer="tso", vpp_id="dc1", agent_id="dc1-agent")
KINDS = ("limit", "setpoint", "reduce", "increase", "regulation", "release")
_COPIED = ("rated_charge_w", "rated_discharge_w", "reserve_frac", "efficiency_frac", "ramp_w_per_s")
_RESTS_FRAC = {"ups": 0.9, "battery": 0.6}
"""Where storage rests when nobody needs it: a UPS nearly full, a battery with room both ways. [0-1]"""
_LONGEST_SOCKET_PATH = 100


@dataclass(frozen=True, slots=True)
class Keys:
    """The key pairs of a trial run, and where our public key can be read."""

    issuer: KeyPair
    agent: KeyPair
    market: KeyPair
    jwks: Path


def make_keys(folder: Path) -> Keys:
    """Return the key pairs in ``folder``, making those that are not there."""
    keys = Keys(
        key_pair(folder, "issuer", f"{PARTIES.issuer}-1"),
        key_pair(folder, "agent", f"{PARTIES.agent_id}-1"),
        key_pair(folder, "market", f"{MARKET}-1"),
        folder / "agent.jwks.json",
    )
    write_jwks(keys.agent, keys.jwks)
    return keys


def write_config(folder: Path, site: Mapping[str, Any], line: Broker, http: str, keys: Keys) -> Path:
    """Write ``vppd.toml`` for the simulated site and return its path."""
    path = folder / "vppd.toml"
    write_product(folder)
    text = dump(config_of(folder, site, line, http, keys))
    path.write_text("# Written by vppd demo: the very file that `vppd run -c` reads.\n" + text, encoding="utf-8")
    return path


def config_of(folder: Path, site: Mapping[str, Any], line: Broker, http: str, keys: Keys) -> dict[str, Value]:
    """Return the configuration of the daemon for the simulated site."""
    feeds = site["feeds"]
    import_max_w = float(sum(feed["import_max_w"] for feed in feeds.values()))
    return {
        "site": {
            "id": PARTIES.vpp_id,
            "agent_id": PARTIES.agent_id,
            "state_dir": str(folder / "state"),
            "socket": str(socket_path(folder)),
            "require_synchronised_clock": False,
            "import_max_w": import_max_w,
            "export_max_w": float(sum(feed["export_max_w"] for feed in feeds.values())),
        },
        "feeds": [
            {"tag": tag, **{k: feed[k] for k in ("meter", "import_max_w", "export_max_w")}}
            for tag, feed in feeds.items()
        ],
        "assets": [_asset(device, folder, site, line) for device in site["devices"]],
        "grid": _grid(line, keys, import_max_w),
        "http": {"listen": http},
        **trade(folder),
    }


def write_demo_json(
    folder: Path, site: Mapping[str, Any], line: Broker, http: str | None, keys: Keys, daemon_pid: int | None
) -> Path:
    """Write ``demo.json``, whole or not at all, and return its path."""
    modbus = [d for d in site["devices"] if "unit_id" in d.get("connection", {})]
    meters = {d["id"]: _address(d) for d in modbus}
    body = {
        "broker": f"{line.host}:{line.port}",
        "http": http,
        "vpp_id": PARTIES.vpp_id,
        "agent_id": PARTIES.agent_id,
        "daemon_pid": daemon_pid,
        "issuer": {
            "id": PARTIES.issuer,
            "kid": keys.issuer.kid,
            "alg": "ES256",
            "private_key": str(keys.issuer.private),
        },
        "agent_keys": str(keys.jwks),
        "feeds": {tag: {"meter": meters[feed["meter"]]} for tag, feed in site["feeds"].items()},
        "devices": [{"asset": d["id"], **_address(d), "kind": d["kind"]} for d in modbus],
    }
    path, draft = folder / "demo.json", folder / ".demo.json.new"
    draft.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
    return path


def socket_path(folder: Path) -> Path:
    """Return where the daemon's operator socket goes; a path too long for a socket moves to the run-time folder."""
    path = folder / "vppd.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    return Path(os.environ.get("XDG_RUNTIME_DIR", "/tmp")) / f"vppd-demo-{os.getpid()}.sock"  # noqa: S108 - mode 0660, own uid


def _address(device: Mapping[str, Any]) -> dict[str, Any]:
    connection = device["connection"]
    return {"host": connection["host"], "port": connection["port"], "unit": connection["unit_id"]}


def _asset(device: Mapping[str, Any], folder: Path, site: Mapping[str, Any], line: Broker) -> dict[str, Value]:
    asset: dict[str, Value] = {k: device[k] for k in ("id", "kind", "feed", "adapter")}
    match device["kind"]:
        case "battery" | "ups":
            # At speed N a unit empties N times faster, so to the daemon, which lives in wall time, it is N times smaller.
            asset |= {"capacity_wh": device["capacity_wh"] / site["speed"], **{k: device[k] for k in _COPIED}}
            asset["soc_target_frac"] = _RESTS_FRAC[device["kind"]]
            asset["connection"] = {**device["connection"], "reserve_frac": device["reserve_frac"]}
        case "cluster":
            asset |= {"rated_w": device["rated_w"], "connection": _cluster(device, folder)}
        case "load":
            asset |= {"control": False, "poll_s": 100.0, "stale_after_s": 250.0, "connection": _point(device, line)}
        case "pv":
            asset |= {"rated_w": device["rated_w"], "connection": device["connection"]}
        case _:
            asset["connection"] = device["connection"]
    return asset


def _cluster(device: Mapping[str, Any], folder: Path) -> dict[str, Value]:
    connection: dict[str, Value] = dict(device["connection"])
    return connection | {
        "partitions": [device["partition"]],
        "node_idle_w": device["node_idle_w"],
        "node_max_w": device["node_max_w"],
        "journal": str(folder / f"{device['id']}.journal"),
    }


def _point(device: Mapping[str, Any], line: Broker) -> dict[str, Value]:
    point = {k: v for k, v in device["point"].items() if k != "unit"}
    return {"host": line.host, "port": line.port, "protocol": line.protocol, **point}


def _grid(line: Broker, keys: Keys, most_w: float) -> dict[str, Value]:
    return {
        "broker": {
            "host": line.host,
            "port": line.port,
            "protocol": line.protocol,
            "client_id": f"vppd-{PARTIES.vpp_id}",
            "insecure_lab": True,
        },
        "signing": {"kid": keys.agent.kid, "alg": "ES256", "key_file": str(keys.agent.private)},
        "issuers": [
            _issuer(PARTIES.issuer, keys.issuer, KINDS, most_w),
            _issuer(MARKET, keys.market, ("reduce", "increase", "regulation"), most_w),
        ],
    }


def _issuer(name: str, pair: KeyPair, kinds: Sequence[str], most_w: float) -> dict[str, Value]:
    return {
        "id": name,
        "keys": [{"kid": pair.kid, "alg": "ES256", "public_key_file": str(pair.public)}],
        "grants": [{"resource": "*", "kinds": list(kinds), "min_power_w": 0.0, "max_power_w": most_w}],
    }

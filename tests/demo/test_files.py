"""The files of a trial run are what the daemon, and a dispatcher of your own, can use."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vppd.config.load import load
from vppd.demo.plantfile import make_keys, write_config, write_demo_json
from vppd.demo.tomlwriter import Value, dump
from vppd.grid.issuer_line import Broker
from vppd.grid.signing import KeyRing, read_jwks

LINE = Broker("127.0.0.1", 1883, "3.1.1")
plain = st.one_of(st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=20)
inner = st.dictionaries(text.filter(bool), st.one_of(plain, text), max_size=3)
documents = st.dictionaries(
    text.filter(bool),
    st.one_of(plain, text, st.lists(text, max_size=3), inner, st.lists(inner, min_size=1, max_size=3)),
    max_size=5,
)


def device(name: str, kind: str, feed: str, **more: Any) -> dict[str, Any]:
    """Return a Modbus device of site.json."""
    connection = {"host": "127.0.0.1", "port": 5000 + len(name), "unit_id": 1}
    return {"id": name, "kind": kind, "feed": feed, "adapter": "modbus-sunspec", "connection": connection, **more}


@pytest.fixture
def site() -> dict[str, Any]:
    """A small site.json."""
    storage = {
        "capacity_wh": 100e3, "rated_charge_w": 50e3, "rated_discharge_w": 100e3, "reserve_frac": 0.3,
        "efficiency_frac": 0.96, "ramp_w_per_s": 1e5,
    }  # fmt: skip
    hall = {
        "id": "hall-a", "kind": "cluster", "feed": "main-a", "adapter": "slurm", "partition": "hall-a", "rated_w": 268e3,
        "node_idle_w": 2070.0, "node_max_w": 8400.0,
        "connection": {"url": "http://127.0.0.1:1", "user_name": "vppd", "token_file": "/t", "cap_url": "http://x"},
    }  # fmt: skip
    point = {"object_type": "Rack", "point_type": "RackPower", "tag_path": "racks-a", "unit": "kW"}
    return {
        "speed": 4.0,
        "feeds": {"main-a": {"meter": "poi-a", "import_max_w": 7e5, "export_max_w": 0.0, "baseline_w": 5e5}},
        "devices": [
            device("poi-a", "meter", "main-a"),
            device("ups-a", "ups", "main-a", **storage),
            device("pv-a1", "pv", "main-a", rated_w=150e3),
            hall,
            {"id": "racks-a", "kind": "load", "feed": "main-a", "adapter": "dsx-bms", "point": point},
        ],
    }


@given(document=documents)
def test_toml_reads_back_as_it_was(document: dict[str, Value]) -> None:
    """Whatever is written comes back the same from the standard parser."""
    assert tomllib.loads(dump(document)) == document


def test_the_daemon_takes_the_file(site: dict[str, Any], tmp_path: Path) -> None:
    """The written vppd.toml passes every check of the daemon, and its battery is as small as the speed makes it."""
    config = load(write_config(tmp_path, site, LINE, "127.0.0.1:8080", make_keys(tmp_path)))
    assert [asset.id for asset in config.assets] == ["poi-a", "ups-a", "pv-a1", "hall-a", "racks-a"]
    ups = next(asset for asset in config.assets if asset.id == "ups-a")
    assert ups.capacity_wh == 25e3
    assert ups.connection["reserve_frac"] == ups.reserve_frac == 0.3
    assert config.grid is not None
    assert config.grid.broker.protocol == "3.1.1"
    assert config.grid.issuers[0].grants[0].resource == "*"


def test_demo_json_is_complete(site: dict[str, Any], tmp_path: Path) -> None:
    """demo.json tells a dispatcher of one's own everything: broker, names, keys, meters, devices."""
    keys = make_keys(tmp_path)
    found = json.loads(write_demo_json(tmp_path, site, LINE, None, keys, 4711).read_text(encoding="utf-8"))
    assert set(found) == {
        "broker", "http", "vpp_id", "agent_id", "daemon_pid", "issuer", "agent_keys", "feeds", "devices"
    }  # fmt: skip
    assert found["broker"] == "127.0.0.1:1883"
    assert found["daemon_pid"] == 4711
    assert found["feeds"] == {"main-a": {"meter": {"host": "127.0.0.1", "port": 5005, "unit": 1}}}
    assert [d["asset"] for d in found["devices"]] == ["poi-a", "ups-a", "pv-a1"]
    assert {k: found["issuer"][k] for k in ("id", "kid", "alg")} == {"id": "tso", "kid": "tso-1", "alg": "ES256"}
    assert Path(found["issuer"]["private_key"]).read_bytes().startswith(b"-----BEGIN PRIVATE KEY")


def test_keys_are_kept_and_private(tmp_path: Path) -> None:
    """Keys of an earlier run in the same folder are used again; nobody else can read them."""
    first, again = make_keys(tmp_path), make_keys(tmp_path)
    assert first == again
    assert first.issuer.private.stat().st_mode & 0o077 == 0
    ring = KeyRing(read_jwks("dc1-agent", json.loads(first.jwks.read_text(encoding="utf-8"))))
    assert ring.verify(again.agent.signer().sign(b"{}"), "dc1-agent").payload == b"{}"

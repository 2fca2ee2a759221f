"""The agent's messages as agreed, both ways."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.fake import Fake
from vppd.agent.device import Reading
from vppd.agent.wire import (
    Ask,
    Command,
    Outcome,
    Status,
    Topics,
    decode_command,
    encode_command,
    encode_status,
    encode_telemetry,
    id_of,
)
from vppd.errors import Garbled

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GOOD = {"id": "i", "seq": 17, "from": "vppd", "lease_s": 30.0, "node_cap_w": 5200.0, "devices": {}}
CAPS = st.none() | st.floats(0.0, 1e6)
CLOCKS = st.none() | st.tuples(st.integers(1, 999), st.integers(1000, 3000))
ASKS = st.builds(Ask, CAPS, CLOCKS) | st.builds(Ask, st.none(), CLOCKS, st.just(False))


def test_the_topics_are_as_agreed() -> None:
    """Every topic is below the site and the node."""
    topics = Topics("dc1", "n1")
    assert topics.cap_set == "vpp/agent/v1/dc1/n1/cap/set"
    assert topics.cap_status == "vpp/agent/v1/dc1/n1/cap/status"
    assert topics.telemetry == "vpp/agent/v1/dc1/n1/telemetry"
    assert topics.availability == "vpp/agent/v1/dc1/n1/availability"


@given(st.dictionaries(st.text("abcdef-0123", min_size=1, max_size=9), ASKS, max_size=9), CAPS, st.integers(0, 2**62))
def test_a_command_comes_as_it_was_sent(devices: dict[str, Ask], node_cap_w: float | None, seq: int) -> None:
    """Encoding and decoding give the same command."""
    sent = Command("id", "vppd", seq, 30.0, node_cap_w, devices)
    assert decode_command(encode_command(sent)) == sent


@given(st.binary(max_size=200))
def test_noise_is_garbled_and_nothing_else(payload: bytes) -> None:
    """Whatever comes, the answer is a command or Garbled."""
    id_of(payload)
    with pytest.raises(Garbled):
        decode_command(payload)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seq": -1}, "seq"),
        ({"seq": True}, "seq"),
        ({"seq": 1.5}, "seq"),
        ({"from": ""}, "from"),
        ({"id": 7}, "id"),
        ({"lease_s": None}, "lease_s"),
        ({"lease_s": "30"}, "lease_s"),
        ({"node_cap_w": -1}, "node_cap_w"),
        ({"node_cap_w": 1e10}, "node_cap_w"),
        ({"devices": []}, "devices"),
        ({"devices": {"a": 5}}, "devices.a"),
        ({"devices": {"a": {"cap_w": "x"}}}, "devices.a.cap_w"),
        ({"devices": {"a": {"cap": 5}}}, "devices.a.cap"),
        ({"devices": {"a": {"clock_mhz": [1200, 210]}}}, "devices.a.clock_mhz"),
        ({"devices": {"a": {"clock_mhz": [210.5, 1200]}}}, "devices.a.clock_mhz"),
        ({"until": "tomorrow"}, "until"),
    ],
)
def test_a_wrong_command_is_told_where(change: dict[str, object], key: str) -> None:
    """The reason names the key, and the id can be told all the same."""
    payload = json.dumps(GOOD | change).encode()
    with pytest.raises(Garbled, match=key.replace(".", r"\.")):
        decode_command(payload)
    assert id_of(payload) == ("" if change == {"id": 7} else "i")


@pytest.mark.parametrize("text", ['{"seq": NaN}', '{"id": 1, "id": 2}', "[]", "nonsense", "[" * 100])
def test_ambiguous_json_is_garbled(text: str) -> None:
    """What two programs would read differently is not read at all."""
    with pytest.raises(Garbled):
        decode_command(text.encode())


def test_too_long_a_command_is_garbled() -> None:
    """A message beyond the limit is not parsed."""
    with pytest.raises(Garbled, match="65536"):
        decode_command(json.dumps(GOOD).encode() + b" " * 65_536)


def test_a_status_reads_as_agreed() -> None:
    """Every key of the contract is there."""
    outcome = Outcome("confirmed", 500.0, 700.0, "")
    status = Status(AT, "held", "i", "vppd", 28.34567, 5200.0, 2800.0, 5600.0, {"GPU-a": outcome})
    assert json.loads(encode_status(status)) == {
        "id": "i",
        "at": "2026-01-02T03:04:05.000Z",
        "lease_s": 28.346,
        "state": "held",
        "from": "vppd",
        "node": {"cap_w": 5200.0, "min_cap_w": 2800.0, "max_cap_w": 5600.0},
        "devices": {"GPU-a": {"cap_w": 500.0, "prior_w": 700.0, "outcome": "confirmed", "detail": ""}},
        "detail": "",
    }


def test_what_is_not_known_is_absent() -> None:
    """A missing reading has no key, and a node with one power missing has no total: it would look like drawing less."""
    whole, blind = Fake("GPU-a"), Fake("GPU-b", limits=None)
    reading = Reading(655.1, 0.97, 123456.7, 700.0, 700.0, 1980, 61.0)
    said = json.loads(encode_telemetry(AT, {"GPU-a": (whole, reading)}))
    assert said["power_w"] == 655.1
    assert said["devices"]["GPU-a"] == {
        "kind": "gpu",
        "power_w": 655.1,
        "utilisation_frac": 0.97,
        "energy_j": 123456.7,
        "cap_w": 700.0,
        "min_cap_w": 200.0,
        "max_cap_w": 700.0,
        "default_cap_w": 700.0,
        "clock_mhz": 1980,
        "temperature_c": 61.0,
    }
    said = json.loads(encode_telemetry(AT, {"GPU-a": (whole, reading), "GPU-b": (blind, Reading())}))
    assert "power_w" not in said
    assert said["devices"]["GPU-b"] == {"kind": "gpu"}

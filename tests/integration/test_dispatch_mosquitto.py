"""The daemon on a stock Mosquitto with an independent dispatcher: what is ordered is delivered, what is forged is not."""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.grid.dispatcher import Key, b64, watts
from tests.integration.dispatch_rig import Room, raised, until
from tests.integration.dispatch_wire import Dispatcher, Said, Sent, now

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(240)]
IN_ORDER = True
FEEDS = ("main-a", "main-b")
SHED_FRAC = 0.25
TOLERANCE_FRAC = 0.02
RAMP_S = 10.0
"""Time for a quarter of a feed to come down: the site's ramp, and the time until its slowest part has landed. [s]"""
HOLD_S = 18.0


@pytest.fixture(scope="module", params=["5", "3.1.1"], ids=["mqtt-3.1.1", "mqtt-5"][::-1])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """One demo for all tests of a protocol."""
    with raised(tmp_path_factory.mktemp("dispatch"), request.param) as room:
        yield room


@pytest.fixture
def room(stage: Room) -> Iterator[Room]:
    """The demo with no order in force; every message that a test hears is valid."""
    if stage.running.ask("orders"):
        stage.dispatcher.accepted(stage.dispatcher.order("release", "*"))
        until("no order is open", lambda: not stage.running.ask("orders"), 10.0)
    yield stage
    stage.validate_said()


def test_who_comes_later_sees_availability_and_flexibility(room: Room) -> None:
    """Both are retained: a new dispatcher is told at once that the site is there and what it could do."""
    with Dispatcher(room.running.demo, room.running.protocol) as late:
        availability = late.wait("availability", lambda s: s.topic == f"vpp/v1/{late.vpp}/availability")
        assert (availability.payload, availability.retained) == (b"online", True)
        flexibility = late.wait("flexibility", lambda s: s.type == "vpp.flexibility.v1")
        assert flexibility.retained
    assert {r["resource"] for r in flexibility.data["resources"]} == {late.vpp, *FEEDS}


def forgeries(d: Dispatcher) -> list[tuple[str, str, dict[str, Any], str]]:
    """Return (what, topic, event, reason) of commands of which each must be refused for its own reason."""
    t = d.target_topic
    target = {"targets": [{"interval": {}, "feed_tags": ["main-a"], "load_constraint": watts(300, "kilowatt")}]}
    beyond = {"targets": [{"interval": {}, "load_constraint": watts(2, "megawatt")}]}
    nowhere = {"targets": [{"interval": {}, "feed_tags": ["main-z"], "load_constraint": watts(1, "kilowatt")}]}
    stranger, spoken = Key(d.key.kid), d.key.jws(target)
    head, _, mark = spoken.split(".")
    hs256 = f"{b64(json.dumps({'alg': 'HS256', 'kid': d.key.kid}).encode())}.{b64(json.dumps(target).encode())}"
    secret = hmac.digest(d.key.public_pem(), hs256.encode(), hashlib.sha256)
    none = b64(json.dumps({"alg": "none", "kid": d.key.kid}).encode())
    bodies: list[tuple[str, Any, dict[str, Any], str]] = [
        ("forged signature", stranger.jws(target), {}, "bad_signature"),
        ("tampered data", f"{head}.{b64(json.dumps(beyond).encode())}.{mark}", {}, "bad_signature"),
        ("no signature at all", f"{head}.{b64(json.dumps(target).encode())}.", {}, "bad_signature"),
        ("unknown kid", Key("who").jws(target), {}, "unknown_key"),
        ("alg none", f"{none}.{b64(json.dumps(target).encode())}.AA", {}, "bad_algorithm"),
        ("alg HS256 with the public key", f"{hs256}.{b64(secret)}", {}, "bad_algorithm"),
        ("tampered source", spoken, {"source": "//grid/v1/isv/other"}, "issuer_mismatch"),
        ("tampered type", spoken, {"type": "vpp.order.set.v1"}, "unknown_type"),
        ("tampered traceparent", spoken, {"traceparent": "x"}, "malformed"),
        ("an hour old", spoken, {"time": now(-3600.0)}, "expired"),
        ("from the future", spoken, {"time": now(3600.0)}, "not_yet_valid"),
        ("more than is granted", beyond, {}, "unauthorised"),
        ("a feed that is not here", nowhere, {}, "unknown_resource"),
        ("a misspelt key", {"target": []}, {}, "malformed"),
    ]
    made = [(what, t, d.envelope("grid.loadtarget.set.v1", data, **c), why) for what, data, c, why in bodies]
    return [*made, *bad_orders(d)]


def bad_orders(d: Dispatcher) -> list[tuple[str, str, dict[str, Any], str]]:
    """Return vpp/v1 orders of which each must be refused for its own reason."""
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("expired", {"expires_at": now(-60.0)}, "expired"),
        ("an interval that is over", {"interval": {"start_time": now(-90), "end_time": now(-60)}}, "expired"),
        ("a sequence that steps back", {"seq": 1}, "sequence"),
        ("an asset that is not here", {"resource": "ups-z"}, "unknown_resource"),
        ("more than is granted", {"power": watts(2, "megawatt")}, "unauthorised"),
        ("signed for another site", {"audience": "dc2"}, "unauthorised"),
        ("without a power", {"power": None}, "malformed"),
        ("a release with a power", {"kind": "release"}, "bad_power"),
        ("an unknown kind", {"kind": "explode"}, "malformed"),
    ]
    orders = [(what, {**d.order_data("limit", "main-a", 300e3), **c}, why) for what, c, why in cases]
    return [(f"order: {w}", d.order_topic, d.envelope("vpp.order.set.v1", data), why) for w, data, why in orders]


def refused(d: Dispatcher, what: str, sent: Sent, reason: str) -> None:
    """Fail unless the command's last receipt says that it was rejected for that reason."""
    last = d.receipts(sent)[-1]
    assert (last["status"], last.get("reason")) == ("rejected", reason), (what, last)
    assert last["detail"]


def test_nothing_forged_moves_a_setpoint(room: Room) -> None:
    """Every kind of bad command is refused with its own reason on the receipt topic, and no device is written to."""
    d, running = room.dispatcher, room.running
    ahead = {"interval": {"start_time": now(3000.0), "end_time": now(3600.0)}}
    first = d.accepted(d.order("limit", "main-a", 400e3, **ahead))  # so that a seq can step back, and an id be copied
    until("the devices rest", lambda: not running.held(), 90.0)
    before = running.counts()
    for what, topic, content, reason in forgeries(d):
        refused(d, what, d.send(topic, content), reason)
    refused(d, "not JSON", d.send(d.order_topic, b"\xff\x00 limit"), "malformed")
    refused(d, "bent copy", d.send(first.topic, {**first.event, "correlationid": str(uuid.uuid4())}), "replay")
    refused(d, "new id", d.send(first.topic, {**first.event, "id": str(uuid.uuid4())}), "replay")
    if running.protocol == "5":  # MQTT 3.1.1 does not tell a listener that what he hears has been retained
        target = {"targets": [{"interval": {}, "load_constraint": watts(300, "kilowatt")}]}
        kept = d.send(d.target_topic, d.envelope("grid.loadtarget.set.v1", target), retain=True)
        refused(d, "retained", kept, "retained")
        d.send(d.target_topic, b"", retain=True)
    unheard = len(d.said)
    target = d.envelope("grid.loadtarget.set.v1", {"targets": []}, source="//grid/v1/isv/nobody")
    d.send("grid/v1/isv/nobody/loadtarget/set", target)
    time.sleep(2.5)  # more than two beats: whatever had slipped through would have been written by now
    assert running.counts() == before
    assert not [s for s in d.said[unheard:] if s.type == "vpp.receipt.v1" and "nobody" in s.topic]
    assert "unknown_issuer" in (running.folder / "daemon.log").read_text(encoding="utf-8")
    assert [o["order_id"] for o in running.ask("orders")] == [first.order_id]


def test_a_command_counts_once(room: Room) -> None:
    """The same bytes get the same receipts while the order lives, and are a replay once it is over."""
    d = room.dispatcher
    ahead = {"interval": {"start_time": now(3000.0), "end_time": now(3600.0)}}
    sent = d.accepted(d.order("limit", "main-a", 400e3, **ahead))
    heard = len(d.said)
    assert d.receipts(d.again(sent), heard) == d.receipts(sent)[:2]
    assert len(room.running.ask("orders")) == 1
    d.accepted(d.order("release", "main-a", power=None))
    d.status(sent, "completed")
    heard = len(d.said)
    assert d.receipts(d.again(sent), heard)[-1]["reason"] == "replay"
    assert room.running.ask("orders") == []


def confirmed(d: Dispatcher, sent: Sent) -> Said:
    """Return the power state that confirms a load target."""
    return d.wait(
        "target_set with the command's correlation id",
        lambda s: s.type == "grid.powerstate.status.v1" and s.correlation == sent.correlation,
    )


def test_a_load_target_is_kept_and_null_restores(room: Room) -> None:
    """A quarter off every feed: confirmed, kept at the meters within 2 %, nothing below reserve; null gives it back."""
    d, meters, running = room.dispatcher, room.meters, room.running
    baseline_w = room.settled_w()
    limit_w = {tag: (1.0 - SHED_FRAC) * w for tag, w in baseline_w.items()}
    sent = d.accepted(d.load_target(limit_w))
    began_s = time.monotonic()
    state = confirmed(d, sent).data["feeds"]
    assert {tag: feed["event"] for tag, feed in state.items()} == dict.fromkeys(FEEDS, "target_set")
    for tag, feed in state.items():
        (target,) = feed["targets"]
        assert target["correlation_id"] == sent.correlation
        assert target["load_constraint"] == watts(round(limit_w[tag], 1))
    while time.monotonic() < began_s + RAMP_S + HOLD_S:
        storage = [x for x in running.truth()["devices"].values() if "soc_frac" in x]
        assert storage
        assert all(x["soc_frac"] >= x["reserve_frac"] for x in storage)
        time.sleep(1.0)
    for tag, w in limit_w.items():
        assert meters.highest_w(tag, began_s + RAMP_S) <= (1.0 + TOLERANCE_FRAC) * w
    null = d.accepted(d.load_target(dict.fromkeys(FEEDS)))
    assert all(feed["targets"] == [] for feed in confirmed(d, null).data["feeds"].values())
    until("every job is released", lambda: not halls_held(running.held()), 60.0)
    until("meters are back", lambda: all(meters.mean_w(t, 4.0) > 0.95 * w for t, w in baseline_w.items()), 60.0)
    heard = len(d.said)
    assert d.receipts(d.again(sent), heard)[-1]["reason"] == "replay"
    assert running.ask("orders") == []


def halls_held(held: list[str]) -> list[str]:
    """Return the halls among what is held."""
    return [name for name in held if name.startswith("hall")]


def test_limit_setpoint_and_reduce_show_at_the_meter(room: Room) -> None:
    """Each kind does at the meter what it says, goes through its life in public, and ends with a statement."""
    if room.running.protocol != "5":
        pytest.skip("what an order does at the meter does not depend on the version of MQTT")
    d, meters = room.dispatcher, room.meters
    before_w = room.settled_w()
    limit = d.accepted(d.order("limit", "main-a", before_w["main-a"] - 40e3))
    setpoint = d.accepted(d.order("setpoint", "main-b", before_w["main-b"] - 30e3))
    short = {"interval": {"start_time": now(3.0), "end_time": now(6.0)}}
    planned = d.accepted(d.order("limit", "main-a", before_w["main-a"] - 30e3, **short))
    assert d.status(planned, "scheduled")["interval"]["start_time"].startswith(short["interval"]["start_time"][:19])
    d.status(planned, "active")
    d.status(planned, "completed")
    time.sleep(6.0)
    assert meters.mean_w("main-a", 4.0) <= 1.02 * (before_w["main-a"] - 40e3)
    assert meters.mean_w("main-b", 4.0) == pytest.approx(before_w["main-b"] - 30e3, rel=0.02)
    d.accepted(d.order("release", "*", power=None))
    told = [d.status(order, "completed") for order in (limit, setpoint)]
    assert all(x["delivered_power"]["value"] > 0 for x in told)
    before_w = room.settled_w()
    reduce = d.accepted(d.order("reduce", d.vpp, 60e3))
    d.status(reduce, "active")
    time.sleep(9.0)
    assert meters.site_w(4.0) <= 1.02 * (sum(before_w.values()) - 60e3)
    d.accepted(d.order("release", d.vpp))
    assert d.status(reduce, "completed")["delivered_reduction"]["value"] > 0
    for sent in (limit, setpoint, planned, reduce):
        found = d.wait("statement", _is_statement_of(sent))
        assert found.data["metered_wh"] > 0


def _is_statement_of(sent: Sent) -> Callable[[Said], bool]:
    return lambda said: said.type == "vpp.statement.v1" and said.data["order_id"] == sent.order_id


def test_a_regulation_signal_is_followed_both_ways(room: Room) -> None:
    """With a signal every two seconds the site moves down and up around its baseline; telemetry keeps its beat."""
    d, meters = room.dispatcher, room.meters
    base_w, capacity_w, heard = sum(room.settled_w().values()), 40e3, len(d.said)
    order = d.accepted(d.order("regulation", d.vpp, capacity_w))
    d.status(order, "active")
    reached_w = []
    for level, dated in ((-1.0, False), (1.0, True)):
        for i in range(4):
            more = {"seq": int(time.time() * 1000), "sent_at": now()} if dated else {}
            d.signal(level * (1.0 if i else 0.5), **more)
            time.sleep(2.0)
        reached_w.append(meters.site_w(4.0))
    stale = d.signal(1.0, seq=int(time.time() * 1000), sent_at=now(-60.0))
    refused(d, "an old signal", stale, "expired")
    refused(d, "a signal beyond 1", d.signal(1.5), "bad_power")
    d.accepted(d.order("release", d.vpp))
    d.status(order, "completed")
    assert reached_w[0] == pytest.approx(base_w - capacity_w, abs=0.35 * capacity_w)
    assert reached_w[1] == pytest.approx(base_w + capacity_w, abs=0.35 * capacity_w)
    beats = [s.mono_s for s in d.said[heard:] if s.type == "vpp.telemetry.v1"]
    gaps_s = [b - a for a, b in pairwise(beats)]
    assert statistics.median(gaps_s) == pytest.approx(2.0, abs=0.3)


def test_a_killed_daemon_is_offline_at_once_and_resumes_its_order(room: Room, tmp_path: Path) -> None:
    """Its last will says offline; an order goes on after the restart, and one that was retained meanwhile is refused."""
    d, running = room.dispatcher, room.running
    order = d.accepted(d.order("limit", "main-a", room.settled_w()["main-a"] - 20e3))
    d.status(order, "active")
    heard = len(d.said)
    running.signal_daemon(signal.SIGKILL)
    lost = d.wait("the last will", lambda s: s.topic.endswith("/availability"), heard, within_s=5.0)
    assert lost.payload == b"offline"
    retained = d.send(
        d.order_topic, d.envelope("vpp.order.set.v1", d.order_data("limit", "main-b", 99e3)), qos=0, retain=True
    )
    assert running.daemon_gone(5.0)
    heard = len(d.said)
    running.restart_daemon()
    d.wait("online again", lambda s: s.payload == b"online", heard)
    if running.protocol == "3.1.1":  # with MQTT 5 the broker is asked not to send what was retained a second time
        assert d.receipts(retained)[-1]["reason"] == "retained"
    d.send(d.order_topic, b"", qos=0, retain=True)
    assert [o["order_id"] for o in running.ask("orders")] == [order.order_id]
    d.accepted(d.order("release", "*"))
    d.status(order, "completed")

"""The operator beside the dispatcher: release and resume, reload, shut-down, and what the command line says meanwhile."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.dispatch_rig import Room, opened, raised, until
from tests.integration.dispatch_wire import Sent, now

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(180)]
IN_ORDER = True
AHEAD_S = 3000.0
GIVEN_BACK_S = 60.0
SIGTERM_S = 15.0
SWITCHES = {"ups": (704, "WSetEna"), "battery": (704, "WSetEna"), "pv": (123, "WMaxLim_Ena")}
"""Where a stock client sees whether a device follows a setpoint, by kind."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """One demo for all tests here; whatever it says is valid."""
    with raised(tmp_path_factory.mktemp("operator"), "5") as room:
        yield room


def rejection(room: Room, sent: Sent) -> str:
    """Return why a command was refused."""
    last = room.dispatcher.receipts(sent)[-1]
    assert last["status"] == "rejected", last
    return str(last["reason"])


def later() -> dict[str, Any]:
    """Return changes that put an order into the future, where it moves nothing yet."""
    return {"interval": {"start_time": now(AHEAD_S), "end_time": now(AHEAD_S + 60.0)}}


def restored(room: Room) -> bool:
    """Say whether the room holds nothing back that was held for an order."""
    return not [name for name in room.running.held() if name.startswith("hall") or name.startswith("pv")]


def test_a_reload_changes_grants_and_touches_no_device(stage: Room) -> None:
    """SIGHUP takes a smaller grant at once; a broken file is refused, named in the log, and the grant in force stays."""
    d, running = stage.dispatcher, stage.running
    whole = running.config.read_text(encoding="utf-8")
    log = running.folder / "daemon.log"
    until("the devices rest", lambda: not running.held(), 120.0)
    before = running.counts()
    running.config.write_text(whole.replace("max_power_w = 1400000.0", "max_power_w = 100000.0"), encoding="utf-8")
    running.signal_daemon(signal.SIGHUP)
    until("reloaded", lambda: '"reloaded"' in log.read_text(encoding="utf-8"), 10.0)
    assert rejection(stage, d.order("limit", "main-a", 200e3, **later())) == "unauthorised"
    d.accepted(d.order("limit", "main-a", 90e3, **later()))
    running.config.write_text(whole.replace("[site]", "[site]\ncycle_s = 'fast'", 1), encoding="utf-8")
    running.signal_daemon(signal.SIGHUP)
    until("refused", lambda: '"reload_refused"' in log.read_text(encoding="utf-8"), 10.0)
    assert "site.cycle_s" in log.read_text(encoding="utf-8")
    assert rejection(stage, d.order("limit", "main-a", 200e3, **later())) == "unauthorised"
    running.config.write_text(whole, encoding="utf-8")
    running.signal_daemon(signal.SIGHUP)
    until("reloaded again", lambda: log.read_text(encoding="utf-8").count('"reloaded"') == 2, 10.0)
    d.accepted(d.order("limit", "main-a", 200e3, **later()))
    d.accepted(d.order("release", "main-a"))
    assert running.counts() == before


def test_release_wins_over_the_grid_until_resume(stage: Room) -> None:
    """``vppd release`` aborts what is in force and what is to come, refuses more, and gives the room back; resume ends it."""
    d, running, config = stage.dispatcher, stage.running, str(stage.running.config)
    order = d.accepted(d.order("limit", "main-a", stage.settled_w()["main-a"] - 60e3))
    d.status(order, "active")
    planned = d.accepted(d.order("limit", "main-b", 300e3, **later()))
    shown = {o["order_id"]: o for o in running.ask("orders")}
    assert shown[order.order_id]["phase"] == "active"
    assert shown[planned.order_id]["phase"] == "scheduled"
    status = running.cli("status", "-c", config)
    assert status.returncode == 0
    assert all(word in status.stdout for word in ("main-a", "ups-a", "hall-a"))
    until("something follows the order", lambda: bool(running.held()), 10.0)
    refuse_a_new_plant(stage)
    done = running.cli("release", "-c", config)
    assert done.returncode == 0, done.stderr
    for sent in (order, planned):
        assert "operator" in d.status(sent, "aborted")["detail"]
    assert rejection(stage, d.order("limit", "main-a", 300e3)) == "hold"
    assert rejection(stage, d.load_target({"main-a": 300e3})) == "hold"
    until("the room is given back", lambda: restored(stage), GIVEN_BACK_S)
    assert running.ask("orders") == []
    assert running.cli("resume", "-c", config).returncode == 0
    again = d.accepted(d.order("limit", "main-b", 300e3, **later()))
    d.accepted(d.order("release", "main-b"))
    d.status(again, "completed")


def refuse_a_new_plant(room: Room) -> None:
    """Try a reload that would begin anew while an order is in force: it is refused, and the order goes on."""
    running, log = room.running, room.running.folder / "daemon.log"
    whole = running.config.read_text(encoding="utf-8")
    refused = log.read_text(encoding="utf-8").count('"reload_refused"')
    running.config.write_text(whole.replace("[site]", "[site]\nmargin_frac = 0.02", 1), encoding="utf-8")
    running.signal_daemon(signal.SIGHUP)
    until("refused", lambda: log.read_text(encoding="utf-8").count('"reload_refused"') == refused + 1, 10.0)
    running.config.write_text(whole, encoding="utf-8")
    assert running.held()


def test_adapters_are_listed(stage: Room) -> None:
    """``vppd adapters`` names what is installed."""
    listed = stage.running.cli("adapters").stdout.split()
    assert {"modbus-sunspec", "modbus-profile", "mqtt-json", "dsx-bms", "slurm"} <= set(listed)


def test_sigterm_releases_every_device_in_time(stage: Room) -> None:
    """In the middle of an order SIGTERM ends the daemon within 15 s; the registers then show no setpoint and no job is held."""
    d, running = stage.dispatcher, stage.running
    d.accepted(d.load_target({tag: 0.8 * w for tag, w in stage.settled_w().items()}))
    until("both halls and storage follow", lambda: len(running.held()) >= 3, 30.0)
    heard, began_s = len(d.said), time.monotonic()
    stage.lived_s = began_s - running.up_s
    running.signal_daemon(signal.SIGTERM)
    assert running.daemon_gone(SIGTERM_S), running.log()
    assert time.monotonic() - began_s < SIGTERM_S
    d.wait("offline", lambda s: s.payload == b"offline", heard, within_s=2.0)
    for device in running.demo["devices"]:
        if device["kind"] in SWITCHES:
            assert switched_on(device) == 0, device["asset"]
    assert running.held() == []
    assert all(hall["cancelled"] == 0 for hall in running.truth()["halls"].values())


def switched_on(device: dict[str, Any]) -> int:
    """Return the register that says whether the device follows a setpoint, as a stock client reads it."""
    client = opened(device)
    try:
        model, name = SWITCHES[device["kind"]]
        return int(getattr(client.models[model][0], name).cvalue)
    finally:
        client.close()


def test_every_decision_of_the_session_can_be_made_again(stage: Room) -> None:
    """``vppd replay`` reproduces every recorded decision of the daemon that has just ended."""
    done = stage.running.cli("replay", str(stage.running.folder / "state" / "telemetry.db"))
    assert done.returncode == 0, done.stdout + done.stderr
    cycles, differing = (int(word) for word in done.stdout.split() if word.isdigit())
    assert cycles >= 0.8 * stage.lived_s
    assert differing == 0

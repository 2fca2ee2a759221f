"""``vppd agent`` as a process, with a real broker and NVIDIA's binding on a stand-in driver."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest

from tests.agent.rig import Dispatcher, Node, until
from tests.agent.stub import uuid
from tests.servers.mosquitto import Mosquitto

pytestmark = pytest.mark.integration
FREE_W = [700.0] * 8


def test_a_cap_is_set_confirmed_and_let_go_when_the_lease_ends(node: Node) -> None:
    """A node cap reaches all GPUs and is acknowledged; without renewal everything is as before when the lease ends."""
    node.gpus.put(7, limit_mw=600_000)
    node.start()
    said = node.orders.order(node_cap_w=4000.0, lease_s=1.5)
    assert (said["state"], said["from"], said["node"]["cap_w"]) == ("held", "vppd", 4000.0)
    assert node.gpus.limits_w == [500.0] * 8
    assert {d["outcome"] for d in said["devices"].values()} == {"confirmed"}
    assert said["devices"][uuid(7)] == {"cap_w": 500.0, "prior_w": 600.0, "outcome": "confirmed", "detail": ""}
    until(lambda: node.orders.telemetry.get("power_w") == 4000.0, "telemetry shows the cap")
    node.orders.wait(lambda s: s["detail"] == "the lease has ended" and s["state"] == "idle", "the lease ends")
    assert node.gpus.limits_w == [*FREE_W[:7], 600.0]
    assert not (node.state / "prior.json").exists()
    assert node.usage.memory_info().rss < 60e6


def test_renewing_keeps_it_and_null_gives_it_back(node: Node) -> None:
    """Orders in time keep the cap beyond the first lease; an order with null gives everything back at once."""
    node.start()
    for _ in range(4):
        assert node.orders.order(node_cap_w=4000.0, lease_s=1.0)["state"] == "held"
        node.orders.next_telemetry(2)
        assert node.gpus.limits_w == [500.0] * 8
    said = node.orders.order(node_cap_w=None)
    assert said["state"] == "idle"
    assert node.gpus.limits_w == FREE_W


def test_single_devices_and_what_is_refused(node: Node) -> None:
    """A device's own cap and clocks are set; out of range is refused for that one, unknown ones are named."""
    node.start()
    devices = {
        uuid(0): {"cap_w": 400.0, "clock_mhz": [210, 1200]},
        uuid(1): {"cap_w": 100.0},
        "GPU-none": {"cap_w": 400.0},
    }
    said = node.orders.order(devices=devices)
    assert node.gpus.limits_w == [400.0, *FREE_W[1:]]
    assert node.gpus.get(0, "high_mhz") == 1200
    assert [said["devices"][d]["outcome"] for d in devices] == ["confirmed", "rejected", "rejected"]
    assert "350 to 700 W" in said["devices"][uuid(1)]["detail"]


def test_what_must_not_count_does_not(node: Node) -> None:
    """Stale, retained, garbled and endless commands change nothing, and each sender is told why."""
    node.start()
    node.orders.order(node_cap_w=4000.0, seq=100)
    for refused, why in (
        (node.orders.order(node_cap_w=3000.0, seq=100), "stale"),
        (node.orders.order(node_cap_w=3000.0, seq=99), "stale"),
        (node.orders.order(node_cap_w=3000.0, seq=101, retain=True), "retained"),
        (node.orders.order(node_cap_w="many", seq=101), "node_cap_w"),
        (node.orders.order(node_cap_w=3000.0, seq=101, lease_s=86_400.0), "lease_s"),
    ):
        assert why in refused["detail"]
        assert refused["node"]["cap_w"] == 4000.0
        assert {(d["outcome"], d["cap_w"]) for d in refused["devices"].values()} == {("rejected", 500.0)}
    assert node.gpus.limits_w == [500.0] * 8
    node.orders.send("", retain=True)


def test_killed_and_put_back_by_the_stop_command(node: Node) -> None:
    """After kill -9 the caps stay until ``vppd agent --restore`` puts them back, with a broken configuration too."""
    node.gpus.put(3, limit_mw=650_000)
    node.start()
    assert node.run("--restore").returncode == 3, "an agent that runs is not undermined"
    node.orders.order(devices={uuid(3): {"cap_w": 400.0, "clock_mhz": [210, 1200]}})
    node.kill()
    assert node.gpus.limits_w[3] == 400.0
    until(lambda: node.orders.availability == "offline", "the last will")
    node.config.write_text("an edit that went wrong", encoding="utf-8")
    node.gpus.more_environment["STATE_DIRECTORY"] = str(node.state)
    result = node.run("--restore")
    assert result.returncode == 0, result.stderr
    assert (node.gpus.limits_w[3], node.gpus.get(3, "high_mhz")) == (650.0, 0)
    assert not (node.state / "prior.json").exists()
    assert node.run("--restore").returncode == 0


def test_killed_and_started_again_puts_back_what_was_there_first(node: Node) -> None:
    """A restarted agent starts by undoing what the dead one left, with the values from before the dead one."""
    node.gpus.put(0, limit_mw=650_000)
    node.start()
    node.orders.order(node_cap_w=4000.0, lease_s=600.0)
    node.kill()
    assert node.gpus.limits_w == [500.0] * 8
    node.start()
    assert node.gpus.limits_w == [650.0, *FREE_W[1:]]
    assert node.orders.statuses[-1]["state"] == "idle"
    assert node.orders.order(node_cap_w=4000.0, seq=1)["devices"][uuid(0)]["prior_w"] == 650.0


def test_a_foreign_revert_is_set_again_and_told(node: Node) -> None:
    """A limit that another program raises is found by the next reading, set again, told and logged."""
    node.start()
    node.orders.order(node_cap_w=4000.0)
    node.gpus.put(5, limit_mw=700_000)
    said = node.orders.wait(lambda s: uuid(5) in s["detail"], "the revert is told")
    assert node.gpus.limits_w == [500.0] * 8
    assert "set again 1 times" in said["devices"][uuid(5)]["detail"]
    assert "agent_limit_reverted" in node.log


def test_the_lease_runs_on_without_a_broker(tmp_path: Path, node: Node) -> None:
    """The broker dies while a cap is held: it is let go when the lease ends all the same, and told when the broker is back."""
    with Mosquitto(tmp_path / "own") as broker:
        node.broker = node.broker.replace(str(node.port), str(broker.port))
        node.orders.close()
        node.orders = Dispatcher(broker.port, node.name)
        node.start()
        node.orders.order(node_cap_w=4000.0, lease_s=2.0)
        broker.kill()
        assert node.gpus.limits_w == [500.0] * 8
        until(lambda: node.gpus.limits_w == FREE_W, "the lease ends")
        assert "agent_link_lost" in node.log
        count = len(node.orders.statuses)
        broker.start()
        said = node.orders.wait(lambda s: s["state"] == "idle", "the agent is back", count)
        assert said["node"]["cap_w"] is None


def test_a_stop_puts_everything_back(node: Node) -> None:
    """SIGTERM gives every limit back, says so and offline, and ends well."""
    node.start()
    node.orders.order(node_cap_w=4000.0, lease_s=600.0)
    node.signal(signal.SIGTERM)
    assert node.wait() == 0
    assert node.gpus.limits_w == FREE_W
    until(lambda: node.orders.availability == "offline", "offline")
    assert (node.orders.statuses[-1]["state"], node.orders.statuses[-1]["detail"]) == ("idle", "stopped")


def test_a_driver_that_hangs_starves_the_watchdog(tmp_path: Path, node: Node) -> None:
    """READY is said, then WATCHDOG after each round of readings; with a driver that hangs no more, and systemd ends it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20.0)
        node.start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="30000000")
        until(lambda: b"READY=1" in systemd.recv(1000), "ready")
        for _ in range(3):
            until(lambda: systemd.recv(1000) == b"WATCHDOG=1", "a round of readings")
        node.orders.order(node_cap_w=4000.0)
        node.gpus.stall(30.0)
        systemd.settimeout(2.0)
        with pytest.raises(TimeoutError):
            until(lambda: systemd.recv(1000) == b"", "silence")
        node.signal(signal.SIGABRT)
        node.wait()
    node.gpus.stall(0.0)
    assert node.run("--restore").returncode == 0
    assert node.gpus.limits_w == FREE_W


def test_cpu_packages_are_capped_too(node: Node) -> None:
    """With a powercap tree the package has a cap of its own, shares in the node's, and gets its old limit back."""
    zone = node.powercap / "intel-rapl:0"
    zone.mkdir(parents=True)
    for file, text in (("name", "package-0"), ("constraint_0_power_limit_uw", "350000000"), ("energy_uj", "1")):
        (zone / file).write_text(text, encoding="ascii")
    node.start()
    said = node.orders.order(devices={"package-0": {"cap_w": 200.0}})
    assert said["devices"]["package-0"]["outcome"] == "confirmed"
    assert (zone / "constraint_0_power_limit_uw").read_text(encoding="ascii") == "200000000"
    node.kill()
    assert node.run("--restore").returncode == 0
    assert (zone / "constraint_0_power_limit_uw").read_text(encoding="ascii") == "350000000"


def test_once_prints_and_changes_nothing(node: Node) -> None:
    """``--once`` prints readings and limits as JSON; no limit is set, no folder made, no broker needed."""
    node.write()
    result = node.run("--once")
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["node"] == node.name
    assert said["devices"][uuid(7)]["default_cap_w"] == 700.0
    assert said["devices"][uuid(7)]["power_w"] == 650.0
    assert [node.gpus.get(index, "sets") for index in range(8)] == [0] * 8
    assert not node.state.exists()


def test_a_file_of_limits_without_sense_stops_the_agent(node: Node) -> None:
    """What was there before cannot be guessed: the agent does not start, and the file is left for people."""
    node.state.mkdir()
    (node.state / "prior.json").write_text("{", encoding="utf-8")
    node.write()
    for option in ((), ("--restore",)):
        result = node.run(*option)
        assert result.returncode == 3
        assert "prior.json" in result.stderr
    assert (node.state / "prior.json").read_text(encoding="utf-8") == "{"

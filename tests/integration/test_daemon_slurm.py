"""The whole daemon with a real Slurm and a real broker: orders stop what the tiers allow, and every job ends with its right result."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.grid.dispatcher import Key
from tests.integration.slurm_room import (
    BASE_W,
    CPUS,
    IDLE_W,
    JOB_W,
    NODES,
    Daemon,
    Dispatcher,
    Meter,
    Witness,
    soon,
    write_config,
)
from tests.integration.slurm_work import paced, paced_result
from tests.servers.mosquitto import Mosquitto
from tests.servers.slurm import SlurmServer, running_slurm, until
from tests.support import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]
ALL_W = BASE_W + NODES * (IDLE_W + CPUS * JOB_W)
TWO_LESS_W = ALL_W - 1.8 * JOB_W
"""Met by stopping two jobs."""
FREEZE = {"freeze_partitions": ("flex",)}


@dataclass
class Room:
    """Everything at once: one job of each tier, two that wait, and who watches them."""

    server: SlurmServer
    witness: Witness
    dispatcher: Dispatcher
    daemon: Daemon
    jobs: dict[int, int] = field(default_factory=dict)
    """Job by tier."""
    waiting: list[int] = field(default_factory=list)

    def fill(self) -> None:
        """Start one job of each tier, the rigid ones on the first node, and let two more wait."""
        for path in self._out.glob("over.*"):
            path.unlink()
        for tier, node in enumerate(("node1", "node1", "node2", "node2")):
            self.jobs[tier] = self.server.submit(
                paced(8, f"over.{tier}"), f"--comment=vpp:tier={tier} mine", "-t7", "-w", node
            )
        for job in self.jobs.values():
            self.server.wait(job, "RUNNING")
        self.wait_in_line()
        self.wait_in_line()
        until(lambda: self.witness.drawing == self.of(0, 1, 2, 3), "all jobs run", seen=lambda: self.witness.drawing)
        until(lambda: self.daemon.state()["power_w"] == ALL_W, "the meter is read", seen=self.daemon.state)

    def wait_in_line(self) -> None:
        """Submit a flexible job that finds no place."""
        self.waiting.append(self.server.submit(paced(4), "--comment=vpp:tier=3 mine", "-t7"))

    def all_who_wait_are_held(self) -> bool:
        """Say whether none of those who wait may start, places or not."""
        return {self.server.show(job)["Reason"] for job in self.waiting} == {"JobHeldAdmin"}

    def let_end(self, *tiers: int) -> None:
        """Let jobs of some tiers come to their end when they run."""
        for tier in tiers:
            (self._out / f"over.{tier}").touch()

    def of(self, *tiers: int) -> frozenset[int]:
        """Return the jobs of some tiers."""
        return frozenset(self.jobs[tier] for tier in tiers)

    def come_to(self, *tiers: int, for_s: float = 20.0) -> float:
        """Wait until jobs of these tiers, but for those that have ended, draw power and no others; return how long that took. [s]"""

        def is_so() -> bool:
            wanted = {job for job in self.of(*tiers) if self.server.state(job) != "COMPLETED"}
            return self.witness.drawing - set(self.waiting) == wanted

        return soon(is_so, f"tiers {tiers} alone run", for_s, lambda: self.witness.drawing)

    def stay_at(self, *tiers: int, for_s: float) -> None:
        """See for some time that jobs of no other tiers run, and that none of those who wait starts. [s]"""
        over_s = time.monotonic() + for_s
        while time.monotonic() < over_s:
            assert self.witness.drawing <= self.of(*tiers), self.server.run("squeue", "-a")
            assert {self.server.state(job) for job in self.waiting} == {"PENDING"}
            time.sleep(0.3)

    def signals(self, *tiers: int) -> int:
        """Return how many signals Slurm has been told to send to the jobs of some tiers."""
        text = (self.server.base / "log/slurmctld.log").read_text(encoding="utf-8")
        return sum(len(re.findall(rf"REQUEST_KILL_JOB JobId={job} ", text)) for job in self.of(*tiers))

    def all_end_well(self) -> None:
        """Wait until every job has completed, which it does with its right result alone, and is as its user made it."""
        self.let_end(0, 1, 2, 3)
        for job in (*self.jobs.values(), *self.waiting):
            self.server.wait(job, "COMPLETED", "FAILED", "TIMEOUT", for_s=60.0)
            assert self.server.state(job) == "COMPLETED", self.server.show(job)
            bursts, result = map(int, (self._out / f"result.{job}").read_text(encoding="ascii").split())
            assert result == paced_result(bursts)
        for tier, job in self.jobs.items():
            shown = self.server.show(job)
            assert shown["Comment"].strip() == f"vpp:tier={tier} mine"
            assert shown["Restarts"] == "0"
        assert self.server.run("sinfo", "-h", "-o", "%P %a").replace("*", "").split("\n") == ["flex up", "firm up"]

    @property
    def _out(self) -> Path:
        return self.server.base / "out"


Raise = Callable[..., Room]


@pytest.fixture(scope="module")
def server() -> Iterator[SlurmServer]:
    """A real Slurm on this machine, posing as two nodes of two CPUs."""
    with running_slurm(NODES, CPUS) as running:
        yield running


@pytest.fixture
def raise_room(server: SlurmServer, mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Raise]:
    """Start meter, daemon and dispatcher round the cluster; in the end all jobs are cancelled, whatever happened."""
    with ExitStack() as stack:

        def start(**cluster: tuple[str, ...]) -> Room:
            key, witness = Key("tso-1"), Witness(server)
            meter = stack.enter_context(Meter(witness))
            config, http = write_config(tmp_path, server, mosquitto, meter.port, key, cluster)
            dispatcher = stack.enter_context(Dispatcher(mosquitto, key))
            return Room(server, witness, dispatcher, stack.enter_context(Daemon(config, http)))

        yield start
    server.clear()


def test_an_order_stops_what_the_tiers_allow(raise_room: Raise) -> None:
    """A load target stops tiers 3 and 2, never 0; nothing starts into the hole; a breach names real nodes; null lets all end well."""
    room = raise_room()
    room.fill()
    room.dispatcher.load_target(TWO_LESS_W)
    took_s = room.come_to(0, 1)
    assert took_s < 5.0
    until(lambda: room.daemon.state()["power_w"] <= TWO_LESS_W, "the meter is below the target", 10.0)
    shown = room.daemon.asset()
    assert shown["power_w"] == ALL_W - BASE_W - 2 * JOB_W
    assert shown["available_w"] == ALL_W - BASE_W
    room.wait_in_line()
    until(room.all_who_wait_are_held, "the newcomer is held too", 15.0)
    room.let_end(1)
    room.server.wait(room.jobs[1], "COMPLETED", for_s=30.0)  # a place falls free, and more is asked than can be given
    room.dispatcher.load_target(BASE_W + JOB_W)
    alerts = "grid/v1/dsx-flex-agent/dc1-agent/powerbreach"
    until(lambda: bool(room.dispatcher.data_of(alerts)), "a breach", 30.0, lambda: room.dispatcher.said)
    hints = room.dispatcher.data_of(alerts)[0]["shed_hints"]
    assert [(hint["resource_id"], hint["resource_type"]) for hint in hints] == [("node2", "node")]
    room.stay_at(0, for_s=3.0)
    assert room.server.state(room.jobs[0]) == "RUNNING"
    assert room.signals(0, 1) == 0
    room.dispatcher.load_target(None)
    room.come_to(0, 2, 3, for_s=30.0)
    room.all_end_well()


def test_a_killed_daemon_finds_them_stopped(raise_room: Raise) -> None:
    """After kill -9 and a new start the order still holds: the jobs stay stopped without a second STOP, and go on when released."""
    room = raise_room(**FREEZE)
    room.fill()
    room.dispatcher.load_target(TWO_LESS_W)
    room.come_to(0, 1)
    room.stay_at(0, 1, for_s=3.0)
    before = room.signals(2, 3)
    room.daemon.kill()
    room.stay_at(0, 1, for_s=2.0)
    room.daemon.start()
    until(lambda: room.daemon.asset()["command"] == "setpoint", "the order is in force", 10.0, room.daemon.state)
    room.stay_at(0, 1, for_s=8.0)
    assert room.signals(2, 3) == before
    assert room.signals(0, 1) == 0
    room.dispatcher.load_target(None)
    room.come_to(0, 1, 2, 3, for_s=30.0)
    room.all_end_well()


def test_an_order_that_ends_while_the_daemon_is_dead(raise_room: Raise) -> None:
    """An order that runs out while nobody is there leaves the jobs stopped; the next start gives everything back."""
    room = raise_room(**FREEZE)
    room.fill()
    ends_s = time.monotonic() + 15.0
    room.dispatcher.limit(TWO_LESS_W, 15.0)
    room.come_to(0, 1)
    room.daemon.kill()
    room.stay_at(0, 1, for_s=ends_s - time.monotonic() + 1.0)
    room.daemon.start()
    room.come_to(0, 1, 2, 3, for_s=30.0)
    room.all_end_well()


def test_by_hand_when_the_daemon_does_not_come_back(raise_room: Raise) -> None:
    """The lines that docs/operator.md has for a cluster whose vppd is dead let every job go on; vppd is content afterwards."""
    room = raise_room(**FREEZE)
    room.fill()
    room.dispatcher.load_target(TWO_LESS_W)
    room.come_to(0, 1)
    room.daemon.kill()
    text = (ROOT / "docs" / "operator.md").read_text(encoding="utf-8")
    found = re.search(r"```\n(squeue .*?)```", text, re.DOTALL)
    assert found
    room.server.run("bash", "-euo", "pipefail", "-c", found[1].replace("PARTITION", "flex"))
    room.come_to(0, 1, 2, 3)
    room.dispatcher.said.clear()
    room.daemon.start()
    room.dispatcher.load_target(None)
    room.all_end_well()

"""Ten events on a real Slurm full of jobs, with what runs the data center dying in the middle: the jobs' own diaries tell who kept what promise."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.grid.dispatcher import Key
from tests.integration.slurm_room import Daemon, Dispatcher, Meter, write_config
from tests.integration.slurm_rounds import CPUS, IDLE_W, JOB_W, NODES, TIERS, TOLERANCE_FRAC, Hall, Rounds
from tests.servers.mosquitto import Mosquitto
from tests.servers.slurm import running_slurm, until
from vppd.demo.tomlwriter import Value

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]
WINDOW_S = 90.0
"""In every window of this length a job stands still no longer than its tier accepts."""
CURTAIL = {"window_s": WINDOW_S, "ramp_s": 10.0, "restore_s": 2.0}
SEED = 20240710
LONG_S = 8.0
DEEP, BY_ITSELF = 0, 1
"""The event that asks most, and the one that nobody ends before its time."""
NOISE_S = 1.0
"""A diary is that much too pessimistic about a pause: a quarter of a second, and what a busy machine adds."""
GAP_S = 5.0
"""No job goes without a burst for so long, unless it is stopped: forty of them share a machine with the servers."""


@pytest.fixture
def rounds(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Rounds]:
    """A full cluster with its meter, the daemon, and a dispatcher."""
    with ExitStack() as stack:
        server = stack.enter_context(running_slurm(NODES, CPUS))
        hall, key = Hall(server, random.Random(SEED)), Key("tso-1")
        meter = stack.enter_context(Meter(hall))
        cluster: dict[str, Value] = {
            "node_idle_w": IDLE_W,
            "node_max_w": IDLE_W + CPUS * JOB_W,
            "max_pause_s": {"1": 600.0, "2": 600.0, "3": 600.0},  # the window binds, not these
            "stagger_s": 0.05,
        }
        rated_w = NODES * (IDLE_W + CPUS * JOB_W)
        config, http = write_config(tmp_path, server, mosquitto, meter.port, key, cluster, rated_w, CURTAIL)
        hall.fill()
        dispatcher = stack.enter_context(Dispatcher(mosquitto, key))
        yield Rounds(hall, stack.enter_context(Daemon(config, http)), dispatcher)


def test_ten_rounds(rounds: Rounds, mosquitto: Mosquitto) -> None:
    """Ten times power falls and rises again, through five deaths; all jobs end with their right result and no tier is overdrawn."""
    deaths = _deaths(rounds, mosquitto)
    rounds.rise()
    for number in range(10):
        _event(rounds, number, deaths.get(number))
    rounds.hall.finish()
    _judge(rounds)


def _event(rounds: Rounds, number: int, death: Callable[[], None] | None) -> None:
    """Let power fall by some jobs, hold it there through a death, and let it rise."""
    hall, chance = rounds.hall, rounds.hall.chance
    jobs, for_s = chance.randint(3, 8), 16.0
    if number == DEEP:
        jobs = 16
    if number == BY_ITSELF:
        for_s = 10.0
    if death is not None:
        jobs, for_s = chance.randint(3, 4), 60.0
    hall.look()
    less_w = (jobs - 0.2) * JOB_W
    target_w = hall.power_w - less_w
    match number % 3:
        case 0:
            rounds.dispatcher.load_target(target_w, for_s)
        case 1:
            rounds.dispatcher.limit(target_w, for_s)
        case _:
            rounds.dispatcher.reduce(less_w, for_s)
    rounds.fall_to(target_w)
    before = hall.started()
    rounds.hold(target_w, before, LONG_S if number == DEEP else chance.uniform(0.5, 1.5))
    if death is not None:
        death()
        rounds.hold(target_w, before, chance.uniform(0.5, 1.5))
    if number % 3 == 0:
        rounds.dispatcher.load_target(None)
    elif number != BY_ITSELF:
        rounds.dispatcher.release()
    rounds.rise()


def _deaths(rounds: Rounds, broker: Mosquitto) -> dict[int, Callable[[], None]]:
    """Return what dies in which event."""
    server, daemon = rounds.hall.server, rounds.daemon

    def start_again() -> None:
        daemon.start()
        until(lambda: daemon.asset()["command"] == "setpoint", "the order is in force", 20.0, daemon.state)

    def restart_rest() -> None:
        server.end("slurmrestd")
        server.start_rest()

    return {
        2: lambda: rounds.outage(daemon.kill, start_again),
        4: lambda: rounds.outage(lambda: server.end("slurmctld"), server.start_controller),
        6: restart_rest,
        7: lambda: rounds.outage(daemon.kill, start_again),
        8: lambda: broker.restart(kill=True),
    }


def _judge(rounds: Rounds) -> None:
    """Hold the diaries against the tiers."""
    hall = rounds.hall
    diaries = hall.diaries()
    for tier in TIERS:
        of = [diary for job, diary in diaries.items() if hall.tier_of[job] == tier]
        worst_s = max(diary.worst_s(WINDOW_S, rounds.dead_s) for diary in of)
        sys.stderr.write(
            f"tier {tier}: {len(of)} jobs, {sum(len(d.pauses) for d in of)} pauses, at most {worst_s:.1f} s of {WINDOW_S:g} s "
            f"({worst_s / WINDOW_S:.0%}), longest gap {max(d.longest_gap_s for d in of):.2f} s\n"
        )
        assert worst_s <= TOLERANCE_FRAC[tier] * WINDOW_S + NOISE_S, [diary.pauses for diary in of]
        assert max(diary.longest_gap_s for diary in of) < GAP_S
        if tier != 1:  # whose turn comes when the others have no more to give
            assert (tier > 0) == any(diary.pauses for diary in of)
    sys.stderr.write(f"falls {_span(rounds.falls_s)} s, rises {_span(rounds.rises_s)} s\n")
    assert hall.started()


def _span(values_s: list[float]) -> str:
    return f"{min(values_s):.1f} to {max(values_s):.1f}"

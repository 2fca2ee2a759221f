"""What is told at intervals keeps its interval, whatever the jitter of the cycles that tell it."""

from __future__ import annotations

import pytest

from tests.grid.plant import sender
from vppd.grid.reporter import Reporter


def told_s(cycles_s: list[float], every_s: float) -> list[float]:
    """Return the cycles at which flexibility is told. [s]"""
    reporter = Reporter(sender(), (), every_s, every_s, lambda tag: ())
    return [at_s for at_s in cycles_s if reporter.wants_flexibility(at_s)]


@pytest.mark.parametrize("jitter_s", [[0.009, 0.001, 0.004], [0.0, 0.0, 0.0], [0.001, 0.09, 0.0]])
def test_jitter_never_costs_a_cycle(jitter_s: list[float]) -> None:
    """News every 2 s goes out at every second beat of 1 s, though a beat may come earlier after its last one."""
    beats_s = [i + jitter_s[i % 3] for i in range(30)]
    assert told_s(beats_s, 2.0) == beats_s[::2]


def test_cycles_between_the_beats_do_not_multiply_it() -> None:
    """Cycles that orders and signals cause do not make it more frequent."""
    assert len(told_s([i * 0.05 for i in range(390)], 2.0)) == 10


def test_after_a_pause_it_starts_anew() -> None:
    """What was missed is not made up for."""
    assert told_s([0.0, 1.0, 9.5, 10.0, 11.0, 11.5, 12.0], 2.0) == [0.0, 9.5, 11.5]

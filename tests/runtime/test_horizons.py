"""How long orders go on, and when what can be given for a while only is needed."""

from __future__ import annotations

import pytest

from tests.runtime.plannable_cluster import Cluster, Truth, job
from vppd.core.state import Decision
from vppd.model import OrderKind
from vppd.runtime.clock import FakeClock
from vppd.runtime.curtailer import Curtailer, Terms
from vppd.runtime.horizons import SHORT_S, Horizons
from vppd.testing.cycles import START, World
from vppd.workload import Knob


class Rig:
    """A world and its horizons, in step."""

    def __init__(self) -> None:
        self.world, self.clock = World(), FakeClock(START)
        self.hall = self.world.plant.asset_ids.index("hall-a")
        self.horizons = Horizons(self.world.plant, self.newest, self.clock, 1.0)

    def newest(self) -> Decision | None:
        """Return the newest decision."""
        return self.world.history[-1] if self.world.history else None

    def step(self, cycles: int) -> list[bool]:
        """Let cycles pass; return at each whether the hall is needed for a while."""
        found = []
        for _ in range(cycles):
            self.world.step()
            self.clock.advance(1.0)
            found.append(self.horizons.is_short(self.hall))
        return found


def test_before_the_first_decision_whoever_is_held_stays_so() -> None:
    """For a cycle; then there is no order, or its end counts."""
    rig = Rig()
    assert rig.horizons.left_s(rig.hall) == 1.0
    rig.step(2)
    assert rig.horizons.left_s(rig.hall) == 0.0
    rig.world.order(OrderKind.LIMIT, "main-a", 300e3, for_s=600.0)
    rig.step(1)
    assert rig.horizons.left_s(rig.hall) == pytest.approx(600.0, abs=3.0)


def test_a_lasting_shortfall_counts_until_the_order_has_ended() -> None:
    """Not in the first seconds, while what was told is landing; and not for an order that is kept."""
    rig = Rig()
    rig.step(2)
    rig.world.order(OrderKind.LIMIT, "main-a", 20e3, for_s=60.0)
    found = rig.step(40)
    assert not any(found[: int(SHORT_S) - 1])
    assert found[-1]
    rig.step(40)
    assert not rig.world.orders
    assert rig.step(1) == [False]
    rig.world.order(OrderKind.LIMIT, "main-a", 430e3, for_s=60.0)
    assert not any(rig.step(30))


def test_a_short_order_gets_what_can_be_given_for_a_while() -> None:
    """One job that may pause for half an hour counts for nothing over an hour, unless there is nothing better."""
    cluster = Cluster(Truth(job("a", 3, knob=Knob.NONE)))
    short = [False]
    planner = Curtailer("hall", Terms(), cluster.now, lambda: 3_600.0, None, lambda: short[0])
    assert sum(planner.shed_w(cluster.look())) == 0.0
    short[0] = True
    assert planner.shed_w(cluster.look())[3] == pytest.approx(4_400.0, rel=0.05)

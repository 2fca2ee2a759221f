"""What a setpoint is said to be for: the order, the plan, or the limits of the plant."""

from __future__ import annotations

from typing import Any

import numpy as np

from vppd.consequences import Consequences
from vppd.model import OrderKind, Setpoint
from vppd.testing.cycles import World


class Aimed:
    """Takes the place of an actuator and remembers what it was told."""

    def __init__(self) -> None:
        self.told: Setpoint | None = None

    def aim(self, setpoint: Setpoint) -> None:
        """Take a setpoint."""
        self.told = setpoint

    def let_go(self) -> None:
        """Give back."""
        self.told = None

    def hold_off(self) -> None:
        """Do nothing."""


def causes(world: World, asset: str) -> str:
    """Return what the asset's setpoint of the next cycle is for."""
    actuator, i = Aimed(), world.index(asset)
    actuators: Any = {i: actuator}
    consequences = Consequences(
        world.plant,
        actuators,
        write=lambda *_: None,
        post=lambda *_, **__: None,
        record=None,
        reporter=None,
        sender=None,
    )
    decision = world.step(5)
    consequences._command(decision)
    return actuator.told.cause if actuator.told else ""


def test_a_setpoint_of_the_plan_says_so() -> None:
    """A wish is told as the plan's, an order as the order's, even while there is a wish."""
    world = World()
    world.soc_frac[world.index("bess-b")] = 0.5
    wish_w = np.full(len(world.plant.asset_ids), np.nan)
    wish_w[world.index("bess-b")] = -50e3
    world.preferred_w = wish_w
    assert causes(world, "bess-b") == "plan"
    order = world.order(OrderKind.REDUCE, "main-b", 100e3)
    assert causes(world, "bess-b") == order.order_id

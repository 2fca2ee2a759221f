"""Storage is not charged while a reduction is being delivered: its energy does not come back between slots that touch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from vppd.core.bidding.lots import Lot
from vppd.core.bidding.offering import Sale, Stock, offering
from vppd.core.bidding.pooling import _missing_until
from vppd.model import Interval

START = datetime(2026, 1, 1, tzinfo=UTC)
STEP_S = 900.0
HOUR = timedelta(hours=1)


def battery(recovery_steps: int, steps: int = 48) -> Stock:
    """Return 100 kWh behind 100 kW."""
    return Stock(
        "bess", "up", 1.0, 3e-5, np.full((1, steps), 100e3), np.full(steps, 100e3), recovery_steps=recovery_steps
    )


def hour(first: int, dispatch: str = "scheduled") -> Sale:
    """Return an hour on sale that begins at an hour of the day."""
    interval = Interval(START + first * HOUR, START + (first + 1) * HOUR)
    return Sale("peak", "dc1", "up", interval, "EUR", expected_price_per_wh=2e-4, step_w=1e3, dispatch=dispatch)


def sold_wh(*sales: Sale) -> float:
    """Return the energy offered in all of them, by a battery that needs an hour to come back."""
    found = offering(sales, (battery(4),), start=START, step_s=STEP_S)
    return sum(bid.power_w for bid in found.bids)


def test_hours_in_a_row_share_one_charge() -> None:
    """Four hours one after another are sold 100 kWh, not 100 kWh in every other one of them."""
    assert sold_wh(*(hour(k) for k in (3, 4, 5, 6))) == 100e3


def test_an_idle_hour_brings_the_energy_back() -> None:
    """Two hours with an idle one between them are both sold in full."""
    assert sold_wh(hour(3), hour(5)) == 200e3


def test_what_is_held_keeps_the_battery_from_charging_too() -> None:
    """An award for the hour between two slots is no time to charge either."""
    award = hour(4)

    class Award:
        """4:00 to 5:00, 10 kW, delivered by itself."""

        interval, sustain_s, dispatch, direction = award.interval, None, "scheduled", "up"
        power_w, activation_s = 10e3, None

    found = offering((hour(3), hour(5)), (battery(4),), (Award(),), start=START, step_s=STEP_S)
    assert sum(bid.power_w for bid in found.bids) == 90e3


@pytest.mark.parametrize(("recovery", "until"), [(0, [0, 1, 2, 3, 4]), (1, [1, 3, 3, 4, 5]), (2, [3, 4, 4, 5, 5])])
def test_only_idle_steps_count(recovery: int, until: list[int]) -> None:
    """The third of five steps is busy: the energy of a slot before it comes back a step later; 5 is beyond the end."""
    busy = Lot("x", "up", 2, 2, 0.0, 1.0, 1.0, is_delivered=True)
    stock = Stock("bess", "up", 1.0, 0.0, np.full((1, 5), 1e3), recovery_steps=recovery)
    assert _missing_until(stock, [busy], 5).tolist() == until

"""The process image: copies, missing values, readiness, cost."""

from __future__ import annotations

import asyncio
import timeit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vppd.model import Sample
from vppd.runtime.table import LatestValues

NUMBER = st.none() | st.floats(-1e9, 1e9)


@given(
    power_w=NUMBER, soc_frac=NUMBER, setpoint_w=NUMBER, tiers=st.lists(st.floats(0, 1e6), max_size=4), on=st.booleans()
)
def test_what_is_stored_is_what_is_framed(
    power_w: float | None, soc_frac: float | None, setpoint_w: float | None, tiers: list[float], on: bool
) -> None:
    """None becomes NaN, never 0; everything else comes out as it went in."""
    table = LatestValues(["a", "b"])
    table.store(1, Sample(power_w, soc_frac, setpoint_w=setpoint_w, tier_shed_w=tuple(tiers), on_battery=on), 5.0)
    r = table.frame()
    for column, value in ((r.power_w, power_w), (r.soc_frac, soc_frac), (r.setpoint_w, setpoint_w)):
        assert np.isnan(column[1]) if value is None else column[1] == value
        assert np.isnan(column[0])
    assert r.tier_shed_w[1].tolist() == tiers + [0.0] * (4 - len(tiers))
    assert (r.mono_s.tolist(), r.online.tolist(), r.on_battery.tolist()) == ([-np.inf, 5.0], [False, True], [False, on])


def test_an_older_value_does_not_shine_through() -> None:
    """A device that stops telling its state of charge has none."""
    table = LatestValues(["a"])
    table.store(0, Sample(power_w=1.0, soc_frac=0.5, fault="hot"), 1.0)
    table.store(0, Sample(power_w=2.0), 2.0)
    r = table.frame()
    assert np.isnan(r.soc_frac[0])
    assert not r.faulty[0]


def test_a_frame_is_a_copy() -> None:
    """What arrives after the copy does not change it."""
    table = LatestValues(["a"])
    table.store(0, Sample(power_w=1.0), 1.0)
    frame = table.frame()
    table.store(0, Sample(power_w=2.0), 2.0)
    table.set_rejected(0, True)
    assert frame.power_w[0] == 1.0
    assert not frame.rejected[0]
    assert table.frame().rejected[0]


def test_a_lost_device_keeps_its_values_and_their_age() -> None:
    """Offline is a flag; the core judges age itself."""
    table = LatestValues(["a"])
    table.store(0, Sample(power_w=1.0), 7.0)
    table.set_online(0, False)
    r = table.frame()
    assert (r.power_w[0], r.mono_s[0], bool(r.online[0])) == (1.0, 7.0, False)


async def test_ready_when_every_device_has_been_tried() -> None:
    """An answer and a failure both count as tried."""
    table = LatestValues(["a", "b"])
    waiting = asyncio.ensure_future(table.all_tried())
    table.store(0, Sample(), 1.0)
    await asyncio.sleep(0)
    assert not waiting.done()
    assert table.untried == ("b",)
    table.set_tried(1)
    await waiting


async def test_a_plant_without_devices_is_ready() -> None:
    """There is nobody to wait for."""
    await LatestValues([]).all_tried()


def test_listeners_hear_their_own_asset_with_the_time_of_the_question() -> None:
    """Who was asked before a write cannot disprove it."""
    table, heard = LatestValues(["a", "b"]), []
    table.listen(1, lambda sample, asked_s: heard.append((sample.power_w, asked_s)))
    table.store(0, Sample(power_w=1.0), 2.0)
    table.store(1, Sample(power_w=3.0), 4.0, 3.5)
    assert heard == [(3.0, 3.5)]
    assert table.latest(1) == Sample(power_w=3.0)
    assert table.index("b") == 1


def test_a_thousand_readings_a_second_cost_less_than_one_percent_of_a_core() -> None:
    """Ten microseconds each, in the best of several rounds."""
    table = LatestValues([f"a{i}" for i in range(1_000)])
    sample = Sample(power_w=1.0, soc_frac=0.5, setpoint_w=1.0, tier_shed_w=(0.0, 1.0, 2.0, 3.0))

    def second() -> None:
        for i in range(1_000):
            table.store(i, sample, 1.0)

    best_s = min(timeit.repeat(second, number=1, repeat=7))
    assert best_s < 0.010


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_not_hidden(value: float) -> None:
    """Plausibility is judged by the core, which sees what was said."""
    table = LatestValues(["a"])
    table.store(0, Sample(power_w=value), 1.0)
    np.testing.assert_equal(table.frame().power_w[0], value)

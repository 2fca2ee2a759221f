"""What is believed of readings that are late, absurd or missing."""

import numpy as np
import pytest

from vppd.core.aggregate import Image, _believe, aggregate, perceive
from vppd.model import Order
from vppd.snapshot import Snapshot
from vppd.testing.cycles import World


def image_of(world: World, orders: tuple[Order, ...] = ()) -> Image:
    """Return what is believed after one more measurement."""
    world._measure()
    snapshot = Snapshot(world.at, world.mono_s, world.readings.copy(), orders, (), world.health)
    senses = perceive(snapshot, world.state, world.plant)
    return aggregate(snapshot, world.state, world.plant, senses, np.zeros(len(senses.fresh), dtype=np.bool_))


def test_inflexible_load_is_what_the_meter_sees_beyond_the_assets() -> None:
    """The base of a feed is its meter less its controllable assets, and the site is the sum of its feeds."""
    image = image_of(World())
    assert image.base_w == pytest.approx([0.0, 150e3, 150e3])
    assert image.node_power_w == pytest.approx([900e3, 450e3, 450e3])
    assert image.unheld_w == pytest.approx(image.node_power_w)


def test_a_silent_asset_is_not_usable_and_its_power_stays_in_the_base() -> None:
    """An asset that has fallen silent is left in the inflexible load its meter still sees."""
    world = World()
    image_of(world)
    world.silent.add("hall-a")
    for _ in range(12):
        image = image_of(world)
    assert not image.usable[world.index("hall-a")]
    assert image.node_power_w[1] == pytest.approx(450e3)
    assert image.base_w[1] == pytest.approx(450e3)


@pytest.mark.parametrize("power_w", [4294965796.0, -1e9, np.inf, np.nan])
def test_absurd_power_is_missing(power_w: float) -> None:
    """A power far beyond the rating, or no number, is treated as not measured."""
    world = World()
    world.power_w[world.index("ups-a")] = power_w
    image = image_of(world)
    assert np.isnan(image.power_w[world.index("ups-a")])
    assert not image.usable[world.index("ups-a")]


def test_stale_charge_counts_as_its_pessimistic_bound() -> None:
    """A state of charge that stops coming is taken to drain as fast as the rating allows."""
    world = World()
    i = world.index("ups-a")
    world.step(3)
    world.soc_frac[i] = np.nan
    worst = []
    for _ in range(40):
        image = image_of(world)
        worst.append(float(image.soc_frac[i]))
    assert image.soc_stale[i]
    assert worst[0] == pytest.approx(0.9, abs=1e-3)
    assert worst[-1] == pytest.approx(0.9 - 200e3 / 100e3 * 40 / 3600, abs=2e-3)


def test_a_charge_that_jumps_is_not_believed() -> None:
    """SoC 20 % one second and 95 % the next is not believed until it has lasted."""
    world = World()
    i = world.index("ups-a")
    world.soc_frac[i] = 0.2
    world.step(3)
    world.soc_frac[i] = 0.95
    assert image_of(world).soc_frac[i] == pytest.approx(0.2, abs=1e-3)


def test_full_belief_in_skewed_readings_would_oscillate() -> None:
    """With storage read one cycle late, believing the whole difference diverges; the gain used converges."""

    def largest_swing(gain: float) -> float:
        base_w, used_w, setpoint_w = 100.0, 90.0, [0.0, 0.0]
        for _ in range(60):
            moved = setpoint_w[-1] - setpoint_w[-2]
            raw_w = base_w + moved
            used_w = _believe(used_w, raw_w, abs(moved)) if gain < 1 else raw_w
            setpoint_w.append(80.0 - used_w)
        return abs(setpoint_w[-1] - (80.0 - base_w))

    assert largest_swing(1.0) > 1e6
    assert largest_swing(0.3) < 1e-3

"""What a site can sell of a product, and what fails."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vppd.core.bidding.qualify import Ability, Direction, Shortcoming, Site, Terms, able_w, qualify

UPS = Ability("ups", 1.0, reduce_w=2e6, increase_w=1e6, reduce_wh=0.5e6, increase_wh=0.1e6, local_response=True)
HALL = Ability("hall", 60.0, reduce_w=8e6)
SITE = Site((UPS, HALL), load_w=20e6, telemetry_s=2.0)
MFRR = Terms(Direction.REDUCE, 750.0, 900.0, min_bid_w=1e6, bid_step_w=1e6)


def failing(terms: Terms, site: Site = SITE) -> list[Shortcoming]:
    """Return what fails; nothing is offered then."""
    verdict = qualify(terms, site)
    assert verdict.qualifies == (verdict.shortcomings == ())
    assert verdict.qualifies or verdict.offer_w == 0.0
    return list(verdict.shortcomings)


def test_a_slow_product_takes_everything_in_whole_steps() -> None:
    """Battery and cluster together give 10 MW for a quarter of an hour."""
    assert qualify(MFRR, SITE).offer_w == 10e6
    assert qualify(Terms(Direction.REDUCE, 750.0, 900.0, bid_step_w=3e6), SITE).offer_w == 9e6
    assert qualify(Terms(Direction.REDUCE, 750.0, 900.0, max_bid_w=4e6), SITE).offer_w == 4e6


def test_energy_bounds_what_a_battery_holds() -> None:
    """Half a MWh gives 0.5 MW for an hour, however large the converter is."""
    assert able_w(Terms(Direction.REDUCE, 1.0, 3600.0), (UPS,)) == pytest.approx(0.5e6)


def test_only_the_fast_count_for_a_fast_product() -> None:
    """A hall that needs a minute has no part in a product of a second; the amount missing is told."""
    (short,) = failing(Terms(Direction.REDUCE, 1.0, min_bid_w=3e6))
    assert (short.requirement, short.have, short.need) == ("activation", 2e6, 3e6)


def test_what_lasts_too_short_a_time_is_named() -> None:
    """Enough power, fast enough, that does not last is a matter of sustain."""
    (short,) = failing(Terms(Direction.REDUCE, 1.0, 3600.0, min_bid_w=1e6))
    assert short.requirement == "sustain"
    assert short.have == pytest.approx(0.5e6)


def test_a_local_response_must_be_there() -> None:
    """Frequency products count only what answers by itself."""
    (short,) = failing(
        Terms(Direction.REDUCE, 750.0, min_bid_w=3e6, local_response=True),
    )
    assert (short.requirement, short.have) == ("local response", 2e6)


def test_symmetric_is_the_weaker_side() -> None:
    """What cannot be taken up cannot be sold in a symmetric product."""
    assert able_w(Terms(Direction.SYMMETRIC, 1.0), SITE.abilities) == 1e6
    assert able_w(Terms(Direction.EITHER, 1.0), SITE.abilities) == 2e6
    assert able_w(Terms(Direction.INCREASE, 1.0), SITE.abilities) == 1e6


def test_size_share_and_telemetry_fail_each_by_their_own_figure() -> None:
    """Every requirement that fails is listed with what is there and what is needed."""
    found = failing(Terms(Direction.REDUCE, min_site_w=75e6, min_load_frac=0.9, telemetry_s=0.05))
    assert [(s.requirement, s.have, s.need) for s in found] == [
        ("site size", 20e6, 75e6),
        ("power", 10e6, 18e6),
        ("telemetry", 2.0, 0.05),
    ]


def test_nothing_to_give_sells_nothing() -> None:
    """A site without a controllable asset qualifies for no product, not even for one without a least bid."""
    assert failing(Terms(Direction.REDUCE), Site((), 1e6, 2.0))[0].requirement == "power"


@given(
    st.lists(st.tuples(st.floats(0, 1e7), st.floats(0, 1e7), st.floats(0.1, 900)), max_size=6),
    st.floats(1, 900),
    st.floats(1, 7200),
    st.floats(1e3, 5e6),
)
def test_an_offer_can_be_kept(
    assets: list[tuple[float, float, float]], activation_s: float, sustain_s: float, step_w: float
) -> None:
    """An offer never exceeds what the assets that are fast enough hold for the whole time."""
    abilities = tuple(
        Ability(str(i), response_s, reduce_w=w, reduce_wh=wh) for i, (w, wh, response_s) in enumerate(assets)
    )
    terms = Terms(Direction.REDUCE, activation_s, sustain_s, min_bid_w=step_w, bid_step_w=step_w)
    offer_w = qualify(terms, Site(abilities, 1e9, 1.0)).offer_w
    held_w = math.fsum(min(w, wh * 3600 / sustain_s) for w, wh, response_s in assets if response_s <= activation_s)
    assert offer_w <= held_w * (1 + 1e-6)
    assert offer_w == 0.0 or offer_w >= step_w * (1 - 1e-6)

"""Pay-as-cleared: nobody above his offer, nobody below his price, one price for all, and nothing better left undone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vppd.market.clearing import Need, Offer, Rung, Ties, clear

CAP = Decimal(50)


def offer(name: str, *rungs: tuple[int, int], **more: object) -> Offer:
    """Return an offer of (up to [W], price) rungs."""
    return Offer(name, tuple(Rung(w, Decimal(price)) for w, price in rungs), **more)  # type: ignore[arg-type]


@st.composite
def offers_of(draw: st.DrawFn, most_w: int, most: int = 5) -> list[Offer]:
    """Draw a book of a few offers of every kind."""
    book = []
    for i in range(draw(st.integers(1, most))):
        edges = sorted(draw(st.sets(st.integers(1, most_w), min_size=1, max_size=3)))
        prices = sorted(draw(st.lists(st.integers(-5, 60), min_size=len(edges), max_size=len(edges))))
        kind = draw(st.sampled_from(["plain", "plain", "whole", "least", "group"]))
        book.append(
            offer(
                f"o{i}",
                *zip(edges, prices, strict=True),
                min_w=draw(st.integers(0, edges[-1])) if kind in ("least", "group") else 0,
                divisible=kind != "whole",
                group=draw(st.sampled_from(["a", "b"])) if kind == "group" else "",
                arrived=i,
            )
        )
    return book


ANY_BOOK = offers_of(3000, 8)
NEEDS = st.builds(Need, st.integers(1, 6000), st.sampled_from([CAP, Decimal("12.5")]))


@settings(deadline=None)
@given(book=ANY_BOOK, need=NEEDS, ties=st.sampled_from(Ties), share_w=st.sampled_from([1, 10, 1000]))
def test_every_award_is_one_its_participant_offered(book: list[Offer], need: Need, ties: Ties, share_w: int) -> None:
    """No award above the offer, below its least, below its price or above the cap; one of a group; no more than needed."""
    found = clear(book, need, ties=ties, share_w=share_w)
    assert found.total_w <= need.power_w
    assert set(found.taken_w) | set(found.passed_over) == {o.name for o in book}
    assert not set(found.taken_w) & set(found.passed_over)
    for o in (o for o in book if o.name in found.taken_w):
        taken_w = found.taken_w[o.name]
        assert 0 < taken_w <= o.power_w
        assert taken_w >= o.least_w
        assert found.price is not None
        assert o.price_at(taken_w) <= found.price <= need.price_cap
    groups = [o.group for o in book if o.group and o.name in found.taken_w]
    assert len(groups) == len(set(groups))


@settings(deadline=None)
@given(book=ANY_BOOK, need=NEEDS, ties=st.sampled_from(Ties))
def test_the_need_is_met_or_all_that_is_cheap_enough_is_used_up(book: list[Offer], need: Need, ties: Ties) -> None:
    """What can be cut at will is taken whole below the price, and up to the cap while anything is missing."""
    found = clear(book, need, ties=ties)
    for o in (o for o in book if not o.is_block):
        taken_w = found.taken_w.get(o.name, 0)
        if taken_w < o.power_w:
            dearer = o.price_at(taken_w + 1)
            assert found.price is None or dearer >= found.price
            assert found.total_w == need.power_w or dearer > need.price_cap


@settings(deadline=None)
@given(book=ANY_BOOK, need=NEEDS)
def test_the_price_is_that_of_the_dearest_watt_taken(book: list[Offer], need: Need) -> None:
    """One price for all, and some offer asked for exactly that."""
    found = clear(book, need)
    asked = [o.price_at(found.taken_w[o.name]) for o in book if o.name in found.taken_w]
    assert found.price == max(asked, default=None)


@settings(deadline=None, max_examples=150)
@given(book=offers_of(4, 4), need_w=st.integers(1, 9))
def test_no_other_outcome_is_better(book: list[Offer], need_w: int) -> None:
    """Compared with trying every quantity of every offer: no outcome by the rules has a larger surplus, or more power at the same."""
    need = Need(need_w, CAP)
    found = clear(book, need)
    best = max(_outcomes(book, need))
    assert (found.surplus, found.total_w) == best
    assert found.exact


def _outcomes(book: Sequence[Offer], need: Need) -> list[tuple[Decimal, int]]:
    """Return surplus and power of every outcome that keeps the rules."""
    tried = itertools.product(*(range(o.power_w + 1) for o in book))
    return [_worth(book, taken, need) for taken in tried if _keeps_the_rules(book, taken, need)]


def _keeps_the_rules(book: Sequence[Offer], taken: Sequence[int], need: Need) -> bool:
    used = [(o, w) for o, w in zip(book, taken, strict=True) if w]
    price = max((o.price_at(w) for o, w in used), default=None)
    groups = [o.group for o, _ in used if o.group]
    if sum(taken) > need.power_w or len(groups) != len(set(groups)) or (price is not None and price > need.price_cap):
        return False
    if any(w < o.least_w for o, w in used):
        return False
    bound = [(o, w) for o, w in zip(book, taken, strict=True) if w or not o.is_block]
    left = [o.price_at(w + 1) for o, w in bound if w < o.power_w]
    return all(price is None or p >= price for p in left)


def _worth(book: Sequence[Offer], taken: Sequence[int], need: Need) -> tuple[Decimal, int]:
    watts = [need.price_cap - o.price_at(w + 1) for o, n in zip(book, taken, strict=True) for w in range(n)]
    return sum(watts, Decimal(0)), len(watts)


def test_a_tie_is_shared_in_proportion_or_goes_to_the_first() -> None:
    """Two offers of one price share 10 kW as they offered, in whole kW, or the first one gets what it can."""
    book = [offer("late", (8000, 20), arrived=2), offer("early", (4000, 20), arrived=1)]
    assert clear(book, Need(10_000, CAP), share_w=1000).taken_w == {"early": 4000, "late": 6000}
    assert clear(book, Need(9_000, CAP), share_w=1000).taken_w == {"early": 3000, "late": 6000}
    assert clear(book, Need(9_000, CAP), ties=Ties.TIME).taken_w == {"early": 4000, "late": 5000}


def test_a_block_that_does_not_fit_is_passed_over_and_says_so() -> None:
    """A cheap block larger than the need is left, and one of a group makes the other impossible."""
    book = [
        offer("block", (9000, 10), divisible=False),
        offer("plain", (5000, 30)),
        offer("day", (2000, 5), group="x"),
        offer("night", (3000, 6), group="x"),
    ]
    found = clear(book, Need(6000, CAP))
    assert found.taken_w == {"night": 3000, "plain": 3000}
    assert found.price == 30
    assert "more at least than is needed" in found.passed_over["block"]
    assert "group" in found.passed_over["day"]


def test_no_block_makes_a_cheaper_offer_lose_its_place() -> None:
    """A block that would set a price at which a divisible offer is left over is passed over: that one may not be."""
    book = [offer("block", (100, 40), divisible=False), offer("plain", (60, 10))]
    found = clear(book, Need(100, CAP))
    assert found.taken_w == {"plain": 60}
    assert found.price == 10
    assert found.passed_over == {"block": "dearer than what was needed"}


def test_many_blocks_still_have_an_answer_soon() -> None:
    """Beyond the limit of the search the best found so far is the answer, and it says that it may not be the best."""
    book = [offer(f"b{i}", (997 + 13 * i, 10 + i % 7), divisible=False, arrived=i) for i in range(60)]
    found = clear(book, Need(20_011, CAP))
    assert not found.exact
    assert 15_000 < found.total_w <= 20_011


@pytest.mark.parametrize(
    ("rungs", "more", "sentence"),
    [
        ((), {}, "more than 0 W"),
        (((0, 1),), {}, "more than 0 W"),
        (((5, 2), (5, 3)), {}, "rise in power"),
        (((5, 2), (6, 1)), {}, "do not fall"),
        (((5, 2),), {"min_w": 6}, "above the power"),
    ],
)
def test_an_offer_that_makes_no_sense_is_refused(
    rungs: Sequence[tuple[int, int]], more: Mapping[str, int], sentence: str
) -> None:
    """Rungs rise in power and do not fall in price, and the least is within them."""
    with pytest.raises(ValueError, match=sentence):
        offer("x", *rungs, **more)


def test_two_offers_of_one_name_are_refused() -> None:
    """Awards are by name."""
    with pytest.raises(ValueError, match="same name"):
        clear([offer("x", (1, 1)), offer("x", (2, 1))], Need(1, CAP))

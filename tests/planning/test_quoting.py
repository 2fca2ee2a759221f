"""What is told to the market: each change once, nothing behind a gate, nothing about what is sold."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planning.market_rig import product
from vppd.core.bidding.bid import Bid, Offered
from vppd.core.bidding.quote import Step
from vppd.planning.trade.gates import Slot, slots
from vppd.planning.trade.quoting import Change, changes, undecided
from vppd.testing.cycles import START

SLOTS = slots(product(), START, 4 * 3600.0, 0.0)[:4]
GATE = SLOTS[0].gate_closes_at
BEFORE = GATE - timedelta(minutes=5)


def bid(place: int = 0, power_w: float = 100e3, price_per_wh: float = 1e-4, **changes: Any) -> Bid:
    """Return a bid for one of the slots."""
    ids = f"3f0d7c52-6d0f-5a51-9a7e-8f5d0b1c2a3{place}"
    plain = Bid(ids, "quick", "dc1", "up", SLOTS[place].interval, (Step(power_w, price_per_wh),), "EUR")
    return replace(plain, **changes)


def told(*found: Change) -> dict[str, Offered]:
    """Return the market's book after these messages."""
    return {c.bid.bid_id: Offered(c.bid, c.state, c.gate_closes_at) for c in found}


def test_a_new_bid_is_offered_with_the_gate_of_its_slot() -> None:
    """Revision 1, until the gate."""
    (change,) = changes([bid()], SLOTS, {}, BEFORE)
    assert (change.verb, change.bid.revision, change.gate_closes_at) == ("offered", 1, GATE)


def test_the_same_bid_again_is_not_told_again() -> None:
    """Nor one that differs by less than the wire says."""
    book = told(*changes([bid()], SLOTS, {}, BEFORE))
    assert changes([bid()], SLOTS, book, BEFORE) == ()
    assert changes([bid(power_w=100e3 + 1e-5, price_per_wh=1e-4 + 1e-13)], SLOTS, book, BEFORE) == ()


def test_less_is_a_revision_and_nothing_a_withdrawal() -> None:
    """After an outage the market hears of it, before the gate."""
    book = told(*changes([bid()], SLOTS, {}, BEFORE))
    (less,) = changes([bid(power_w=50e3)], SLOTS, book, BEFORE)
    assert (less.verb, less.bid.revision, less.bid.power_w) == ("revised", 2, 50e3)
    (gone,) = changes([], SLOTS, told(less), BEFORE)
    assert (gone.verb, gone.bid.revision) == ("withdrawn", 2)
    assert changes([], SLOTS, told(gone), BEFORE) == ()
    (again,) = changes([bid()], SLOTS, told(gone), BEFORE)
    assert (again.verb, again.bid.revision) == ("revised", 3)


def test_behind_the_gate_nothing_is_changed() -> None:
    """At the gate itself it is too late for anything."""
    book = told(*changes([bid()], SLOTS, {}, BEFORE))
    assert changes([bid(power_w=50e3)], SLOTS, book, GATE) == ()
    assert changes([], SLOTS, book, GATE) == ()
    assert changes([bid()], SLOTS, {}, GATE) == ()
    moved = [replace(slot, gate_closes_at=GATE + timedelta(hours=1)) for slot in SLOTS]
    assert changes([bid(power_w=50e3)], moved, book, GATE) == (), "the gate that the market was told of counts"
    assert undecided(book, GATE) == frozenset()
    assert undecided(book, BEFORE) == {bid().bid_id}


def test_what_is_sold_is_not_changed() -> None:
    """An award before the gate fixes the bid."""
    (first,) = changes([bid()], SLOTS, {}, BEFORE)
    book = {first.bid.bid_id: Offered(first.bid, "offered", GATE, 10e3)}
    assert changes([bid(power_w=5e3)], SLOTS, book, BEFORE) == ()
    assert changes([bid(power_w=200e3)], SLOTS, book, BEFORE) == ()
    assert changes([], SLOTS, book, BEFORE) == ()


def test_bids_for_slots_that_are_not_in_play_stay_at_home() -> None:
    """What was reckoned with for later is not offered yet."""
    assert changes([bid(1)], SLOTS[:1], {}, BEFORE) == ()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.dictionaries(st.integers(0, 3), st.integers(1, 5))), max_size=12))
def test_the_book_follows_every_wish_before_the_gate_and_none_after(rounds: list[tuple[int, dict[int, int]]]) -> None:
    """Whatever is wanted when: open slots show just that, closed ones stay as they were, revisions only rise."""
    book: dict[str, Offered] = {}
    minute = 0
    for waited, wanted in rounds:
        minute += waited
        now = START + timedelta(minutes=minute)
        play = [slot for slot in SLOTS if slot.gate_closes_at > now]
        before = dict(book)
        found = changes([bid(i, 1e4 * size) for i, size in wanted.items()], play, book, now)
        for change in found:
            known = before.get(change.bid.bid_id)
            assert known is None or change.state == "withdrawn" or change.bid.revision > known.bid.revision
        book |= told(*found)
        for i, slot in enumerate(SLOTS):
            _follows(slot, book.get(bid(i).bid_id), before.get(bid(i).bid_id), wanted.get(i), now > slot.gate_closes_at)


def _follows(slot: Slot, known: Offered | None, before: Offered | None, size: int | None, closed: bool) -> None:
    if slot.gate_closes_at > START and closed:
        assert known == before
    elif not closed and known is not None:
        assert (known.state == "offered") == (size is not None) or known == before
        assert size is None or known.bid.power_w == 1e4 * size or known == before

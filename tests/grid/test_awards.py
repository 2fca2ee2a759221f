"""Which awards are taken: what was offered, in time, never more than is left."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.grid.dispatcher import NOW, TRACE, watts, when
from tests.grid.plant import SITE, Memory, judge, sender, with_awards
from tests.grid.schemas import check, validate
from tests.grid.test_admit import accepted, order, rejected
from tests.grid.test_admit_fuzz import JSON
from tests.grid.trade import BID_ID, SLOT, a_bid, award_message, award_of, offered
from tests.support import ROOT
from vppd.core.bidding.bid import Offered
from vppd.core.bidding.quote import Step
from vppd.grid.awards import match
from vppd.grid.envelope import read_envelope
from vppd.grid.offers import read_offer
from vppd.grid.reasons import Reason
from vppd.grid.receipts import receipts
from vppd.grid.verdict import Accepted, Conditions, Duplicate, Rejected, Verdict
from vppd.grid.vpp_v1 import read_award
from vppd.model import Obligation, OrderKind, Priority


def memory(entry: Offered | None = None, **winners: str) -> Memory:
    """Return a memory in which one bid is offered."""
    entry = entry or offered()
    return Memory(offers={entry.bid.bid_id: entry}, winners=winners)


def judged(data: dict[str, Any], known: Memory | None = None, **more: Any) -> Verdict:
    """Return the verdict of a plant that sells to tso."""
    return judge(award_message(data), known or memory(), plant=with_awards(), **more)


def obliged(verdict: Verdict) -> Obligation:
    """Return what an accepted award obliges to."""
    found = accepted(verdict).obligation
    assert found is not None
    return found


def test_an_award_obliges_to_what_was_offered() -> None:
    """The obligation is the bid's, for the power and price of the award."""
    bid = a_bid(activation_s=750.0, sustain_s=900.0)
    data = award_of(bid, 300e3, price={"amount": "120.5", "currency": "EUR"}) | {"power": watts(0.3, "megawatt")}
    found = obliged(judged(data, memory(offered(activation_s=750.0, sustain_s=900.0))))
    assert found == Obligation(
        data["award_id"], BID_ID, "tso", "mfrr-up", "dc1", "up", SLOT, 300e3, "120.5", "EUR", "order", 750.0, 900.0
    )


def test_an_award_kept_ready_is_no_order() -> None:
    """What is dispatched by order waits for one."""
    assert accepted(judged(award_of(a_bid(), 300e3))).orders == ()


def test_a_scheduled_award_is_an_order_of_its_own() -> None:
    """It reduces the resource over the whole interval, under the award's id, with the award's trace."""
    data = award_of(a_bid(), 300e3)
    (found,) = accepted(judged(data, memory(offered(dispatch="scheduled")))).orders
    assert (found.order_id, found.kind, found.priority) == (data["award_id"], OrderKind.REDUCE, Priority.AWARD)
    assert (found.resource, found.interval, found.power_w, found.product) == ("dc1", SLOT, 300e3, "mfrr-up")
    assert (found.issuer, found.seq, found.traceparent) == ("tso", 1, TRACE)


def test_without_a_price_the_offered_one_holds() -> None:
    """Pay as bid: the price of the last step that is taken."""
    assert obliged(judged(award_of(a_bid(), 150e3, price=None))).price == "62.10"
    assert obliged(judged(award_of(a_bid(), 150_001.0, price=None))).price == "118.45"


@pytest.mark.parametrize(
    ("entry", "power_w", "amount", "takes"),
    [
        (offered(), 150e3, "62.10", True),
        (offered(), 150e3, "62.09", False),
        (offered(), 150_001.0, "118.44", False),
        (offered(awarded_w=150e3), 100e3, "62.10", False),
        (offered(awarded_w=150e3), 100e3, "118.45", True),
        (offered(awarded_w=100e3), 50e3, "62.10", True),
        (offered(steps=(Step(400e3, -3e-6),)), 400e3, "-3", True),
        (offered(steps=(Step(400e3, -3e-6),)), 400e3, "-3.01", False),
    ],
)
def test_the_price_covers_the_last_step_that_is_taken(entry: Offered, power_w: float, amount: str, takes: bool) -> None:
    """Cleared pay-as-cleared, and counted after what has been awarded before."""
    verdict = judged(award_of(a_bid(), power_w, price={"amount": amount, "currency": "EUR"}), memory(entry))
    assert isinstance(verdict, Accepted) == takes
    if not takes:
        assert f"{amount} is below" in rejected(verdict, Reason.MISMATCH).sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"product": "ffr"}, "the product awarded is 'ffr'"),
        ({"resource": "main-a"}, "the resource awarded"),
        ({"direction": "down"}, "the direction awarded"),
        ({"interval": {"start_time": when(600), "end_time": when(1200)}}, "the interval awarded"),
        ({"interval": {"end_time": when(1500)}}, "the interval awarded"),
        ({"interval": {"start_time": when(600)}}, "the interval awarded"),
        ({"price": {"amount": "500", "currency": "CNY"}}, "the currency awarded"),
        ({"power": watts(400_001.0)}, "more than the 400000 W left"),
        ({"power": watts(99e3)}, "less than the 100000 W"),
        ({"power": watts(0)}, "nothing"),
    ],
)
def test_what_was_not_offered_cannot_be_awarded(changes: dict[str, Any], words: str) -> None:
    """Each difference from the bid is a mismatch, and the sentence names it."""
    data = award_of(a_bid(), 300e3) | changes
    assert words in rejected(judged(data), Reason.MISMATCH).sentence


def test_an_unknown_bid_is_named() -> None:
    """An award of a bid that was never offered here changes nothing."""
    assert BID_ID in rejected(judged(award_of(a_bid(), 300e3), Memory()), Reason.UNKNOWN_BID).sentence


def test_an_award_of_what_is_withdrawn_or_begun_is_late() -> None:
    """Past the gate is when markets award; once delivery has begun, or the bid is gone, it is too late."""
    gone = replace(offered(), state="withdrawn")
    rejected(judged(award_of(a_bid(), 300e3), memory(gone)), Reason.LATE)
    after_gate = award_of(a_bid(), 300e3, expires_at=when(900))
    accepted(judged(after_gate, later_s=599.0))
    rejected(judged(after_gate, later_s=600.0), Reason.LATE)
    rejected(judged(award_of(a_bid(), 300e3, expires_at=when(9000)), later_s=1500.0), Reason.EXPIRED)


def test_an_award_of_an_older_revision_is_late_when_it_says_so() -> None:
    """A market that names the revision it cleared never meets another one."""
    newest = memory(offered(revision=2))
    rejected(judged(award_of(a_bid(), 300e3, revision=1), newest), Reason.LATE)
    accepted(judged(award_of(a_bid(), 300e3, revision=2), newest))
    accepted(judged(award_of(a_bid(), 300e3), memory(offered(revision=2))))


def test_an_indivisible_bid_is_taken_whole() -> None:
    """A part of it is a mismatch."""
    known = memory(offered(divisible=False))
    assert "not divisible" in rejected(judged(award_of(a_bid(), 399e3), known), Reason.MISMATCH).sentence
    accepted(judged(award_of(a_bid(), 400e3), memory(offered(divisible=False))))


@pytest.mark.parametrize(
    ("awarded_w", "power_w", "takes"),
    [
        (300e3, 100e3, True),
        (300e3, 50e3, True),
        (300e3, 100e3 + 0.01, False),
        (400e3, 1.0, False),
        (0.0, 400e3 + 5e-4, True),
    ],
)
def test_parts_never_exceed_the_bid(awarded_w: float, power_w: float, takes: bool) -> None:
    """What is left is what was offered less all awards; less than a milliwatt is how megawatts are written."""
    verdict = judged(award_of(a_bid(), power_w), memory(offered(awarded_w)))
    assert isinstance(verdict, Accepted) == takes
    if takes:
        assert awarded_w + obliged(verdict).power_w <= 400e3


def test_one_bid_of_an_exclusive_group_is_awarded() -> None:
    """Whoever has taken a part of one may take more of it, but none of another."""
    entry = offered(exclusive_group="evening")
    taken = judged(award_of(a_bid(), 300e3), memory(entry, evening="another"))
    assert "bid another of the same exclusive group" in rejected(taken, Reason.MISMATCH).sentence
    accepted(judged(award_of(a_bid(), 300e3), memory(entry, evening=BID_ID)))
    accepted(judged(award_of(a_bid(), 300e3), memory(offered(), evening="another")))


def test_only_the_market_that_is_sold_to_awards() -> None:
    """Another issuer, however well known, is unauthorised; a site that sells nothing takes nobody's awards."""
    data = award_of(a_bid(), 300e3)
    verdict = judge(award_message(data, "agg"), memory(), plant=with_awards())
    assert "not the market" in rejected(verdict, Reason.UNAUTHORISED).sentence
    rejected(judge(award_message(data), memory()), Reason.NOT_ENABLED)


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        (Conditions(hold="the operator has released the plant"), Reason.HOLD),
        (Conditions(clock_ok=False), Reason.CLOCK_UNSYNCHRONISED),
    ],
)
@pytest.mark.parametrize("dispatch", ["order", "scheduled"])
def test_no_award_is_taken_on_hold(conditions: Conditions, reason: Reason, dispatch: str) -> None:
    """A plant that takes no orders makes no promises either."""
    rejected(judged(award_of(a_bid(), 300e3), memory(offered(dispatch=dispatch)), conditions=conditions), reason)


def test_awards_share_ids_and_sequence_with_orders() -> None:
    """An award id is used once for ever, and its seq follows that of orders."""
    known, data = memory(), award_of(a_bid(), 100e3, seq=5)
    accepted(judged(data, known))
    rejected(judged(data | {"seq": 6}, known), Reason.REPLAY)
    rejected(judged(award_of(a_bid(), 100e3, seq=5), known), Reason.SEQUENCE)
    rejected(judge(order(), known), Reason.SEQUENCE)


def test_an_award_is_receipted_as_received_and_accepted() -> None:
    """The receipts name the award, and the order it became if it is a scheduled one."""
    for dispatch, listed in (("order", None), ("scheduled", 1)):
        data = award_of(a_bid(), 300e3)
        verdict = judged(data, memory(offered(dispatch=dispatch)))
        first, second = (check(message) for message in receipts(verdict, NOW, sender()))
        assert (first["status"], second["status"], second["order_id"]) == ("received", "accepted", data["award_id"])
        assert second.get("order_ids") == ([data["award_id"]] if listed else None)


def test_the_same_award_again_gets_the_same_receipts() -> None:
    """A duplicate is answered from memory, also when nothing is left of the bid."""
    known, message = memory(), award_message(award_of(a_bid(), 400e3))
    first = judge(message, known, plant=with_awards())
    known.offers[BID_ID] = offered(400e3)
    again = judge(message, known, plant=with_awards())
    assert isinstance(again, Duplicate)
    assert again.receipts == known.commands[first.about.issuer, first.about.command_id].receipts


@pytest.mark.parametrize("bid_id", ["", "7", "3f0d7c526d0f5a519a7e8f5d0b1c2a34", "{" + BID_ID + "}", None, 7])
def test_a_bid_id_is_a_uuid(bid_id: Any) -> None:
    """Anything else is malformed, and nothing is looked up."""
    assert isinstance(rejected(judged(award_of(a_bid(), 300e3) | {"bid_id": bid_id}), Reason.MALFORMED), Rejected)


@pytest.mark.parametrize("amount", ["1E+999999", "NaN", "Infinity", "1_000", ".5", "5.", "--5", "+5", "٥", "", 5, None])
def test_a_price_is_a_plain_decimal_number(amount: Any) -> None:
    """What the schema does not allow is malformed, and no price fills the ledger with zeros."""
    rejected(judged(award_of(a_bid(), 300e3, price={"amount": amount, "currency": "EUR"})), Reason.MALFORMED)


@given(name=st.sampled_from(sorted(award_of(a_bid(), 300e3))), value=JSON)
def test_an_award_with_any_value_in_any_place_raises_nothing(name: str, value: Any) -> None:
    """A market that is broken, but signs properly, gets a verdict, and never more than was offered."""
    verdict = judged({**award_of(a_bid(), 300e3), name: value})
    if isinstance(verdict, Accepted):
        assert 0.0 < obliged(verdict).power_w <= 400e3
    else:
        assert isinstance(verdict, Rejected)


def test_the_guides_example_is_an_offer_and_an_award_of_it() -> None:
    """What dispatchers read fits the schemas, and the award is one that the plant takes."""
    guide = (ROOT / "docs" / "dispatcher.md").read_text(encoding="utf-8").partition("## Offers and awards")[2]
    offer, award = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", guide, re.DOTALL))
    file = ROOT / "docs" / "asyncapi-vpp-v1.yaml"
    validate(file, "BidOfferData", offer)
    validate(file, "BidAwardData", award)
    known = read_offer(offer)
    at = known.bid.interval.start - timedelta(minutes=40)
    envelope = json.loads(award_message(award).payload)
    read = read_award(award, read_envelope(envelope), SITE, at)
    assert match(read, known, None, at).power_w == 300e3

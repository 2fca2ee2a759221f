"""Offers as the market reads them, and as the ledger remembers them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.grid.dispatcher import NOW
from tests.grid.plant import sender
from tests.grid.schemas import check, unsigned
from tests.grid.test_admit_fuzz import JSON
from tests.grid.trade import BID_ID, GATE, SLOT, a_bid, an_obligation, offered
from vppd.core.bidding.bid import Bid, price_per_mwh, unfit_revision
from vppd.core.bidding.quote import Step
from vppd.grid.award_statement import AwardStatement, award_statement, award_statement_event
from vppd.grid.offers import offer_event, offer_message, read_offer
from vppd.grid.reasons import Defect
from vppd.model import Obligation

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
SECONDS = st.none() | st.integers(1, 86_400).map(float)


@st.composite
def bids(draw: st.DrawFn) -> Bid:
    """Any bid in whole watts and cents."""
    powers = sorted(draw(st.sets(st.integers(1, 10**9), min_size=1, max_size=8)))
    cents = sorted(draw(st.lists(st.integers(-(10**7), 10**7), min_size=len(powers), max_size=len(powers))))
    way, dispatch = draw(st.sampled_from([("up", "order"), ("up", "scheduled"), ("down", "order")]))
    return Bid(
        bid_id=str(draw(st.uuids())),
        product=draw(NAMES),
        resource=draw(NAMES),
        direction=way,
        interval=SLOT,
        steps=tuple(Step(float(w), c / 1e8) for w, c in zip(powers, cents, strict=True)),
        currency=draw(st.sampled_from(["EUR", "CNY"])),
        min_w=float(draw(st.integers(0, powers[-1]))),
        divisible=draw(st.booleans()),
        revision=draw(st.integers(1, 99)),
        activation_s=draw(SECONDS),
        max_duration_s=draw(SECONDS),
        resting_s=draw(SECONDS),
        exclusive_group=draw(st.just("") | NAMES),
        dispatch=dispatch,
        sustain_s=draw(SECONDS),
    )


@given(bid=bids(), state=st.sampled_from(["offered", "withdrawn"]))
def test_the_market_reads_the_bid_that_was_meant(bid: Bid, state: Any) -> None:
    """Every bid fits the schema and comes back from the wire with the same steps, terms and gate."""
    data = check(offer_message(bid, state, GATE, NOW, sender()))
    found = read_offer(data)
    assert (found.state, found.gate_closes_at, found.awarded_w) == (state, GATE, 0.0)
    assert [price_per_mwh(s) for s in found.bid.steps] == [price_per_mwh(s) for s in bid.steps]
    assert replace(found.bid, steps=bid.steps) == bid
    assert [s.upto_w for s in found.bid.steps] == [s.upto_w for s in bid.steps]


@given(bid=bids())
def test_a_bid_comes_back_from_the_ledger(bid: Bid) -> None:
    """Its body is plain JSON and holds all of it, floats to the last bit."""
    assert Bid.from_body(json.loads(json.dumps(bid.to_body()))) == bid


@pytest.mark.parametrize(
    ("price_per_wh", "text"),
    [(62.10e-6, "62.10"), (62.100001e-6, "62.11"), (0.1 * 3 * 1e-6, "0.30"), (-5.001e-6, "-5.00"), (0.0, "0.00")],
)
def test_prices_are_rounded_up_to_whole_cents(price_per_wh: float, text: str) -> None:
    """No Wh is offered below its cost, and the noise of floats costs nobody a cent."""
    assert f"{price_per_mwh(Step(1e3, price_per_wh)):f}" == text


def test_the_wire_never_says_more_than_is_there() -> None:
    """Powers are cut to whole milliwatts."""
    data = unsigned(
        json.loads(offer_message(a_bid(steps=(Step(400e3 + 0.0009, 0.0),)), "offered", GATE, NOW, sender()).payload)[
            "data"
        ]
    )
    assert data["steps"][0]["power"] == {"value": 400e3, "unit": "watt"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bid_id": "evening"}, "badly formed"),
        ({"bid_id": BID_ID.upper()}, "lower case"),
        ({"direction": "symmetric", "dispatch": "scheduled"}, "in both directions over a whole slot"),
    ],
)
def test_what_could_not_be_kept_is_not_offered(changes: dict[str, Any], words: str) -> None:
    """An id the market cannot name, or an increase that nobody would carry out, does not go out."""
    with pytest.raises(ValueError, match=words):
        offer_message(a_bid(**changes), "offered", GATE, NOW, sender())


@pytest.mark.parametrize(
    ("revision", "state", "kind"),
    [
        (1, "offered", "offered"),
        (2, "offered", "revised"),
        (1, "withdrawn", "withdrawn"),
        (3, "withdrawn", "withdrawn"),
    ],
)
def test_an_offer_is_an_event_that_happens_once(revision: int, state: Any, kind: str) -> None:
    """The event names bid, revision and state in its key, and owes the message to the market."""
    bid = a_bid(revision=revision)
    message = offer_message(bid, state, GATE, NOW, sender())
    event = offer_event(bid, state, GATE, NOW, message)
    assert (event.stream, event.kind, event.key) == ("bids", kind, f"bid/{BID_ID}/{revision}/{state}")
    assert [owed["payload"].encode() for owed in event.body["receipts"]] == [message.payload]
    assert offer_event(bid, state, GATE, NOW, None).body["receipts"] == []
    json.dumps(event.body)


@pytest.mark.parametrize(
    "changes",
    [
        {"bid_id": "7"}, {"steps": []}, {"direction": "sideways"}, {"surprise": 1}, {"revision": 0}, {"state": "sold"},
        {"interval": {"start_time": "2026-03-01T12:10:00Z"}}, {"currency": None}, {"divisible": "yes"},
        {"steps": [{"power": {"value": 1, "unit": "watt"}, "price": "1e3"}]},
        {"steps": [{"power": {"value": 1, "unit": "watt"}, "price": ".5"}]},
        {"steps": [{"power": {"value": 2, "unit": "watt"}, "price": "2"}, {"power": {"value": 1, "unit": "watt"}, "price": "3"}]},
    ],
)  # fmt: skip
def test_a_market_refuses_what_is_no_offer(changes: dict[str, Any]) -> None:
    """Whatever the signed data holds, a reader gets a bid or a defect."""
    data = check(offer_message(a_bid(), "offered", GATE, NOW, sender()))
    with pytest.raises(Defect):
        read_offer({**data, **changes})


@pytest.mark.parametrize(
    ("changes", "state", "awarded_w", "words"),
    [
        ({"revision": 2, "steps": (Step(300e3, 1e-6),)}, "offered", 0.0, ""),
        ({"revision": 2, "steps": (Step(300e3, 1e-6),)}, "offered", 300e3, ""),
        ({"revision": 2, "steps": (Step(300e3, 1e-6),)}, "offered", 301e3, "have been awarded"),
        ({"revision": 1}, "offered", 0.0, "does not follow"),
        ({"revision": 2, "product": "ffr"}, "offered", 0.0, "keeps product"),
        ({"revision": 2, "interval": replace(SLOT, end=SLOT.start + timedelta(hours=1))}, "offered", 0.0, "keeps product"),
        ({"revision": 1}, "withdrawn", 100e3, ""),
    ],
)  # fmt: skip
def test_a_revision_stays_above_what_has_been_awarded(
    changes: dict[str, Any], state: Any, awarded_w: float, words: str
) -> None:
    """What may follow on the market is said before it goes out."""
    why = unfit_revision(offered(awarded_w), a_bid(**changes), state)
    assert words in why
    assert bool(words) == bool(why)


def test_a_first_offer_needs_nothing_and_a_withdrawal_needs_an_offer() -> None:
    """Withdrawing what was never offered, or twice, makes no sense."""
    assert unfit_revision(None, a_bid(), "offered") == ""
    assert unfit_revision(None, a_bid(), "withdrawn")
    assert unfit_revision(replace(offered(), state="withdrawn"), a_bid(), "withdrawn")


def test_an_obligation_comes_back_from_the_ledger() -> None:
    """Its body is plain JSON and holds all of it."""
    found = an_obligation(dispatch="scheduled", activation_s=750.0, sustain_s=900.0)
    assert Obligation.from_body(json.loads(json.dumps(found.to_body()))) == found
    assert [found.is_over(SLOT.start), found.is_over(SLOT.end or NOW)] == [False, True]


def test_an_award_has_one_statement() -> None:
    """Its id and its ledger key follow from the award, and the event owes the message."""
    found = AwardStatement(an_obligation(), 0.75, 0.5, lowest_w=0.0)
    message = award_statement(found, NOW, sender())
    event = award_statement_event(found, NOW, message)
    data = check(message)
    assert data["statement_id"] == found.statement_id == AwardStatement(an_obligation(), 1.0).statement_id
    assert (event.stream, event.kind, event.key) == (
        "statements",
        "award",
        f"statement/award/{found.obligation.award_id}",
    )
    assert event.body["receipts"][0]["payload"].encode() == message.payload
    assert (data["held_frac"], data["sold_power"]["value"], data["lowest_power"]["value"]) == (0.75, 300e3, 0.0)
    assert "delivered_wh" not in data


@given(
    name=st.sampled_from(["steps", "interval", "bid_id", "min_power", "revision", "activation_s", "state"]), value=JSON
)
def test_an_offer_with_any_value_in_any_place_is_a_bid_or_a_defect(name: str, value: Any) -> None:
    """A market that listens to many sellers is not brought down by one."""
    data = {**unsigned(json.loads(offer_message(a_bid(), "offered", GATE, NOW, sender()).payload)["data"]), name: value}
    with suppress(Defect):
        read_offer(data)

"""Offers and obligations as people and programs see them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import timedelta

from rich.console import Console

from tests.grid.dispatcher import NOW
from tests.grid.trade import AWARD_ID, BID_ID, SLOT, a_bid, an_obligation, offered
from vppd.api.bids import bids_view
from vppd.api.console_bids import bids_table
from vppd.model import Interval


def printed(found: object, width: int = 200) -> str:
    """Return what the table shows."""
    out = io.StringIO()
    bids_table(found, Console(file=out, width=width))  # type: ignore[arg-type]
    return out.getvalue()


def test_the_view_is_plain_json_in_watts_and_exact_prices() -> None:
    """Offers that are not over by their time, then what is owed."""
    later = a_bid(bid_id="9", interval=Interval(NOW + timedelta(hours=1), NOW + timedelta(hours=2)))
    entries = [offered(300e3), offered(bid_id="9", interval=later.interval)]
    found = json.loads(json.dumps(bids_view(entries, [an_obligation()], NOW)))
    first, second = found["offers"]
    assert (first["bid_id"], second["bid_id"]) == (BID_ID, "9")
    assert (first["power_w"], first["awarded_w"], first["state"], first["revision"]) == (400e3, 300e3, "offered", 1)
    assert first["steps"] == [{"upto_w": 150e3, "price": "62.10"}, {"upto_w": 400e3, "price": "118.45"}]
    (owed,) = found["obligations"]
    assert (owed["award_id"], owed["power_w"], owed["price"], owed["currency"]) == (AWARD_ID, 300e3, "118.45", "EUR")


def test_offers_that_are_over_are_not_shown() -> None:
    """The register remembers them for a while longer."""
    assert SLOT.end is not None
    assert bids_view([offered()], [], SLOT.end - timedelta(seconds=1))["offers"]
    assert bids_view([offered()], [], SLOT.end) == {"offers": [], "obligations": []}


def test_the_tables_name_bid_prices_gate_and_award() -> None:
    """One line each, in MW and the currency of the market."""
    text = printed(bids_view([offered(300e3, revision=2)], [an_obligation(dispatch="scheduled")], NOW))
    for part in (
        "3f0d7c52 rev 2", "mfrr-up up", "0.3 of 0.4 MW", "62.10 to 118.45 EUR", "03-01 12:10 - 12:25", "03-01 12:05",
        "0d4f5d1c by tso", "118.45 EUR", "scheduled",
    ):  # fmt: skip
        assert part in text
    assert "withdrawn" in printed(bids_view([replace(offered(), state="withdrawn")], [], NOW))


def test_a_span_over_midnight_names_both_days_and_seconds_are_shown_where_there_are_any() -> None:
    """Local markets have slots of a minute."""
    start = NOW.replace(hour=23, minute=59, second=30)
    entry = offered(interval=Interval(start, start + timedelta(minutes=1)))
    assert "03-01 23:59:30 - 03-02 00:00:30" in printed(bids_view([entry], [], NOW))


def test_nothing_is_said_to_be_nothing() -> None:
    """An empty market is one sentence."""
    assert printed({"offers": [], "obligations": []}) == "Nothing is offered, and nothing is owed.\n"

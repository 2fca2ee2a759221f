"""The market's logic on a clock that is moved by hand, against a power plant that answers as the daemon does."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tests.market.plant import NOW, Keys, Plant, bid_of, keys_in, refuse
from tests.market.rig import GATE, PRODUCT_END, Rig
from vppd.grid.reasons import Reason
from vppd.market import memory
from vppd.market.accounts import Pays, Tariff
from vppd.market.market import KNOWN_THERE, TRIES, Pace
from vppd.market.report import results, write
from vppd.market.rivals import Crowd


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """Keys of both sides."""
    return keys_in(tmp_path)


def test_a_part_of_an_offer_is_awarded_at_its_gate_and_paid_by_what_was_delivered(keys: Keys) -> None:
    """60 % of 100 kW at the price of the step it reaches; 14.5 of 15 kWh delivered, the rest costs a penalty."""
    rig = Rig(keys)
    rig.say(rig.plant.offer(bid_of(1, (40e3, 50.0), (100e3, 80.0)), GATE))
    rig.at(GATE - timedelta(seconds=1))
    assert not rig.plant.got
    rig.at(GATE + timedelta(seconds=1))
    ((kind, award),) = rig.plant.got
    assert kind == "vpp.bid.award.v1"
    assert award["power"] == {"value": 60_000, "unit": "watt"}
    assert award["price"] == {"amount": "80.00", "currency": "EUR"}
    assert (rig.deal.state, rig.deal.order_id) == ("accepted", "")
    rig.say(rig.plant.statement(rig.deal.award_id, 14_500.0, PRODUCT_END))
    (said,) = results(rig.market)["awards"]
    assert said["account"] == {
        "obliged_wh": "15000.000", "delivered_wh": "14500.000", "pay": "1.16", "penalty": "0.04", "owed": "1.12"
    }  # fmt: skip


def test_only_the_newest_revision_counts_and_a_withdrawn_bid_not_at_all(keys: Keys) -> None:
    """Offered, revised and withdrawn before the gate; an older revision and one after the gate change nothing."""
    rig = Rig(keys, need="1 MW")
    revised = replace(bid_of(1, (70e3, 60.0)), revision=2)
    rig.say(rig.plant.offer(bid_of(1), GATE), rig.plant.offer(revised, GATE), rig.plant.offer(bid_of(1), GATE))
    rig.say(rig.plant.offer(bid_of(2), GATE), rig.plant.offer(bid_of(2), GATE, state="withdrawn"))
    rig.at(GATE + timedelta(seconds=1))
    rig.say(rig.plant.offer(replace(revised, revision=3), GATE))
    rig.at(GATE + timedelta(seconds=2))
    assert [data["power"]["value"] for _, data in rig.plant.got] == [70_000]
    assert [entry["reason"] for entry in rig.market.ignored] == [
        "revision 1 does not follow 2", "its gate has closed"
    ]  # fmt: skip


def test_an_award_goes_out_again_until_its_receipt_the_very_same_bytes(keys: Keys) -> None:
    """Every 3 s, at most ten times; then it is unanswered and the next award has its turn."""
    rig = Rig(keys, need="1 MW")
    rig.plant.verdict = lambda about, data: None
    rig.say(rig.plant.offer(bid_of(1), GATE), rig.plant.offer(bid_of(2), GATE))
    rig.at(GATE + timedelta(seconds=1), carry=False)
    rig.at(GATE + timedelta(seconds=2), carry=False)
    assert len(rig.out) == 1
    for i in range(1, TRIES):
        rig.at(GATE + timedelta(seconds=1 + 3 * i), carry=False)
    assert len({payload for _, payload in rig.out}) == 1
    assert len(rig.out) == TRIES
    rig.at(GATE + timedelta(seconds=40), carry=False)
    states = {deal.bid_id[:8]: deal.state for deal in rig.market.memory.deals.values()}
    assert states == {"00000001": "unanswered", "00000002": "new"}


def test_a_refusal_is_kept_with_its_reason(keys: Keys) -> None:
    """A rejected award earns nothing, and the results say why."""
    rig = Rig(keys)
    rig.plant.verdict = refuse(Reason.HOLD, "the operator has released the plant")
    rig.say(rig.plant.offer(bid_of(), GATE))
    rig.at(GATE + timedelta(seconds=1))
    assert (rig.deal.state, rig.deal.reason) == ("rejected", "hold: the operator has released the plant")
    (said,) = results(rig.market)["awards"]
    assert said["account"] is None
    assert results(rig.market)["totals"]["rejected"] == 1


def test_what_is_kept_ready_is_ordered_within_its_slot(keys: Keys) -> None:
    """An order to reduce by the award, for as long as can be asked for; paid by the energy of that activation."""
    rig = Rig(keys)
    rig.say(rig.plant.offer(bid_of(dispatch="order", sustain_s=600.0), GATE))
    rig.at(GATE + timedelta(seconds=1))
    start = NOW + timedelta(hours=1)
    rig.at(start - timedelta(seconds=1))
    assert len(rig.plant.got) == 1
    rig.at(start)
    rig.at(start + timedelta(minutes=1))
    (_, (kind, order)) = rig.plant.got
    assert (kind, order["kind"], order["power"]["value"]) == ("vpp.order.set.v1", "reduce", 60_000)
    assert order["interval"] == {"start_time": "2026-01-01T13:00:00.000Z", "end_time": "2026-01-01T13:10:00.000Z"}
    assert order["seq"] > rig.plant.got[0][1]["seq"]
    rig.say(rig.plant.statement(order["order_id"], 11_000.0, PRODUCT_END))
    (said,) = results(rig.market)["awards"]
    assert (said["account"]["obliged_wh"], said["account"]["owed"]) == ("10000.000", "0.80")


def test_capacity_is_paid_by_how_long_it_was_there(keys: Keys) -> None:
    """60 kW for a quarter hour at 80 per MW and hour, there for 90 % of the time; no order was needed."""
    rig = Rig(keys, tariff=Tariff(Pays.CAPACITY, Decimal(2)), pace=Pace(activate_frac=0.0))
    bid = bid_of(dispatch="order")
    rig.say(rig.plant.offer(bid, GATE))
    rig.at(GATE + timedelta(seconds=1))
    rig.at(PRODUCT_END)
    assert len(rig.plant.got) == 1
    rig.say(rig.plant.award_statement(rig.deal.award_id, bid, 0.9, PRODUCT_END))
    (said,) = results(rig.market)["awards"]
    assert (said["account"]["pay"], said["account"]["penalty"]) == ("1.08", "0.24")


def test_a_restart_changes_nothing(keys: Keys, tmp_path: Path) -> None:
    """Saved and loaded at any point the market goes on: the same bytes go out, the same slot is not cleared twice."""
    rig, path = Rig(keys, crowd=Crowd(3)), tmp_path / "state.json"
    rig.say(rig.plant.offer(bid_of(), GATE))

    def restart() -> None:
        memory.save(rig.market.memory, path)
        before = memory.to_body(rig.market.memory)
        rig.market.memory = memory.load(path)
        assert memory.to_body(rig.market.memory) == json.loads(json.dumps(before))

    restart()
    rig.at(GATE + timedelta(seconds=1), carry=False)
    first = rig.out.pop()
    restart()
    rig.at(GATE + timedelta(seconds=2), carry=False)
    assert rig.out == [first]
    rig.at(GATE + timedelta(seconds=3))
    restart()
    rig.at(GATE + timedelta(seconds=60))
    assert rig.deal.state == "accepted"
    assert len(rig.market.memory.rounds) == 1


def test_a_market_without_memory_awards_the_same_once_more(keys: Keys) -> None:
    """The award has the same id; a plant that knows it says so, and that counts as accepted."""
    ids = []
    for seed in (1, 2):
        rig = Rig(keys, ids=seed)
        rig.plant.verdict = refuse(Reason.REPLAY, "the id has been used before")
        rig.say(rig.plant.offer(bid_of(), GATE))
        rig.at(GATE + timedelta(seconds=1))
        assert (rig.deal.state, rig.deal.reason) == ("accepted", KNOWN_THERE)
        ids.append(rig.deal.award_id)
    assert ids[0] == ids[1]


def test_a_sequence_that_was_overtaken_is_signed_anew(keys: Keys) -> None:
    """Another command of ours was faster: the same award with a higher number."""
    rig = Rig(keys)
    rig.plant.verdict = refuse(Reason.SEQUENCE, "seq does not follow")
    rig.say(rig.plant.offer(bid_of(), GATE))
    rig.at(GATE + timedelta(seconds=1))
    sequences = [data["seq"] for _, data in rig.plant.got]
    assert sequences == sorted(set(sequences))
    assert len({data["award_id"] for _, data in rig.plant.got}) == 1
    assert (rig.deal.state, len(sequences)) == ("rejected", TRIES)


def test_what_nobody_signed_is_no_offer(keys: Keys, tmp_path: Path) -> None:
    """A forged key, another plant's topic, garbage and an unknown plant leave the book empty."""
    rig = Rig(keys)
    (tmp_path / "other").mkdir()
    forger = Plant(replace(keys, agent=keys_in(tmp_path / "other").agent))
    good, forged = rig.plant.offer(bid_of(), GATE), forger.offer(bid_of(), GATE)
    elsewhere = replace(good, topic="vpp/v1/dc2/bid/offer")
    rig.say(
        forged,
        elsewhere,
        replace(good, payload=b"{}"),
        replace(good, topic="bms/v1/PUB/x"),
        replace(good, payload=b"x"),
    )
    assert not rig.market.memory.book.entries
    assert len(rig.market.ignored) == 4
    rig.say(good)
    assert len(rig.market.memory.book.entries) == 1


def test_an_offer_beyond_reason_is_passed_over_and_the_others_are_not(keys: Keys) -> None:
    """A price of 31 digits and half a watt that may not be cut cannot be cleared; the slot is, without them."""
    rig = Rig(keys, need="1 MW")
    dear = rig.plant.offer(bid_of(1, (1e3, 80.0)), GATE)
    event = json.loads(dear.payload)
    data = json.loads(_payload(event["data"]))
    data["steps"][0]["price"] = "9" * 31
    event["data"] = rig.plant.keys.agent.signer().sign(json.dumps(data).encode())
    rig.say(replace(dear, payload=json.dumps(event).encode()))
    rig.say(rig.plant.offer(bid_of(2, (1000.5, 80.0), divisible=False), GATE), rig.plant.offer(bid_of(3), GATE))
    rig.at(GATE + timedelta(seconds=1))
    assert [data["power"]["value"] for _, data in rig.plant.got] == [100_000]
    (slot,) = results(rig.market)["slots"]
    assert sorted(slot["passed_over"].values()) == [
        "an indivisible bid must be of whole watts here", "its price has too many digits"
    ]  # fmt: skip


def _payload(token: str) -> bytes:
    part = token.split(".")[1]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_others_take_their_part_and_the_results_are_json(keys: Keys, tmp_path: Path) -> None:
    """Made-up participants are the same for the same seed; everything that came of it can be written down."""
    prices = []
    for _ in range(2):
        rig = Rig(keys, need="250 kW", crowd=Crowd(6, seed=3, power_w=100e3, price_per_mwh=60.0))
        rig.say(rig.plant.offer(bid_of(1, (100e3, 59.0)), GATE))
        rig.at(GATE + timedelta(seconds=1))
        write(results(rig.market), tmp_path / "results.json")
        found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        (slot,) = found["slots"]
        assert slot["rivals_w"] > 0
        assert sum(slot["taken_w"].values()) <= 250_000
        prices.append(slot["price"])
    assert prices[0] == prices[1]

"""More consumption, both ways, and scarcity: what the market orders, signals and pays, on a clock that is moved by hand."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from tests.market.plant import ISSUER, PRODUCT, Keys, bid_of, keys_in, refuse
from tests.market.rig import GATE, PRODUCT_END, START, Rig
from vppd.errors import ConfigError
from vppd.grid.reasons import Reason
from vppd.market import memory
from vppd.market.accounts import Pays, Tariff
from vppd.market.report import results, show
from vppd.market.rivals import Crowd
from vppd.market.rounds import Demand, Rules, demand_of
from vppd.market.session import rules_of

SLOT_S = 900.0


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """Keys of both sides."""
    return keys_in(tmp_path)


def test_each_direction_has_its_own_merit_order(keys: Keys) -> None:
    """Offers up, down and both ways for one product and interval are three slots: no price of one reaches another."""
    rig = Rig(keys, need="50 %")
    rig.say(
        rig.plant.offer(bid_of(1, (100e3, 80.0)), GATE),
        rig.plant.offer(bid_of(2, (60e3, 20.0), direction="down"), GATE),
        rig.plant.offer(bid_of(3, (40e3, 15.0), direction="symmetric", dispatch="order"), GATE),
    )
    rig.at(GATE + timedelta(seconds=1))
    got = {data["direction"]: (data["power"]["value"], data["price"]["amount"]) for _, data in rig.plant.got}
    assert got == {"up": (50_000, "80.00"), "down": (30_000, "20.00"), "symmetric": (20_000, "15.00")}
    console = Console(width=140, record=True)
    show(results(rig.market), console)
    said = console.export_text()
    assert all(said.count(word) == 2 for word in ("down", "symmetric"))


def test_more_consumption_that_is_kept_ready_is_ordered_as_an_increase(keys: Keys) -> None:
    """The order asks for an increase; delivered is what the meter showed above the baseline, and no more than obliged."""
    rig = Rig(keys)
    bid = bid_of(direction="down", dispatch="order", sustain_s=600.0)
    rig.say(rig.plant.offer(bid, GATE))
    rig.at(GATE + timedelta(seconds=1))
    rig.at(START)
    (_, (kind, order)) = rig.plant.got
    assert (kind, order["kind"], order["power"]["value"]) == ("vpp.order.set.v1", "increase", 60_000)
    assert not rig.levels
    rig.say(
        rig.plant.order_statement(
            order["order_id"], PRODUCT_END, kind="increase", metered_wh=109_500.0, added_wh=9_500.0
        )
    )
    (said,) = results(rig.market)["awards"]
    assert (said["account"]["obliged_wh"], said["account"]["delivered_wh"]) == ("10000.000", "9500.000")
    assert (said["account"]["pay"], said["account"]["penalty"]) == ("0.76", "0.04")


def test_more_consumption_on_schedule_is_settled_by_its_order_too(keys: Keys) -> None:
    """No order goes out; the statement of the award's own order says what was drawn above the baseline."""
    rig = Rig(keys)
    rig.say(rig.plant.offer(bid_of(direction="down"), GATE))
    rig.at(GATE + timedelta(seconds=1))
    rig.at(START + timedelta(seconds=1))
    assert [kind for kind, _ in rig.plant.got] == ["vpp.bid.award.v1"]
    rig.say(
        rig.plant.order_statement(
            rig.deal.award_id, PRODUCT_END, kind="increase", metered_wh=90_000.0, added_wh=16_000.0
        )
    )
    (award,) = results(rig.market)["awards"]
    assert award["account"]["delivered_wh"] == award["account"]["obliged_wh"] == "15000.000"


def test_a_scheduled_award_that_was_never_carried_out_is_settled_with_nothing(keys: Keys) -> None:
    """Such an award has a statement of its own instead of its order's: all of it is missing."""
    rig, bid = Rig(keys), bid_of(direction="down")
    rig.say(rig.plant.offer(bid, GATE))
    rig.at(GATE + timedelta(seconds=1))
    rig.say(rig.plant.award_statement(rig.deal.award_id, bid, 0.0, PRODUCT_END))
    (award,) = results(rig.market)["awards"]
    assert (award["account"]["delivered_wh"], award["account"]["owed"]) == ("0.000", "-1.20")


def test_an_order_that_is_refused_is_settled_with_nothing(keys: Keys) -> None:
    """The award was accepted, its order was not: no statement will come, all of it is missing, and no signal is sent."""
    rig = Rig(keys)
    rig.say(rig.plant.offer(bid_of(direction="symmetric", dispatch="order"), GATE))
    rig.at(GATE + timedelta(seconds=1))
    rig.plant.verdict = refuse(Reason.HOLD, "released")
    rig.at(START)
    rig.at(START + timedelta(seconds=10))
    assert (rig.deal.order_state, rig.levels) == ("rejected", [])
    (award,) = results(rig.market)["awards"]
    assert award["account"]["delivered_wh"] == "0.000"
    assert Decimal(award["account"]["owed"]) < 0


def test_both_ways_are_called_by_a_signal_that_is_neutral(keys: Keys, tmp_path: Path) -> None:
    """An order for regulation, then a signal every 2 s from its receipt to its end, whose sum is 0; the same after a restart."""
    rig = Rig(keys, need="100 %")
    rig.say(rig.plant.offer(bid_of(direction="symmetric", dispatch="order"), GATE))
    rig.at(GATE + timedelta(seconds=1))
    rig.at(START)
    (_, (kind, order)) = rig.plant.got
    assert (kind, order["kind"], order["power"]["value"]) == ("vpp.order.set.v1", "regulation", 100_000)
    for half_s in range(1, int(2 * SLOT_S) + 20):
        if half_s == 300:
            memory.save(rig.market.memory, tmp_path / "state.json")
            rig.market.memory = memory.load(tmp_path / "state.json")
        rig.at(START + timedelta(seconds=half_s / 2.0))
    assert len(rig.levels) == SLOT_S / 2.0
    assert sum(round(level * 10_000) for level in rig.levels) == 0
    again = Rig(keys, need="100 %")
    again.market.memory = memory.load(tmp_path / "state.json")
    again.at(START + timedelta(seconds=100.0))
    assert again.levels == [rig.levels[50]]


def test_what_moves_both_ways_is_paid_by_how_well_it_followed(keys: Keys) -> None:
    """Obliged is what the signal moved, delivered the part of the time in which it was followed."""
    rig = Rig(keys, need="100 %")
    rig.say(rig.plant.offer(bid_of(direction="symmetric", dispatch="order"), GATE))
    rig.at(GATE + timedelta(seconds=1))
    rig.at(START)
    assert 0.2 < rig.deal.swing_frac < 0.7
    rig.say(
        rig.plant.order_statement(
            rig.deal.order_id, PRODUCT_END, kind="regulation", metered_wh=5.0, compliant_frac=0.95
        )
    )
    (said,) = results(rig.market)["awards"]
    obliged_wh = Decimal(25_000) * Decimal(str(rig.deal.swing_frac))
    assert abs(Decimal(said["account"]["obliged_wh"]) - obliged_wh) < 1
    assert abs(Decimal(said["account"]["delivered_wh"]) - obliged_wh * Decimal("0.95")) < 1


def test_capacity_both_ways_is_paid_by_how_long_it_was_there(keys: Keys) -> None:
    """100 kW each way for a quarter hour at 80 per MW and hour, there for 80 % of the time."""
    rig, bid = Rig(keys, need="100 %", tariff=Tariff(Pays.CAPACITY)), bid_of(direction="symmetric", dispatch="order")
    rig.say(rig.plant.offer(bid, GATE))
    rig.at(GATE + timedelta(seconds=1))
    rig.say(rig.plant.award_statement(rig.deal.award_id, bid, 0.8, PRODUCT_END))
    (said,) = results(rig.market)["awards"]
    assert (said["account"]["pay"], said["account"]["penalty"]) == ("1.60", "0.40")


def test_one_plant_hears_one_signal(keys: Keys) -> None:
    """Two products called at once share the signal of the issuer: one every 2 s, not two."""
    rig = Rig(keys, need="100 %")
    for number, product in ((1, "a"), (2, "b")):
        bid = bid_of(number, direction="symmetric", dispatch="order", product=product)
        rig.say(rig.plant.offer(bid, GATE))
    rig.at(GATE + timedelta(seconds=1))
    for beat in range(50):
        rig.at(START + timedelta(seconds=0.2 * beat))
    assert len(rig.plant.got) == 4
    assert len(rig.levels) == 5


@pytest.mark.parametrize(
    ("need", "scarcity", "price"),
    [("90 kW", None, "60.00"), ("2 MW", None, "500"), ("2 MW", "250", "250"), ("2 MW", "0", "60.00")],
)
def test_scarcity_has_its_price(keys: Keys, need: str, scarcity: str | None, price: str) -> None:
    """Where more is needed than is offered, all are paid the scarcity price, the cap where none is set; never less than asked."""
    rules = Rules(ISSUER, Demand.read(need), Decimal(500), None if scarcity is None else Decimal(scarcity))
    rig = Rig(keys, rules=rules)
    rig.say(rig.plant.offer(bid_of(1, (50e3, 40.0), (100e3, 60.0)), GATE))
    rig.at(GATE + timedelta(seconds=1))
    ((_, award),) = rig.plant.got
    assert award["price"]["amount"] == price
    (slot,) = results(rig.market)["slots"]
    assert slot["scarce"] is (need == "2 MW")


def test_one_of_a_group_and_what_is_too_dear_do_not_make_plenty(keys: Keys) -> None:
    """80 kW are needed; of a group of two 50 kW only one counts, and 100 kW above the cap do not count: that is scarce."""
    rig = Rig(keys, rules=Rules(ISSUER, Demand.read("80 kW"), Decimal(100)))
    for number in (1, 2):
        rig.say(rig.plant.offer(bid_of(number, (50e3, 40.0 + number), exclusive_group="one"), GATE))
    rig.say(rig.plant.offer(bid_of(3, (100e3, 120.0)), GATE))
    rig.at(GATE + timedelta(seconds=1))
    assert [data["price"]["amount"] for _, data in rig.plant.got] == ["100"]
    (slot,) = results(rig.market)["slots"]
    assert slot["scarce"]


def test_a_block_that_is_too_large_is_no_scarcity(keys: Keys) -> None:
    """100 kW that may not be cut are there for a need of 80 kW, though they cannot be taken: the rest keeps its price."""
    rig = Rig(keys, need="80 kW")
    rig.say(rig.plant.offer(bid_of(1, (100e3, 40.0), divisible=False), GATE))
    rig.say(rig.plant.offer(bid_of(2, (50e3, 60.0)), GATE))
    rig.at(GATE + timedelta(seconds=1))
    assert [(d["power"]["value"], d["price"]["amount"]) for _, d in rig.plant.got] == [(50_000, "60.00")]


def test_what_is_bought_can_be_told_by_product_and_direction(keys: Keys) -> None:
    """The closest word counts: of a product one way, of a product, of a direction, of everything."""
    rules = rules_of(ISSUER, ["10 kW", "down:none", f"{PRODUCT}:20 kW", f"{PRODUCT}/symmetric:30 kW"], crowd=Crowd())
    rig = Rig(keys, rules=rules)
    other = {"product": "other", "dispatch": "order"}
    for number, bid in enumerate(
        (
            {"direction": "up"},
            {"direction": "symmetric", "dispatch": "order"},
            {"direction": "down", **other},
            {"direction": "symmetric", **other},
        ),
        1,
    ):
        rig.say(rig.plant.offer(bid_of(number, **bid), GATE))
    rig.at(GATE + timedelta(seconds=1))
    got = sorted((data["product"], data["direction"], data["power"]["value"]) for _, data in rig.plant.got)
    assert len(rig.market.memory.rounds) == 3
    assert got == [(PRODUCT, "symmetric", 30_000), (PRODUCT, "up", 20_000), ("other", "symmetric", 10_000)]


@pytest.mark.parametrize("needs", [["none"], [":5 kW"], ["down:"], ["down:5"], ["5 kW", "6 kW"], ["up:none", "up:1 W"]])
def test_needs_that_make_no_sense_are_refused(needs: list[str]) -> None:
    """Nothing at all, no name before a colon, no amount, and two words about the same."""
    with pytest.raises(ConfigError, match="--need"):
        rules_of(ISSUER, needs)


def test_nothing_said_is_sixty_percent() -> None:
    """Without a word of everything, 60 % of what is offered is bought."""
    assert rules_of(ISSUER, ["down:none"]).demand == Demand(Decimal("0.6"), is_part=True)
    assert demand_of("a:b/up:2 MW") == ("a:b/up", Demand(Decimal(2_000_000)))

"""The trading desk over gates, outages, awards and restarts, in virtual time."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta

import pytest

from tests.grid.schemas import check
from tests.planning.desk_rig import Room
from tests.planning.market_rig import outlooks, product, timetable
from vppd.errors import Unreachable
from vppd.model import Outbound
from vppd.snapshot import Health
from vppd.testing.cycles import START

pytestmark = pytest.mark.looptime


async def test_each_gate_has_its_offer_before_it_closes() -> None:
    """An hour of quarters: every slot is offered once, in time, with the gate it is good for."""
    room = Room()
    async with room.trading():
        await room.until(60)
        book = room.offers()
    assert [o.bid.interval.start for o in book] == [START + timedelta(minutes=15 * k) for k in range(1, 6)]
    events = room.told()
    assert [event.kind for event in events] == ["offered"] * 5
    for event, offered in zip(events, book, strict=True):
        assert event.at < offered.gate_closes_at == offered.bid.interval.start - timedelta(minutes=10)
        assert offered.bid.power_w > 500e3


async def test_what_is_owed_to_the_market_is_a_good_message() -> None:
    """Each event owes one signed message that passes its schema."""
    room = Room()
    async with room.trading():
        await room.until(3)
    (event,) = room.told()
    (owed,) = event.body["receipts"]
    said = check(Outbound(owed["topic"], owed["payload"].encode()))
    assert (said["state"], said["product"], said["dispatch"], said["revision"]) == ("offered", "quick", "order", 1)
    assert [room.register.owed[0].messages[0].topic] == ["vpp/v1/dc1/bid/offer"]


async def test_a_restart_offers_nothing_twice() -> None:
    """The same slot, the same forecasts: the second process finds it offered."""
    room = Room()
    async with room.trading():
        await room.until(3)
    async with room.trading():
        await room.until(4)
    assert room.computed >= 2
    assert [event.kind for event in room.told()] == ["offered"]


async def test_an_outage_before_the_gate_takes_power_back() -> None:
    """A battery that is gone is not offered any more: the bid is revised while its gate is open."""
    room = Room()
    async with room.trading():
        await room.until(2)
        before_w = room.offers()[0].bid.power_w
        room.world.silent.add("bess-b")
        await room.until(4.5)
        (offered,) = room.offers()
        view = room.desk.view()
    assert offered.bid.revision >= 2
    assert offered.bid.power_w <= before_w - 200e3
    assert view["not_counted"]["bess-b"] == "it takes no orders now"


async def test_a_released_plant_withdraws_what_it_offered() -> None:
    """While the operator has released it, nothing can be promised."""
    room = Room()
    async with room.trading():
        await room.until(2)
        room.world.health = Health(ready=True, operator_release=True)
        await room.until(4.5)
        (offered,) = room.offers()
    assert offered.state == "withdrawn"
    assert [event.kind for event in room.told()] == ["offered", "withdrawn"]


async def test_an_outage_behind_the_gate_is_told_and_changes_nothing() -> None:
    """What has been offered stands; what is short of it is said."""
    room = Room()
    async with room.trading():
        await room.until(6)
        (behind,) = [o for o in room.offers() if o.gate_closes_at < room.clock.now()]
        room.world.silent.add("bess-b")
        await room.until(9)
        still = room.register.offers[behind.bid.bid_id]
        view = room.desk.view()
    assert still == behind
    assert view["short_w"][f"offered/{behind.bid.bid_id}"] > 100e3


async def test_what_may_still_be_awarded_is_not_sold_again() -> None:
    """Two products for the same time: what the first has on the market is not offered by the second."""
    slow = product(name="later", gate={"before_delivery_s": 120.0})
    room = Room(products=(product(max_bid_w=300e3), slow))
    async with room.trading():
        await room.until(14)
        book = room.offers()
    first = [o.bid.power_w for o in book if o.bid.interval.start == START + timedelta(minutes=15)]
    assert sorted(first) == [300e3, 518e3], (
        "all that is sure: one in ten samples of the halls is lower than 184 kW each"
    )


async def test_an_answer_that_comes_behind_a_gate_is_thrown_away() -> None:
    """It would have moved power from a slot that can no more be changed to one that can: the same power on offer twice."""
    dear = product(name="dear", gate={"before_delivery_s": 300.0}, min_bid_w=600e3)
    expect = [{"product": "quick", "price_per_mwh": 300.0}, {"product": "dear", "price_per_mwh": 900.0}]
    room = Room(market={"expect": expect}, products=(product(), dear))
    whole, room.timetable = room.timetable, timetable(room.plant, {}, {})
    async with room.trading():
        await room.until(4.8)
        assert [o.bid.product for o in room.offers()] == ["quick"]
        room.timetable, room.takes_s = whole, 20.0
        room.desk.wake()
        await room.until(9.5)
    assert [event.body["bid"]["product"] for event in room.told()] == ["quick"], (
        "beside its 368 kW there is too little for dear"
    )


async def test_an_answer_that_an_award_has_overtaken_is_thrown_away() -> None:
    """A bid that is taken before its gate cannot shrink any more: what was to take its place is not offered."""
    dear = product(name="dear", gate={"before_delivery_s": 300.0}, min_bid_w=600e3)
    expect = [{"product": "quick", "price_per_mwh": 300.0}, {"product": "dear", "price_per_mwh": 900.0}]
    room = Room(market={"expect": expect}, products=(product(), dear))
    whole, room.timetable = room.timetable, timetable(room.plant, {}, {})
    async with room.trading():
        await room.until(2)
        room.timetable, room.takes_s = whole, 20.0
        room.desk.wake()
        await room.until(2.1)
        await room.award(room.offers()[0], 300e3)
        await room.until(9.5)
    assert [event.body["bid"]["product"] for event in room.told()] == ["quick"]


async def test_an_award_is_told_to_those_who_must_know() -> None:
    """The planner is woken, and what was not taken is free again once the slot has begun."""
    room = Room()
    async with room.trading():
        await room.until(6)
        await room.award(room.offers()[0], 100e3)
        await room.until(7)
        assert room.obliged == 1
        assert room.reserved == {"hall-a": (), "hall-b": ()}
        await room.until(31)
        assert room.obliged == 2
        (statement,) = room.told("statements")
    assert statement.body["held_frac"] == 1.0
    assert statement.body["complete_frac"] > 0.95
    assert statement.key == f"statement/award/{statement.body['award_id']}"


async def test_clusters_are_told_of_schedules() -> None:
    """A scheduled award keeps a share of each hall free, until it is over; a new process tells them again."""
    room = Room(products=(product(dispatch="scheduled"),))
    async with room.trading():
        await room.until(6)
        sold = await room.award(room.offers()[0], 200e3)
        await room.until(8)
        first = dict(room.reserved)
    assert [w.start for w in first["hall-a"]] == [sold.interval.start]
    assert 0.0 < first["hall-a"][0].power_w < 100e3
    room.reserved.clear()
    async with room.trading():
        await room.until(10)
        assert room.reserved["hall-a"][0].start == sold.interval.start
        await room.until(32)
        assert room.reserved == {"hall-a": (), "hall-b": ()}
        (statement,) = room.told("statements")
        assert statement.body["held_frac"] == 0.0, "its order was never carried out here"


async def test_a_worker_that_fails_is_tried_again() -> None:
    """No answer, no offer; then the next try still meets the gate."""
    room = Room()
    room.fault = Unreachable("the worker hangs")
    async with room.trading():
        await room.until(2)
        assert room.offers() == []
        assert room.desk.view()["trouble"] == "the worker hangs"
        room.fault = None
        await room.until(4.5)
        assert len(room.offers()) == 1
        assert room.desk.view()["trouble"] == ""


async def test_a_disk_that_fails_keeps_offers_at_home() -> None:
    """Nothing is offered that is not on disk; when it works again, what is still open is."""
    room = Room()
    async with room.trading():
        room.ledger.fault = Unreachable("the disk is full")
        await room.until(3)
        assert room.offers() == []
        room.ledger.fault = None
        await room.until(4.9)
        assert len(room.offers()) == 1


async def test_a_day_ahead_product_is_offered_at_once_for_its_whole_day() -> None:
    """A gate at 00:08 for the day after: 24 hours, each with its own bid, before the gate."""
    day = product(delivery_interval_s=3600.0, gate={"days_before": 0, "local_time": "00:08", "time_zone": "UTC"})
    room = Room(market={"horizon_h": 24.0}, products=(day,))
    async with room.trading():
        await room.until(10)
        book = room.offers()
    assert len(book) == 23
    assert {o.gate_closes_at for o in book} == {START + timedelta(minutes=8)}
    assert all(event.at < START + timedelta(minutes=8) for event in room.told())


async def test_a_restart_withdraws_nothing_while_nobody_knows() -> None:
    """Before the first forecasts and the first plan the market keeps what it was told."""
    room = Room()
    async with room.trading():
        await room.until(2)
    known, room.outlook = room.outlook, {}
    async with room.trading():
        await room.until(3)
        assert [event.kind for event in room.told()] == ["offered"]
        room.outlook = known
        await room.until(4)
    assert [event.kind for event in room.told()] == ["offered"]


async def test_a_clock_that_is_set_is_noticed() -> None:
    """Set forward (or asleep) for 20 minutes: gates that were passed are left alone, the next ones are met."""
    room = Room()
    async with room.trading():
        await room.until(1)
        room.clock.ahead = timedelta(minutes=20)
        await asyncio.sleep(250.0)
        book = room.offers()
    assert [o.bid.interval.start.minute for o in book] == [15, 45]
    assert [event.kind for event in room.told()] == ["offered", "offered"]
    assert all(event.at < datetime.fromisoformat(event.body["gate_closes_at"]) for event in room.told())


async def test_a_clock_that_is_set_back_offers_nothing_twice() -> None:
    """Slots are offered already; the earlier ones are open again, and one of them is missed by nobody."""
    room = Room()
    async with room.trading():
        await room.until(8)
        before = room.told()
        room.clock.ahead = timedelta(minutes=-5)
        await asyncio.sleep(60.0)
        after = room.told()
    assert [event.kind for event in after[: len(before)]] == [event.kind for event in before]
    assert len({event.key for event in after}) == len(after)


async def test_what_is_worth_more_later_is_kept_for_it() -> None:
    """A product whose gate closes first leaves its power to one that pays more for the same time."""
    dear = product(name="dear", gate={"before_delivery_s": 120.0})
    expect = [{"product": "quick", "price_per_mwh": 300.0}, {"product": "dear", "price_per_mwh": 900.0}]
    room = Room(market={"expect": expect}, products=(product(), dear))
    async with room.trading():
        await room.until(14.5)
        book = [o for o in room.offers() if o.bid.interval.start == START + timedelta(minutes=15)]
    power_w = {o.bid.product: o.bid.power_w for o in book if o.state == "offered"}
    assert power_w["dear"] > 600e3
    assert power_w.get("quick", 0.0) < 200e3


async def test_the_view_says_what_is_sold_and_what_is_not_and_why() -> None:
    """Products with their reasons, gates, offers; plain JSON."""
    odd = product(name="odd", direction="symmetric", dispatch="scheduled")
    dear = product(name="dear", min_bid_w=800e3, gate={"before_delivery_s": 600.0})
    room = Room(products=(product(), odd, dear))
    room.outlook = dict(outlooks(shed_w=50e3))
    async with room.trading():
        await room.until(3)
        view = json.loads(json.dumps(room.desk.view(), allow_nan=False))
    reasons = {one["name"]: one["why_not"] for one in view["products"]}
    assert reasons["quick"] == ""
    assert "both directions" in reasons["odd"]
    assert view["offers"][0]["product"] == "quick"
    assert view["offers"][0]["state"] == "offered"
    assert {one["product"] for one in view["not_offered"]} == {"dear"}
    assert all(one["reason"] for one in view["not_offered"])
    assert view["next_gates"][0]["product"] in {"quick", "dear"}


async def test_without_forecasts_nothing_is_promised() -> None:
    """A plan that is gone and forecasts that are gone take the offer with them, while the gate is open."""
    room = Room()
    async with room.trading():
        await room.until(2)
        room.timetable = None
        room.outlook.clear()
        room.desk.wake()
        await room.until(4.5)
        (offered,) = room.offers()
    assert offered.state == "withdrawn"

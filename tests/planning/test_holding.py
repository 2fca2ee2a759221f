"""Whether what was sold is there: looked at on a running plant, and told once for each award."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from vppd.core.state import Decision
from vppd.model import Event, Interval, Obligation, OrderKind, Recorded
from vppd.planning.trade.holding import Held, Look, account, looks, statement_of
from vppd.planning.trade.settling import SAVE_S, SCHEDULED_GRACE_S, Settling
from vppd.snapshot import Health, Snapshot
from vppd.testing.cycles import START, World

CAN_W = 2 * 168e3
"""What the two halls of the world can shed. [W]"""


def sold(award_id: str = "a", power_w: float = 100e3, for_s: float = 900.0, **changes: Any) -> Obligation:
    """Return an award on the whole site from the start."""
    interval = Interval(START, START + timedelta(seconds=for_s))
    plain = Obligation(award_id, "b", "tso", "quick", "dc1", "up", interval, power_w, sustain_s=900.0)
    return replace(plain, **changes)


@dataclass
class Book:
    """What has been sold, without a ledger; what is written counts as settled."""

    obligations: list[Obligation]
    written: list[Event] = field(default_factory=list)

    @property
    def statements(self) -> list[dict[str, Any]]:
        """Return what was stated, award by award."""
        return [event.body for event in self.written if event.stream == "statements"]

    def obligations_at(self, at: datetime) -> tuple[Obligation, ...]:
        """Return what is not over."""
        return tuple(one for one in self.obligations if not one.is_over(at))

    def unsettled_at(self, at: datetime) -> tuple[Obligation, ...]:
        """Return what is over and not stated."""
        stated = {body["award_id"] for body in self.statements}
        return tuple(one for one in self.obligations if one.is_over(at) and one.award_id not in stated)

    def saved(self) -> Iterator[Recorded]:
        """Return the running accounts that are on disk."""
        return (Recorded(i, e, "") for i, e in enumerate(self.written) if e.stream == "holding")


def cycle(world: World) -> tuple[Snapshot, Decision]:
    """Let a cycle pass; return what it saw and decided."""
    decision = world.step()
    return Snapshot(world.at, world.mono_s, world.readings.copy(), tuple(world.orders), (), world.health), decision


def run(world: World, settling: Settling, for_s: float) -> None:
    """Let the desk watch for so long."""
    for _ in range(round(for_s / world.plant.cycle_s)):
        settling.take(*cycle(world))


def settle(book: Book, world: World, for_s: float) -> None:
    """Let a desk of its own watch for so long: that is what a restart is."""
    settling = Settling(book, world.plant, None, book.written.append)
    settling.restore(book.saved())
    run(world, settling, for_s)


@pytest.fixture
def world() -> World:
    """A plant that has run for a while; its storage has been sold to nobody and is out of the way."""
    made = World()
    for name in ("ups-a", "bess-b"):
        made.soc_frac[made.index(name)] = 0.2
        made.silent.add(name)
    for _ in range(30):
        made.step()
    made.at = START
    return made


def there_w(world: World, *obligations: Obligation) -> list[float | None]:
    """Return what is there of each award now. [W]"""
    found = looks(obligations, *cycle(world), world.plant)
    return [found[one.award_id].there_w for one in obligations]


def test_what_can_be_shed_is_there(world: World) -> None:
    """Up to what was sold, and no more than the jobs allow."""
    assert there_w(world, sold()) == [pytest.approx(100e3)]
    assert there_w(world, sold(power_w=500e3)) == [pytest.approx(CAN_W, rel=0.02)]


def test_nothing_is_there_twice(world: World) -> None:
    """Two awards that together are more than there is: the later one is short."""
    first, second = there_w(world, sold("a", 300e3), sold("b", 300e3))
    assert first == pytest.approx(300e3)
    assert second == pytest.approx(CAN_W - 300e3, rel=0.05)


def test_an_award_on_a_feed_takes_from_the_site(world: World) -> None:
    """What stands behind the feed's award does not stand behind the site's as well."""
    feed, site = there_w(world, sold("a", 150e3, resource="main-a"), sold("b", 300e3))
    assert feed == pytest.approx(150e3)
    assert site == pytest.approx(CAN_W - 150e3, rel=0.05)


def test_what_runs_counts_as_there(world: World) -> None:
    """While an order of the product has it delivered, the award is held, and what was delivered is counted."""
    world.order(OrderKind.REDUCE, "dc1", 300e3, product="quick")
    for _ in range(120):
        world.step()
    found = looks([sold(power_w=300e3)], *cycle(world), world.plant)["a"]
    assert found.there_w == pytest.approx(300e3, rel=0.02)
    assert found.ordered_w == 300e3
    assert found.delivered_w == pytest.approx(300e3, rel=0.05)


def test_another_products_order_takes_it_away(world: World) -> None:
    """What is delivered to somebody else is not there."""
    world.order(OrderKind.REDUCE, "dc1", 300e3, product="other")
    for _ in range(120):
        world.step()
    (left_w,) = there_w(world, sold(power_w=300e3))
    assert left_w is not None
    assert left_w < 60e3


@pytest.mark.parametrize("health", [Health(ready=True, operator_release=True), Health(ready=True, link_lost=True)])
def test_what_nobody_can_order_is_not_there(world: World, health: Health) -> None:
    """Released by the operator, or out of reach of the dispatcher."""
    world.health = health
    world.step(3)
    assert there_w(world, sold()) == [0.0]


def test_without_a_meter_nobody_knows(world: World) -> None:
    """Missing is missing, not 0."""
    world.silent.add("poi-a")
    for _ in range(30):
        world.step()
    assert there_w(world, sold()) == [None]


def test_minutes_count_by_what_was_there() -> None:
    """Three minutes there, one short (beyond the tolerance), one unknown."""
    held = Held()
    for there in (100e3, 100e3, 99e3, 50e3, None):
        held = account(held, Look(there), 100e3, 60.0)
    assert (held.known_s, held.held_s, held.lowest_w) == (240.0, 180.0, 50e3)
    told = statement_of(sold(for_s=300.0), held)
    assert (told.held_frac, told.complete_frac, told.ordered_wh) == (0.75, 0.8, None)
    assert Held.from_body(held.to_body("a")) == held


def test_an_award_that_was_held_is_told_once(world: World) -> None:
    """Held all the time, measured nearly all the time; one statement however long the desk goes on."""
    book = Book([sold(for_s=600.0)])
    settle(book, world, 660.0)
    (told,) = book.statements
    assert told["held_frac"] == 1.0
    assert told["complete_frac"] > 0.98
    assert told["delivered_wh"] is None


def test_a_slow_disk_gets_no_second_statement(world: World) -> None:
    """While the first is on its way to disk, the award still counts as unsettled there."""

    class Slow(Book):
        def unsettled_at(self, at: datetime) -> tuple[Obligation, ...]:
            """Return what is over: nothing is on disk yet."""
            return tuple(one for one in self.obligations if one.is_over(at))

    book = Slow([sold(for_s=60.0)])
    settle(book, world, 90.0)
    assert len(book.statements) == 1


def test_an_outage_shows_in_the_statement(world: World) -> None:
    """Half of the time there is not enough behind it."""
    book = Book([sold(power_w=300e3, for_s=600.0)])
    settling = Settling(book, world.plant, None, book.written.append)
    run(world, settling, 300.0)
    world.run_jobs("hall-a", (300e3, 0.0, 0.0, 0.0))
    run(world, settling, 360.0)
    (told,) = book.statements
    assert told["held_frac"] == pytest.approx(0.5, abs=0.1)
    assert told["lowest_w"] < 200e3


def test_a_delivered_order_is_told_with_its_energy(world: World) -> None:
    """Half an award's time ordered: its energy is what was asked for and what was moved."""
    world.order(OrderKind.REDUCE, "dc1", 200e3, for_s=600.0, product="quick")
    book = Book([sold(power_w=200e3, for_s=600.0)])
    settle(book, world, 660.0)
    (told,) = book.statements
    assert told["held_frac"] == 1.0
    assert told["ordered_wh"] == pytest.approx(200e3 / 6, rel=0.1)
    assert told["delivered_wh"] == pytest.approx(told["ordered_wh"], rel=0.15)


def test_a_restart_loses_at_most_what_was_not_saved(world: World) -> None:
    """Ten minutes before it, the last five of them on disk: the statement says how much was measured."""
    book = Book([sold(for_s=1200.0)])
    settle(book, world, SAVE_S * 2 + 30.0)
    settle(book, world, 700.0)
    (told,) = book.statements
    assert told["held_frac"] == 1.0
    assert told["complete_frac"] > 1.0 - (SAVE_S + 90.0) / 1200.0


def test_an_award_that_ended_while_nobody_ran_is_told(world: World) -> None:
    """Nothing was measured, and it says so."""
    book = Book([sold(for_s=300.0)])
    world.at += timedelta(seconds=400.0)
    settle(book, world, 5.0)
    (told,) = book.statements
    assert (told["held_frac"], told["complete_frac"]) == (0.0, 0.0)


def test_a_schedule_has_the_statement_of_its_order(world: World) -> None:
    """Only one that was never carried out gets one here, when its order's can no more come."""
    book = Book([sold(for_s=60.0, dispatch="scheduled")])
    settle(book, world, 60.0 + SCHEDULED_GRACE_S - 2.0)
    assert book.statements == []
    settle(book, world, 5.0)
    (told,) = book.statements
    assert told["held_frac"] == 0.0


def test_short_slots_are_looked_at_more_often(world: World) -> None:
    """A slot of a minute has more than one look."""
    book = Book([sold(for_s=60.0)])
    settle(book, world, 70.0)
    (told,) = book.statements
    assert told["complete_frac"] > 0.9

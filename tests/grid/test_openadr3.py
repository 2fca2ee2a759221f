"""The VEN against a real server on loopback: fetch, poll, doorbell, loss, bad habits of servers, and orders on disk before in force."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import get_ident
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from tests.grid.openadr3_vtn import CLIENT, SECRET, TestVtn, vtn
from vppd.config.openadr import OpenAdrConfig
from vppd.errors import Refused, Unreachable
from vppd.grid.openadr3.config import terms_of
from vppd.grid.openadr3.orders import Plan
from vppd.grid.openadr3.reporter import Reporter
from vppd.grid.openadr3.rest import Vtn, open_vtn
from vppd.grid.openadr3.schedule import Why
from vppd.grid.openadr3.ven import Desk, News, Ven, carry_out
from vppd.grid.site import Site
from vppd.ledger.sqlite import open_ledger
from vppd.model import Interval, Order, OrderKind
from vppd.register import Register
from vppd.runtime.clock import FakeClock

pytestmark = pytest.mark.integration
AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
SITE = Site("site-1", "agent", ("main-a",), ("ups-1",))
HOUR = {"start": "2026-03-02T12:00:00Z", "duration": "PT1H"}
GRANTS = ({"resource": "*", "kinds": tuple(OrderKind), "max_power_w": 1e8},)


class Rig:
    """A server, a VEN and what the VEN delivered."""

    def __init__(self, server: TestVtn, link: Vtn, ven: Ven, clock: FakeClock, news: list[News]) -> None:
        self.server, self.link, self.ven, self.clock, self.news = server, link, ven, clock, news

    async def deliver(self, found: News) -> None:
        """Take what the VEN says."""
        self.news.append(found)

    @property
    def limits_w(self) -> list[float | None]:
        """Return the powers of the orders in the newest plan."""
        return [order.power_w for order in self.news[-1].plan.orders]

    async def until(self, what: Callable[[], bool]) -> None:
        """Wait until it is so. Raises TimeoutError."""
        async with asyncio.timeout(30):
            while not what():
                await asyncio.sleep(0.01)


def config(server: TestVtn, folder: Path, **more: Any) -> OpenAdrConfig:
    """Return the configuration for this server."""
    secret = folder / "secret"
    secret.write_text(SECRET + "\n")
    said = {
        "url": server.url,
        "client_id": CLIENT,
        "client_secret_file": secret,
        "insecure_lab": True,
        "grants": GRANTS,
    }
    return OpenAdrConfig.model_validate(said | more)


@dataclass
class Said:
    """Figures that say the same of every place at any time."""

    values: Mapping[str, float]
    watched: Collection[str] = ()

    def __call__(self, payload_type: str, name: str, interval: Interval) -> float | None:
        """Return the value of this type."""
        return self.values.get(payload_type)

    def watch(self, names: Collection[str]) -> None:
        """Note what is to be kept account of."""
        self.watched = names

    def outermost(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return all of them."""
        return tuple(names)


@asynccontextmanager
async def rig(folder: Path, **more: Any) -> AsyncIterator[Rig]:
    """Yield a VEN that is not running yet."""
    async with vtn() as server:
        server.add_program("dispatch")
        clock, news = FakeClock(AT), list[News]()

        async def deliver(found: News) -> None:
            news.append(found)

        settings = config(server, folder, **more)
        async with open_vtn(settings, clock.mono_s) as link:
            yield Rig(server, link, Ven(link, settings, terms_of(settings, SITE), clock, deliver), clock, news)


@asynccontextmanager
async def running(ven: Ven) -> AsyncIterator[None]:
    """Run the VEN for as long as the block lasts."""
    task = asyncio.create_task(ven.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_event_becomes_an_order_and_its_deletion_takes_it_back(tmp_path: Path) -> None:
    """The doorbell makes the VEN fetch: a new event is in the plan, a deleted one is not."""
    async with rig(tmp_path, poll_s=3600, lost_after_s=7200) as r, running(r.ven):
        await r.until(lambda: bool(r.news))
        assert (r.limits_w, r.news[-1].known) == ([], True)
        r.server.add_event("e", "IMPORT_CAPACITY_LIMIT", 1500, intervalPeriod=HOUR)
        r.ven.ring()
        await r.until(lambda: r.limits_w == [1.5e6])
        r.server.delete_event("e")
        r.ven.ring()
        await r.until(lambda: r.limits_w == [])


async def test_a_notification_is_only_a_doorbell(tmp_path: Path) -> None:
    """What a notification says is not believed; that it came makes the VEN fetch what is true."""

    async def notifications() -> AsyncIterator[bytes]:
        yield b'{"objectType":"EVENT","operation":"DELETE","object":{"id":"e"}}'

    async with rig(tmp_path, poll_s=3600, lost_after_s=7200) as r, running(r.ven):
        await r.until(lambda: bool(r.news))
        r.server.add_event("e", "IMPORT_CAPACITY_LIMIT", 1500, intervalPeriod=HOUR)
        await r.ven.listen(notifications())
        await r.until(lambda: r.limits_w == [1.5e6])


async def test_polling_finds_news_without_a_notifier_and_costs_little(tmp_path: Path) -> None:
    """Without a doorbell a poll finds the event; an unchanged list is answered with 304 and no body."""
    async with rig(tmp_path, poll_s=1) as r, running(r.ven):
        r.server.add_event("e", "IMPORT_CAPACITY_LIMIT", 1500, intervalPeriod=HOUR)
        await r.until(lambda: bool(r.news) and r.limits_w == [1.5e6])
        await r.until(lambda: r.ven.fetches >= 3)
        assert r.server.statuses[304] >= 2


async def test_a_long_schedule_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    """Two days of limits in steps of five minutes, from ten events: read and planned beside the loop, and once as long as nothing changes."""
    steps = [{"id": i, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [100 + i]}]} for i in range(576)]
    async with rig(tmp_path, poll_s=3600, lost_after_s=7200) as r:
        for k in range(10):
            more = {"intervals": steps, "intervalPeriod": HOUR | {"duration": "PT5M"}, "priority": k}
            r.server.add_event(f"e-{k}", "IMPORT_CAPACITY_LIMIT", 0, **more)
        async with running(r.ven):
            await r.until(lambda: len(r.news) == 1)
            r.ven.ring()
            await r.until(lambda: r.ven.fetches == 2 and len(r.news) == 2)
            assert len(r.news[0].plan.orders) == 576
            assert r.news[1].plan is r.news[0].plan
            r.server.delete_event("e-0")
            r.ven.ring()
            await r.until(lambda: len(r.news) == 3)
            assert r.news[2].plan.orders[0].group == "e-1"


async def test_a_flood_of_notifications_is_one_fetch(tmp_path: Path) -> None:
    """A doorbell that never stops ringing does not make the VEN fetch without rest."""
    async with rig(tmp_path, poll_s=3600, lost_after_s=7200) as r, running(r.ven):
        await r.until(lambda: r.ven.fetches == 1)
        for _ in range(1000):
            r.ven.ring()
            await asyncio.sleep(0)
        await r.until(lambda: r.ven.fetches == 2)
        assert r.ven.fetches == 2


async def test_comms_loss_and_return(tmp_path: Path) -> None:
    """With the server gone the events in hand go on, then the subscription is added behind them; its return takes it back."""
    async with rig(tmp_path, poll_s=1, lost_after_s=60) as r:
        for kind, power, period in (
            ("IMPORT_CAPACITY_LIMIT", 5, HOUR),
            ("IMPORT_CAPACITY_SUBSCRIPTION", 9, {"start": "0001-01-01", "duration": "P9999Y"}),
        ):
            r.server.add_event(kind, kind, power, intervalPeriod=period)
        async with running(r.ven):
            await r.until(lambda: bool(r.news))
            assert r.limits_w == [5e3]
            r.server.down = True
            seen = len(r.news)
            r.ven.ring()
            await r.until(lambda: len(r.news) > seen)
            assert (r.limits_w, r.ven.lost) == ([5e3], False)
            r.clock.advance(61)
            r.ven.ring()
            await r.until(lambda: r.limits_w == [5e3, 9e3])
            assert r.news[-1].plan.orders[1].interval.start == r.news[-1].plan.orders[0].interval.end
            r.server.down = False
            r.ven.ring()
            await r.until(lambda: r.limits_w == [5e3])


async def test_lost_from_the_start(tmp_path: Path) -> None:
    """A server that has never answered leaves what is open alone, and the site's own limit is added once it counts as lost."""
    async with rig(tmp_path, poll_s=1, lost_after_s=60, fallback_limit_w=7e3) as r:
        r.server.down = True
        async with running(r.ven):
            await r.until(lambda: bool(r.news))
            assert (r.news[-1].known, r.limits_w) == (False, [])
            r.clock.advance(61)
            r.ven.ring()
            await r.until(lambda: r.limits_w == [7e3])
            assert not r.news[-1].known


async def test_after_an_outage_of_the_grid_limits_are_void_until_fetched_again(tmp_path: Path) -> None:
    """An outage voids the limits at once, the subscription holds, and the next answer brings the limits back."""
    async with rig(tmp_path, poll_s=3600, lost_after_s=7200) as r:
        r.server.add_event("l", "IMPORT_CAPACITY_LIMIT", 50, intervalPeriod=HOUR)
        r.server.add_event(
            "s", "IMPORT_CAPACITY_SUBSCRIPTION", 9, intervalPeriod={"start": "0001-01-01", "duration": "P9Y"}
        )
        await r.ven.fetch()
        r.ven.grid_outage()
        assert [o.power_w for o in r.ven.plan().orders] == [9e3]
        await r.ven.fetch()
        assert [o.power_w for o in r.ven.plan().orders] == [5e4]


async def test_the_bad_habits_of_the_reference_server(tmp_path: Path) -> None:
    """Naive stamps, an ignored program filter, and events of strangers' programs in the list: the right order comes out."""
    async with rig(tmp_path, programs=("dispatch",)) as r:
        r.server.naive_stamps = r.server.ignores_program = True
        r.server.add_program("somebody else's")
        now = {"start": "0001-01-01", "duration": "PT2H"}
        r.server.add_event("e", "DISPATCH_SETPOINT", 1500, intervalPeriod=now)
        r.server.add_event("x", "DISPATCH_SETPOINT", 9, intervalPeriod=now, programID="p-2", priority=0)
        await r.ven.fetch()
        assert [event.id for event in r.ven.book.events] == ["e"]
        (order,) = r.ven.plan().orders
        assert (order.power_w, order.interval.start) == (1.5e6, datetime(2026, 3, 2, 11, tzinfo=UTC))


async def test_a_server_whose_clock_is_hours_behind(tmp_path: Path) -> None:
    """An event for an hour from now on is carried out although its stamp, without a zone, is five hours old: it was not there before."""
    async with rig(tmp_path) as r:
        await r.ven.fetch()
        r.clock.advance(60)
        r.server.naive_stamps, r.server.at = True, AT - timedelta(hours=5)
        period = {"start": "0001-01-01T00:00:00Z", "duration": "PT1H"}
        r.server.add_event("e", "IMPORT_CAPACITY_LIMIT", 500, intervalPeriod=period)
        await r.ven.fetch()
        (order,) = r.ven.plan().orders
        assert order.interval == Interval(AT, AT + timedelta(hours=1))


async def test_one_bad_event_does_not_hide_the_others(tmp_path: Path) -> None:
    """An event that makes no sense is named with its reason, and the others are in the plan."""
    async with rig(tmp_path) as r:
        r.server.add_event("good", "IMPORT_CAPACITY_LIMIT", 5, intervalPeriod=HOUR)
        r.server.add_event("bad", "IMPORT_CAPACITY_LIMIT", 5, intervalPeriod={"start": "soon", "duration": "PT1H"})
        await r.ven.fetch()
        found = r.ven.plan()
        assert [o.group for o in found.orders] == ["good"]
        assert [(n.event_id, n.why) for n in found.notes] == [("bad", Why.UNREADABLE)]


@pytest.mark.parametrize("count", [9, 10, 49, 50, 51, 120])
@pytest.mark.parametrize("habit", [{}, {"page_most": 20}, {"ignores_skip": True}])
async def test_every_event_of_a_long_list_is_read_once(tmp_path: Path, count: int, habit: dict[str, Any]) -> None:
    """All pages are read, also of a server that gives less than asked for or does not know pages."""
    async with rig(tmp_path) as r:
        for i in range(count):
            r.server.add_event(f"e{i}", "PRICE", i, intervalPeriod=HOUR)
        for name, value in habit.items():
            setattr(r.server, name, value)
        assert [e["id"] for e in await r.link.events("p-1")] == [f"e{i}" for i in range(count)]


async def test_a_list_that_changes_while_it_is_read(tmp_path: Path) -> None:
    """An event deleted between two pages makes none of the others disappear: the list is read again."""
    async with rig(tmp_path) as r:
        for i in range(80):
            r.server.add_event(f"e{i}", "PRICE", i, intervalPeriod=HOUR)
        r.server.shifts_once = True
        assert [e["id"] for e in await r.link.events("p-1")] == [f"e{i}" for i in range(1, 80)]


async def test_a_failure_half_way_keeps_what_is_in_hand(tmp_path: Path) -> None:
    """If only the events cannot be fetched, the old ones stay, all of them."""
    async with rig(tmp_path) as r:
        r.server.add_event("e", "IMPORT_CAPACITY_LIMIT", 5, intervalPeriod=HOUR)
        await r.ven.fetch()
        r.server.forbids = ("/events",)
        with pytest.raises(Refused, match="403"):
            await r.ven.fetch()
        assert [o.group for o in r.ven.plan().orders] == ["e"]


async def test_tokens(tmp_path: Path) -> None:
    """A token is fetched once, renewed before it ends, and renewed when the server has forgotten it; a wrong secret is refused."""
    async with rig(tmp_path) as r:
        await r.link.programs()
        await r.link.programs()
        assert r.server.asked["POST /auth/token"] == 1
        r.clock.advance(3000)
        await r.link.programs()
        assert r.server.asked["POST /auth/token"] == 2
        r.server.tokens.clear()
        await r.link.programs()
        assert r.server.asked["POST /auth/token"] == 3
        (tmp_path / "secret").write_text("wrong")
        r.server.tokens.clear()
        with pytest.raises(Refused, match="client_id"):
            await r.link.programs()


async def test_http_basic_for_servers_that_want_it(tmp_path: Path) -> None:
    """The secret can be shown as HTTP Basic."""
    async with rig(tmp_path, client_auth="basic") as r:
        r.server.basic_only = True
        assert len(await r.link.programs()) == 1


async def test_topics_of_the_notifier(tmp_path: Path) -> None:
    """Topics are those that the server assigns, without the wildcard that the reference server never uses, nor what is forbidden."""
    async with rig(tmp_path) as r:
        r.server.forbids, r.server.topicless = ("/notifiers/mqtt/topics/programs",), ("vens/v-1/programs",)
        found = await r.link.topics(["p-1"], ["v-1"])
        assert "programs/p-1/events/create" in found
        assert "vens/v-1/events/delete" in found
        left_out = ("programs/create", "vens/v-1/programs")
        assert not any(topic.endswith("/all") or topic.startswith(left_out) for topic in found)
        assert (await r.link.notifiers())["MQTT"]["serialization"] == "JSON"


async def test_a_report_that_is_stored_although_the_server_says_500(tmp_path: Path) -> None:
    """After a 500 the VEN looks whether the report is there, and only one that is not there has failed."""
    async with rig(tmp_path) as r:
        r.server.stores_and_fails = True
        body = {"eventID": "e", "clientName": "vppd", "reportName": "n-1", "payloadDescriptors": [], "resources": []}
        await r.link.report(body)
        assert [report["reportName"] for report in r.server.reports] == ["n-1"]
        r.server.down = True
        with pytest.raises(Unreachable):
            await r.link.report(body | {"reportName": "n-2"})


async def test_reports_reach_the_server_and_wait_for_it(tmp_path: Path) -> None:
    """A due report is sent with our figures; while the server does not answer it waits, and arrives once."""
    async with rig(tmp_path) as r:
        wanted = [{"payloadType": kind, "frequency": 1} for kind in ("USAGE", "READING")]
        r.server.add_event("e", "PRICE", 1, intervalPeriod=HOUR, reportDescriptors=wanted)
        await r.ven.fetch()
        settings = config(r.server, tmp_path)
        reporter = Reporter(r.link, r.ven, settings, Said({"USAGE": 2500.0}), r.clock)
        reporter.collect()
        assert reporter.waiting == 0
        r.clock.advance(3600)
        reporter.collect()
        r.server.down = True
        await reporter.send()
        assert (reporter.waiting, r.server.reports) == (1, [])
        r.server.down = False
        await reporter.send()
        await reporter.send()
        (report,) = r.server.reports
        (slot,) = report["resources"][0]["intervals"]
        assert (report["eventID"], report["resources"][0]["resourceName"]) == ("e", "site-1")
        assert slot["payloads"] == [{"type": "USAGE", "values": [2.5]}]


async def test_reports_on_feeds_and_assets(tmp_path: Path) -> None:
    """What targets name is kept account of from when the event is seen, and told under the names they use; others' targets get nothing."""
    async with rig(tmp_path, targets={"feed-7714": "main-a"}) as r:
        wanted = [
            {"payloadType": "USAGE", "frequency": 1, "targets": ["feed-7714", "ups-1"]},
            {"payloadType": "USAGE", "frequency": 1, "targets": ["feed-7714", "ups-1"], "aggregate": True},
        ]
        r.server.add_event("e", "PRICE", 1, intervalPeriod=HOUR, reportDescriptors=wanted)
        others = [{"payloadType": "USAGE", "frequency": 1}]
        r.server.add_event("o", "PRICE", 1, intervalPeriod=HOUR, reportDescriptors=others, targets=["elsewhere"])
        await r.ven.fetch()
        said = Said({"USAGE": 2500.0})
        reporter = Reporter(r.link, r.ven, config(r.server, tmp_path), said, r.clock)
        reporter.attend()
        reporter.collect()
        assert said.watched == ("main-a", "ups-1")
        r.clock.advance(3600)
        reporter.collect()
        await reporter.send()
        apart, together = r.server.reports
        assert [resource["resourceName"] for resource in apart["resources"]] == ["feed-7714", "ups-1"]
        assert [resource["resourceName"] for resource in together["resources"]] == ["AGGREGATED_REPORT"]
        (slot,) = together["resources"][0]["intervals"]
        assert slot["payloads"] == [{"type": "USAGE", "values": [5.0]}]


async def test_a_link_that_begins_anew_tells_nothing_twice(tmp_path: Path) -> None:
    """After a reload every event is seen for the first time again: a forecast that was told to late joiners is not told again."""
    async with rig(tmp_path) as r:
        wanted = [{"payloadType": "LOAD_SHED_DELTA_AVAILABLE", "historical": False, "frequency": 1, "repeat": -1}]
        r.server.add_event("e", "PRICE", 1, intervalPeriod=HOUR, reportDescriptors=wanted)
        settings = config(r.server, tmp_path)
        reporter = Reporter(r.link, r.ven, settings, Said({"LOAD_SHED_DELTA_AVAILABLE": 1e3}), r.clock)
        for _ in range(2):
            r.clock.advance(60)
            again = Ven(r.link, settings, terms_of(settings, SITE), r.clock, r.deliver)
            await again.fetch()
            reporter.serve(r.link, again, settings)
            reporter.collect()
            await reporter.send()
        assert [report["eventID"] for report in r.server.reports] == ["e"]


async def test_reports_of_the_time_while_we_were_away(tmp_path: Path) -> None:
    """A new process tells what became due since the newest report that the server has, and nothing twice; a new site tells no past."""
    async with rig(tmp_path) as r:
        course = {"intervalPeriod": HOUR | {"duration": "PT5M"}, "duration": "P1D"}
        wanted = [{"payloadType": "USAGE", "frequency": 1, "repeat": -1}]
        for event_id in ("e", "other"):
            r.server.add_event(event_id, "PRICE", 1, reportDescriptors=wanted, **course)

        async def process(minutes: int) -> list[str]:
            """Live for a while, and return the due times of what the server has of the first event by then."""
            await r.ven.fetch()
            reporter = Reporter(r.link, r.ven, config(r.server, tmp_path), Said({"USAGE": 1.0}), r.clock)
            await reporter.look_back()
            reporter.collect()
            await reporter.send()
            r.clock.advance(60 * minutes)
            reporter.collect()
            await reporter.send()
            return [report["reportName"][-13:-8] for report in r.server.reports if report["eventID"] == "e"]

        r.clock.advance(12 * 60)
        assert await process(10) == ["12:15", "12:20"]
        r.server.reports = [report for report in r.server.reports if report["eventID"] == "e"]
        r.clock.advance(15 * 60)
        before = ["12:15", "12:20", "12:25", "12:30", "12:35"]
        assert await process(4) == [*before, "12:40"]
        assert await process(0) == [*before, "12:40"]
        assert {report["eventID"] for report in r.server.reports[2:5]} == {"e"}


async def test_reports_are_put_together_beside_the_loop(tmp_path: Path) -> None:
    """With many assets and intervals a report takes seconds to work out: the control loop must not wait for it."""

    class Elsewhere(Said):
        threads: ClassVar[set[int]] = set()

        def __call__(self, payload_type: str, name: str, interval: Interval) -> float | None:
            self.threads.add(get_ident())
            return super().__call__(payload_type, name, interval)

    async with rig(tmp_path) as r:
        wanted = [{"payloadType": "LOAD_SHED_DELTA_AVAILABLE", "historical": False, "frequency": 1}]
        r.server.add_event("e", "PRICE", 1, intervalPeriod=HOUR, reportDescriptors=wanted)
        await r.ven.fetch()
        said = Elsewhere({"LOAD_SHED_DELTA_AVAILABLE": 1e3})
        running = asyncio.create_task(Reporter(r.link, r.ven, config(r.server, tmp_path), said, r.clock).run())
        await r.until(lambda: bool(r.server.reports))
        running.cancel()
        await asyncio.wait((running,))
        assert said.threads
        assert get_ident() not in said.threads


async def test_a_report_that_is_refused_does_not_stop_the_next(tmp_path: Path) -> None:
    """What the server refuses is dropped, so that it never stands in the way of later reports."""
    async with rig(tmp_path) as r:
        r.server.add_event("e", "PRICE", 1, intervalPeriod=HOUR, reportDescriptors=[{"payloadType": "USAGE"}])
        await r.ven.fetch()
        reporter = Reporter(r.link, r.ven, config(r.server, tmp_path), Said({"USAGE": 1.0}), r.clock)
        r.clock.advance(3600)
        reporter.collect()
        r.server.forbids = ("/reports",)
        await reporter.send()
        assert (reporter.waiting, reporter.sent) == (0, 0)


async def test_nobody_there(tmp_path: Path) -> None:
    """A server that does not listen is Unreachable."""
    async with rig(tmp_path) as r:
        settings = config(r.server, tmp_path, url="http://127.0.0.1:9/openadr3/3.1.0")
        async with open_vtn(settings, r.clock.mono_s) as link:
            with pytest.raises(Unreachable):
                await link.programs()


async def test_orders_are_on_disk_before_they_are_in_force(tmp_path: Path) -> None:
    """New orders and releases go through the ledger first, survive a restart, and are not made twice."""
    async with rig(tmp_path) as r, open_ledger(tmp_path / "ledger.db") as ledger:
        register, taken = Register(ledger), list[Order]()

        def take(orders: Any) -> None:
            register.catch_up()
            assert {o.order_id for o in orders} <= {o.order_id for o in register.orders}
            taken.extend(orders)

        desk = Desk(ledger, lambda: register.orders, register.catch_up, lambda: "", take, lambda _: None)

        async def settle() -> list[tuple[OrderKind, str]]:
            taken.clear()
            await r.ven.fetch()
            await carry_out(desk, "openadr", News(r.ven.plan(), r.clock.now(), known=True))
            return [(order.kind, order.resource) for order in taken]

        r.server.add_event("e", "IMPORT_CAPACITY_LIMIT", 1500, intervalPeriod=HOUR)
        assert await settle() == [(OrderKind.LIMIT, "site-1")]
        r.clock.advance(60)
        assert await settle() == []
        register = Register(ledger)
        register.catch_up()
        assert await settle() == []
        (opened,) = register.orders
        unknown = News(Plan(), r.clock.now(), known=False)
        r.server.delete_event("e")
        await carry_out(desk, "openadr", unknown)
        assert taken == []
        assert await settle() == [(OrderKind.RELEASE, opened.order_id)]


async def test_orders_are_given_when_they_come_near(tmp_path: Path) -> None:
    """Of a long schedule only what begins soon becomes orders; the rest follows in its time, and nothing twice."""
    steps = [{"id": i, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [100 + i]}]} for i in range(24)]
    async with rig(tmp_path) as r, open_ledger(tmp_path / "ledger.db") as ledger:
        register, taken = Register(ledger), list[Order]()
        r.server.add_event("e", "IMPORT_CAPACITY_LIMIT", 0, intervals=steps, intervalPeriod=HOUR)
        await r.ven.fetch()
        desk = Desk(ledger, lambda: register.orders, register.catch_up, lambda: "", taken.extend, lambda _: None)
        for hours, count in ((0, 6), (0, 6), (1, 7), (2, 9), (0, 9)):
            r.clock.advance(3600 * hours)
            await carry_out(desk, "openadr", News(r.ven.plan(), r.clock.now(), known=True))
            assert len(taken) == count
        assert {order.kind for order in taken} == {OrderKind.LIMIT}


def test_the_configuration_refuses_what_is_not_safe(tmp_path: Path) -> None:
    """Plain http without a lab, a secret in the file, a loss time shorter than two polls, and a zone that there is not are refused."""
    good = {"url": "https://vtn.test/3.1", "client_id": "x", "client_secret_file": tmp_path / "s"}
    assert OpenAdrConfig.model_validate(good).poll_s == 30.0
    zones = {
        said: OpenAdrConfig.model_validate(good | {"naive_times": said}).naive_zone
        for said in ("utc", "refuse", "Asia/Tokyo")
    }
    assert zones == {"utc": UTC, "refuse": None, "Asia/Tokyo": ZoneInfo("Asia/Tokyo")}
    odd: tuple[dict[str, Any], ...] = ({"lost_after_s": 40.0}, {"cert_file": "c"}, {"naive_times": "Mars/Base"})
    for bad in ({"url": "http://vtn.test/3.1"}, {"client_secret": "999"}, *odd):
        with pytest.raises(ValidationError):
            OpenAdrConfig.model_validate(good | bad)

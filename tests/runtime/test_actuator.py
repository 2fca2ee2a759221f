"""The latest wish wins, intents come first, stale ones are never written, releases go through."""

from __future__ import annotations

import asyncio

import pytest

from tests.runtime.rig import CLOCK, LEASE_S, Book, Rig, rigged
from vppd.model import Kind, Outcome, Setpoint
from vppd.runtime.actuator import Actuator, release_all
from vppd.runtime.clock import FakeClock
from vppd.runtime.intents import Intent, Terms
from vppd.testing.fakes import FakeDevice

pytestmark = pytest.mark.looptime


async def test_a_setpoint_is_intended_written_and_confirmed() -> None:
    """In this order, with the whole lease and the trace of its order."""
    async with rigged() as rig:
        rig.aim(-50_000.0)
        await asyncio.sleep(0.1)
        assert rig.device.writes == [Setpoint("ups-1", -50_000.0, LEASE_S, "order-1", "00-aa-bb-01")]
        assert rig.book.intents == [Intent("i1", "ups-1", -50_000.0, "order-1", "00-aa-bb-01")]
        assert rig.book.news == [Outcome.CONFIRMED]
        assert rig.book.reports[0].power_w == -50_000.0


async def test_nothing_is_written_before_the_intent_is_on_disk() -> None:
    """Write-ahead: the device hears of it only after the commit."""
    async with rigged() as rig:
        rig.book.commit_s = 1.0
        rig.aim(-50_000.0)
        await asyncio.sleep(0.9)
        assert rig.written_w == []
        await asyncio.sleep(0.2)
        assert rig.written_w == [-50_000.0]


async def test_an_unchanged_setpoint_is_renewed_three_times_a_lease_without_new_intents() -> None:
    """In 100 s of a 30 s lease: one intent, a write every 10 s, and the lease never ends."""
    async with rigged() as rig:
        rig.wish_w = -50_000.0
        for _ in range(100):
            await rig.live(1)
            assert rig.device.setpoint is not None
        assert len(rig.written_w) == 11 - 1
        assert len(rig.book.intents) == 1
        assert rig.book.news == [Outcome.CONFIRMED]


async def test_when_the_control_loop_stops_wishing_the_lease_runs_out() -> None:
    """Renewal is driven by the loop, never by a timer of its own: a hung loop lets go."""
    async with rigged() as rig:
        rig.wish_w = -50_000.0
        await rig.live(12)
        assert rig.device.power_w == -50_000.0
        rig.wishes = False
        await rig.live(31)
        assert rig.device.power_w == 0.0
        assert len(rig.written_w) == 2


async def test_the_latest_wish_wins() -> None:
    """Wishes that come while a write is under way are not queued: only the last of them is written."""
    async with rigged() as rig:
        rig.device.answer_s = 1.5
        rig.aim(-10_000.0)
        await asyncio.sleep(0.1)
        for power_w in (-20_000.0, -30_000.0, -40_000.0):
            rig.aim(power_w)
        await asyncio.sleep(4.0)
        assert rig.written_w == [-10_000.0, -40_000.0]


async def test_a_wish_overtaken_while_its_intent_is_stored_is_not_written() -> None:
    """The slot is looked at again after the commit."""
    async with rigged() as rig:
        rig.book.commit_s = 1.0
        rig.aim(-50_000.0)
        await asyncio.sleep(0.5)
        rig.aim(0.0)
        await asyncio.sleep(2.0)
        assert rig.written_w == [0.0]
        assert [i.power_w for i in rig.book.intents] == [-50_000.0, 0.0]


async def test_a_wish_that_moves_faster_than_the_disk_is_written_all_the_same() -> None:
    """A slow ledger must not keep a ramp from the device for ever."""
    async with rigged() as rig:
        rig.book.commit_s = 1.5
        for step in range(12):
            rig.aim(-10_000.0 * (step + 1))
            await asyncio.sleep(1.0)
        assert len(rig.written_w) >= 2


async def test_a_change_within_the_tolerance_is_written_but_is_no_new_intent() -> None:
    """500 W of a tolerance of 1,000 W; compared with the intent, so that small steps cannot creep away."""
    async with rigged() as rig:
        for power_w in (-50_000.0, -50_500.0, -51_000.0, -51_500.0):
            rig.aim(power_w)
            await asyncio.sleep(0.5)
        assert rig.written_w == [-50_000.0, -50_500.0, -51_000.0, -51_500.0]
        assert [i.power_w for i in rig.book.intents] == [-50_000.0, -51_500.0]


async def test_a_stale_wish_is_never_written() -> None:
    """Held up by a slow commit for longer than it is fresh, it is dropped."""
    async with rigged(fresh_s=0.5) as rig:
        rig.book.commit_s = 1.0
        rig.aim(-50_000.0)
        await asyncio.sleep(5.0)
        assert rig.written_w == []


async def test_a_wish_from_before_a_pause_of_the_process_is_never_written() -> None:
    """SIGSTOP for an hour between wish and write, as the clock sees it."""
    clock, book, device = FakeClock(), Book(), FakeDevice(CLOCK.mono_s)
    terms = Terms(Kind.BATTERY, tolerance_w=1_000.0, limit_s=2.0, fresh_s=3.0)
    actuator = Actuator("ups-1", terms, clock, book, lambda _: None)
    running = asyncio.ensure_future(actuator.run(device))
    actuator.aim(Setpoint("ups-1", -50_000.0, LEASE_S))
    clock.advance(3_600.0)
    await asyncio.sleep(1.0)
    assert device.writes == []
    actuator.aim(Setpoint("ups-1", -40_000.0, LEASE_S))
    await asyncio.sleep(1.0)
    assert [s.power_w for s in device.writes] == [-40_000.0]
    running.cancel()
    await asyncio.wait([running])


async def test_a_broken_ledger_does_not_hold_up_a_protective_write() -> None:
    """The failsafe table answers a broken ledger; the setpoint that stops a discharge goes out."""
    async with rigged() as rig:
        rig.book.is_broken = True
        rig.aim(0.0)
        await asyncio.sleep(1.0)
        assert rig.written_w == [0.0]


async def test_a_ledger_that_hangs_holds_up_a_write_for_its_limit_only() -> None:
    """Two seconds, then the newest wish is written."""
    async with rigged() as rig:
        rig.book.commit_s = 1e6
        rig.wish_w = -50_000.0
        await rig.live(4)
        assert rig.written_w == [-50_000.0]


async def test_a_trifle_waits_for_the_renewal_but_a_stop_does_not() -> None:
    """A tenth of the tolerance is not worth a write; 0 W is."""
    async with rigged() as rig:
        for power_w in (-50_000.0, -50_050.0, -60.0, 0.0):
            rig.aim(power_w)
            await asyncio.sleep(0.5)
        assert rig.written_w == [-50_000.0, -60.0, 0.0]


async def test_an_untouched_device_is_not_released() -> None:
    """Nobody ever commanded it: every cycle's release is nothing to do."""
    rig = Rig(touched=False)
    await rig.connect()
    rig.actuator.let_go()
    await asyncio.sleep(1.0)
    assert rig.device.releases == 0
    await rig.stop()


async def test_a_device_that_an_earlier_process_commanded_is_released_once() -> None:
    """At the start nobody knows; one release, with its intent, and then peace."""
    rig = Rig(touched=True)
    await rig.connect()
    for _ in range(50):
        rig.actuator.let_go()
        await asyncio.sleep(1.0)
    assert rig.device.releases == 1
    assert [i.power_w for i in rig.book.intents] == [None]
    await rig.stop()


async def test_a_release_after_a_setpoint_ends_it() -> None:
    """And a new setpoint after it is a new intent."""
    async with rigged() as rig:
        for power_w in (-50_000.0, None, -50_000.0):
            if power_w is None:
                rig.actuator.let_go()
            else:
                rig.aim(power_w)
            await asyncio.sleep(1.0)
        assert [i.power_w for i in rig.book.intents] == [-50_000.0, None, -50_000.0]
        assert rig.device.releases == 1
        assert rig.device.power_w == -50_000.0


async def test_holding_off_stops_renewal() -> None:
    """An isolated device hears nothing more; its own lease lets go."""
    async with rigged() as rig:
        rig.aim(-50_000.0)
        await asyncio.sleep(1.0)
        rig.actuator.hold_off()
        await asyncio.sleep(60.0)
        assert len(rig.written_w) == 1
        assert rig.device.power_w == 0.0


@pytest.mark.parametrize(
    ("shown_w", "outcomes", "intents"),
    [
        pytest.param(-50_000.0, [Outcome.CONFIRMED], 0, id="adopted"),
        pytest.param(20_000.0, [Outcome.REJECTED, Outcome.CONFIRMED], 1, id="follows-another"),
    ],
)
async def test_an_open_intent_of_an_earlier_process_is_read_first(
    shown_w: float | None, outcomes: list[Outcome], intents: int
) -> None:
    """Equal to its target: adopted, with no second intent. Otherwise it is closed and planned anew."""
    rig = Rig()
    rig.actuator.inherit(Intent("old", "ups-1", -50_000.0))
    if shown_w is not None:
        rig.device.setpoint = Setpoint("ups-1", shown_w, LEASE_S)
    await rig.connect()
    rig.wish_w = -50_000.0
    await rig.live(3)
    assert rig.book.news == outcomes
    assert rig.book.reports[0].intent.intent_id == "old"
    assert len(rig.book.intents) == intents
    assert rig.flags == []
    await rig.stop()


async def test_release_all_releases_at_the_same_time_and_names_who_did_not_confirm() -> None:
    """Three devices: one well, one silent, one not connected; done at the limit."""
    rigs = [Rig(), Rig(), Rig()]
    for i, rig in enumerate(rigs):
        rig.actuator.asset_id = f"ups-{i}"
        if i < 2:
            await rig.connect()
            rig.aim(-50_000.0)
    await asyncio.sleep(0.5)
    rigs[1].device.is_silent = True
    began_s = CLOCK.mono_s()
    late = await release_all([rig.actuator for rig in rigs], 5.0)
    assert late == ("ups-1", "ups-2")
    assert CLOCK.mono_s() - began_s == pytest.approx(5.0)
    assert rigs[0].device.power_w == 0.0
    for rig in rigs[:2]:
        await rig.stop()


async def test_release_goes_through_also_to_a_device_that_was_left_alone() -> None:
    """At shutdown even a device that refused is asked once more."""
    async with rigged() as rig:
        rig.device.ignores_writes = True
        rig.aim(-50_000.0)
        await asyncio.sleep(1.0)
        assert rig.flags == [True]
        assert await release_all([rig.actuator], 5.0) == ()
        assert rig.device.releases == 1


async def test_release_all_of_nothing_is_done() -> None:
    """A plant without devices stops at once."""
    assert await release_all([], 5.0) == ()


async def test_cancellation_gets_through_a_write_under_way() -> None:
    """The adapter hears it too."""
    async with rigged() as rig:
        rig.device.is_silent = True
        rig.aim(-50_000.0)
        await asyncio.sleep(0.5)
        assert rig.running is not None
        rig.running.cancel()
        await asyncio.wait([rig.running])
        assert rig.running.cancelled()

"""Refused, unknown, overwritten: what is doubtful is settled by reading, and a device that refuses is left alone."""

from __future__ import annotations

import asyncio

import pytest

from tests.runtime.rig import CLOCK, rigged
from vppd.errors import Garbled, Refused, Unreachable
from vppd.model import Applied, Kind, Outcome, Sample, Setpoint

pytestmark = pytest.mark.looptime


async def test_a_refusal_is_tried_twice_then_flagged_and_left_alone() -> None:
    """One retry at once; then no writes for the pause."""
    async with rigged() as rig:
        rig.device.write_fault = Refused("illegal data value")
        rig.wish_w = -50_000.0
        attempts = 0

        async def counted(setpoint: Setpoint) -> None:
            nonlocal attempts
            attempts += 1
            raise Refused("illegal data value")

        rig.device.apply = counted  # type: ignore[method-assign,assignment]
        await rig.live(9)
        assert attempts == 2
        assert rig.flags == [True]
        assert rig.book.news == [Outcome.REJECTED]


async def test_a_write_that_is_acknowledged_but_not_applied_is_rejected() -> None:
    """The read-back decides, not the acknowledgement."""
    async with rigged() as rig:
        rig.aim(-20_000.0)
        await asyncio.sleep(0.1)
        rig.device.ignores_writes = True
        rig.aim(-50_000.0)
        await asyncio.sleep(0.1)
        assert rig.written_w == [-20_000.0, -50_000.0, -50_000.0]
        assert rig.flags == [True]
        assert rig.book.news == [Outcome.CONFIRMED, Outcome.REJECTED]
        assert rig.book.reports[-1].power_w == -20_000.0


async def test_what_could_not_be_done_is_told_in_the_devices_words() -> None:
    """A device that does a part of it says which part is missing, and the outcome passes that on."""
    async with rigged() as rig:

        async def a_part(setpoint: Setpoint) -> Applied:
            return Applied(-20_000.0, "string 2: fuse")

        rig.device.apply = a_part  # type: ignore[method-assign]
        rig.aim(-50_000.0)
        await asyncio.sleep(0.1)
        assert rig.book.reports[-1].outcome is Outcome.REJECTED
        assert rig.book.reports[-1].detail == "reads back -20000 W, not -50000 W: string 2: fuse"


async def test_a_device_that_refuses_is_probed_with_growing_pauses() -> None:
    """After 10, 20, 40 s one try each; a success clears the flag for good."""
    async with rigged() as rig:
        rig.device.ignores_writes = True
        rig.wish_w = -50_000.0
        await rig.live(80)
        assert rig.flags == [True, False, True, False, True, False, True]
        assert len(rig.written_w) == 5
        rig.device.ignores_writes = False
        await rig.live(90)
        assert rig.flags[-1] is False
        assert rig.device.power_w == -50_000.0
        assert rig.book.news[-1] is Outcome.CONFIRMED


async def test_no_answer_is_unknown_and_settled_by_the_next_reading() -> None:
    """The write did arrive: the reading after the reconnection shows it, and nothing is written twice at once."""
    async with rigged() as rig:
        rig.device.write_fault, rig.device.writes_arrive = Unreachable("reset by peer"), True
        rig.aim(-50_000.0)
        await asyncio.sleep(0.1)
        assert rig.book.news == [Outcome.UNKNOWN]
        assert rig.running is not None
        assert rig.running.done()
        rig.device.write_fault = None
        await rig.connect()
        await asyncio.sleep(1.0)
        assert len(rig.written_w) == 1
        rig.wish_w = -50_000.0
        await rig.live(2)
        assert rig.book.news == [Outcome.UNKNOWN, Outcome.CONFIRMED]
        assert len(rig.book.intents) == 1
        assert rig.flags == []


async def test_a_write_that_did_not_arrive_is_written_again_after_reading() -> None:
    """The reading shows another setpoint: the same intent is carried out again."""
    async with rigged() as rig:
        rig.device.write_fault = Unreachable("reset by peer")
        rig.aim(-50_000.0)
        await asyncio.sleep(0.1)
        rig.device.write_fault = None
        await rig.connect()
        rig.wish_w = -50_000.0
        await rig.live(3)
        assert rig.written_w == [-50_000.0]
        assert rig.book.news == [Outcome.UNKNOWN, Outcome.CONFIRMED]
        assert len(rig.book.intents) == 1
        assert rig.flags == []


async def test_after_a_lost_answer_nothing_is_written_before_the_device_has_been_read() -> None:
    """Unknown is resolved by reading, never by assuming."""
    async with rigged() as rig:
        rig.device.write_fault = Unreachable("reset by peer")
        rig.aim(-50_000.0)
        await asyncio.sleep(0.1)
        rig.device.write_fault = None
        await rig.connect()
        rig.aim(-60_000.0)
        await asyncio.sleep(1.0)
        assert rig.written_w == []
        rig.actuator.heard(Sample(power_w=0.0), CLOCK.mono_s())
        await asyncio.sleep(0.1)
        assert rig.written_w == [-60_000.0]


async def test_a_silent_device_is_lost_at_the_limit() -> None:
    """Two seconds, outcome unknown, connection dropped."""
    async with rigged() as rig:
        rig.device.is_silent = True
        rig.aim(-50_000.0)
        await asyncio.sleep(2.1)
        assert rig.running is not None
        assert rig.running.done()
        assert rig.book.reports[0].latency_s == pytest.approx(2.0)
        assert rig.book.news == [Outcome.UNKNOWN]


async def test_a_garbled_answer_is_unknown_and_the_link_stays() -> None:
    """The next reading settles it."""
    async with rigged() as rig:
        rig.device.write_fault, rig.device.writes_arrive = Garbled("odd length"), True
        rig.wish_w = -50_000.0
        await rig.live(1)
        rig.device.write_fault = None
        await rig.live(2)
        assert rig.book.news == [Outcome.UNKNOWN, Outcome.CONFIRMED]
        assert rig.written_w == [-50_000.0]


async def test_a_device_without_a_register_is_settled_by_its_measured_power() -> None:
    """Not confirmed by the acknowledgement, but once its power is there."""
    async with rigged() as rig:
        rig.device.has_register, rig.device.ramp_w_per_s = False, 10_000.0
        rig.wish_w = -50_000.0
        await rig.live(4)
        assert rig.book.news == [Outcome.UNKNOWN]
        await rig.live(4)
        assert rig.book.news == [Outcome.UNKNOWN, Outcome.CONFIRMED]


async def test_a_device_that_forgot_its_setpoint_is_told_again() -> None:
    """A restart of the device is not a refusal."""
    async with rigged() as rig:
        rig.wish_w = -50_000.0
        await rig.live(7)
        rig.device.setpoint = None
        await rig.live(2)
        assert rig.device.power_w == -50_000.0
        assert rig.flags == []


async def test_somebody_else_who_keeps_writing_is_not_fought() -> None:
    """Once is put right; again within a minute the device is left alone."""
    async with rigged() as rig:
        rig.wish_w = -50_000.0
        for _ in range(2):
            await rig.live(7)
            rig.device.setpoint = Setpoint("ups-1", 30_000.0, 600.0)
            await rig.live(2)
        assert rig.flags[0] is True
        writes = len(rig.written_w)
        await rig.live(5)
        assert len(rig.written_w) == writes


async def test_a_lost_write_is_not_judged_by_a_reading_asked_before_it() -> None:
    """The answer that was already on its way shows the old setpoint; the write did arrive."""
    async with rigged() as rig:
        rig.device.write_fault, rig.device.writes_arrive = Garbled("odd length"), True
        rig.aim(-50_000.0)
        await asyncio.sleep(0.5)
        rig.device.write_fault = None
        rig.actuator.heard(Sample(setpoint_w=20_000.0), asked_s=-1.0)
        rig.aim(-50_000.0)
        await asyncio.sleep(0.5)
        assert len(rig.written_w) == 1
        assert rig.book.news == [Outcome.UNKNOWN]


async def test_a_reading_asked_before_the_write_proves_nothing_about_it() -> None:
    """It shows the old setpoint, and that is right."""
    async with rigged() as rig:
        rig.aim(-50_000.0)
        await asyncio.sleep(8.0)
        rig.actuator.heard(Sample(setpoint_w=0.0), asked_s=-1.0)
        await asyncio.sleep(0.1)
        assert rig.book.news == [Outcome.CONFIRMED]
        assert len(rig.written_w) == 1


async def test_a_write_whose_power_never_follows_is_rejected() -> None:
    """No register to read back and no effect: told twice, each given its time, then flagged."""
    async with rigged() as rig:
        rig.device.has_register, rig.device.ignores_writes = False, True
        rig.wish_w = -50_000.0
        await rig.live(14)
        assert (len(rig.written_w), rig.flags) == (2, [])
        await rig.live(14)
        assert rig.flags == []
        await rig.live(10)
        assert rig.flags[0] is True
        assert rig.book.news == [Outcome.UNKNOWN, Outcome.REJECTED]


async def test_a_cluster_short_of_its_budget_is_not_isolated() -> None:
    """It does what it can; isolating it would let its lease end and give all of it back."""
    async with rigged(Kind.CLUSTER) as rig:

        async def short(setpoint: Setpoint) -> Applied:
            return Applied(setpoint.power_w + 5_000.0, "short by 5000 W")

        rig.device.apply = short  # type: ignore[method-assign]
        rig.wish_w = 100_000.0
        await rig.live(3)
        assert rig.flags == []
        assert rig.book.news == [Outcome.CONFIRMED]
        assert rig.book.reports[0].power_w == 105_000.0
        assert rig.book.reports[0].detail == "short by 5000 W"

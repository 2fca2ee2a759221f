"""Makes one device follow the newest wish: intent, re-check, write, read back, outcome; renewed before the lease ends.

There is a slot, not a queue: the latest wish wins. The lease is renewed only while the control loop keeps wishing, so
a loop that hangs lets every device fall back to its own safe default.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Never, assert_never
from uuid import uuid4

import structlog

from vppd.errors import DeviceError, Garbled, Refused
from vppd.model import Outcome, Sample, Setpoint
from vppd.ports import Controllable
from vppd.runtime.clock import Clock, within
from vppd.runtime.intents import (
    Denied,
    Intent,
    IntentBook,
    Lost,
    Report,
    Result,
    Terms,
    Took,
    Wish,
    is_another,
    is_refused,
    proof,
)

log = structlog.get_logger()

CHASES = 3
"""A wish that moves on while its intent is being stored is followed this often before it is written as it is."""
RENEWALS_PER_LEASE = 3
DISTURBED_AGAIN_S = 60.0
"""A setpoint overwritten by somebody else twice within this is a device to stay away from. [s]"""


@dataclass(frozen=True, slots=True)
class _Written:
    """The last write that the device may be following."""

    power_w: float | None
    at_s: float
    """When it ended. [s]"""
    renew_s: float
    """When its lease wants renewal. [s]"""
    lost: bool = False
    """Nobody knows whether it arrived."""


class Actuator:
    """One device's writer; lives as long as the daemon, runs while the device is connected."""

    def __init__(
        self,
        asset_id: str,
        terms: Terms,
        clock: Clock,
        book: IntentBook,
        flag: Callable[[bool], None],
        *,
        touched: bool = True,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        """``flag`` is told whether the device refuses; ``touched``: an earlier process may have commanded it."""
        self.asset_id, self._terms, self._clock, self._book = asset_id, terms, clock, book
        self._flag, self._new_id, self._touched = flag, new_id, touched
        self._wish: Wish | None = None
        self._intent: Intent | None = None
        self._outcome: Outcome | None = None
        self._written: _Written | None = None
        self._inherited = self._writing = self._shows = False
        self._denials, self._disturbed_s, self._unknown_s = 0, -math.inf, math.inf
        self._barred_s, self._probe_at_s, self._pause_s = math.inf, -math.inf, terms.probe_s
        self._news, self._heard, self._released = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def aim(self, setpoint: Setpoint) -> None:
        """Follow this setpoint; the control loop says so every cycle, changed or not."""
        stale_s = self._clock.mono_s() + self._terms.fresh_s
        self._want(Wish(setpoint.power_w, stale_s, setpoint.valid_for_s, setpoint.cause, setpoint.traceparent))

    def let_go(self) -> None:
        """Give the device back to its own default, if anybody ever commanded it."""
        self._want(Wish(None, self._clock.mono_s() + self._terms.fresh_s))

    def hold_off(self) -> None:
        """Write nothing until there is a new wish; the device's lease runs out."""
        self._wish = None

    def inherit(self, intent: Intent) -> None:
        """Take over an intent of an earlier process: the device is read before anything is written."""
        self._intent, self._outcome, self._inherited, self._touched = intent, Outcome.UNKNOWN, True, True
        self._written = _Written(intent.power_w, -math.inf, -math.inf, lost=True)

    async def release(self, limit_s: float) -> None:
        """Give the device back, whatever was wished and even if it refused before; return when it has confirmed."""
        self._barred_s, self._denials, self._touched = math.inf, 0, True
        self._written = None
        self._released.clear()
        self._want(Wish(None, self._clock.mono_s() + limit_s, cause="shutdown"))
        await self._released.wait()

    def heard(self, sample: Sample, asked_s: float) -> None:
        """Judge what was written by what the device says now; ``asked_s`` is when it was asked. [s]"""
        self._heard.set()
        self._shows = self._shows or sample.setpoint_w is not None
        written = self._written
        if self._writing or written is None or self._intent is None or asked_s < written.at_s:
            return
        shown = proof(sample, written.power_w, self._terms, self._shows)
        if self._is_barred:
            self._try_to_unbar(shown is True, asked_s)
        elif shown is True and self._outcome is Outcome.UNKNOWN:
            self._confirm(written, sample.setpoint_w, "shown by a reading", 0.0)
        elif shown is None and self._is_overdue(written, sample, asked_s):
            self._deny(None, "its power never followed", 0.0)
        elif shown is False and (written.lost or asked_s >= written.at_s + self._terms.settle_s):
            self._disprove(written, sample)

    async def run(self, device: Controllable) -> Never:
        """Carry out wishes on a connected device. Raises Unreachable when it is lost."""
        await self._read_first()
        if self._written is not None:  # the device may have restarted meanwhile
            self._written = replace(self._written, renew_s=-math.inf)
        while True:
            await self._until_due()
            wish = await self._newest_intended()
            if wish is not None:
                await self._carry_out(device, wish)

    def _want(self, wish: Wish) -> None:
        self._wish = wish
        if self._due_s() <= self._clock.mono_s():
            self._news.set()

    @property
    def _is_barred(self) -> bool:
        return self._barred_s < math.inf

    def _is_fresh(self, wish: Wish) -> bool:
        return wish.not_after_s > self._clock.mono_s()

    def _due_s(self) -> float:
        """Return when the next write is due, inf for never. [s]"""
        wish, written = self._wish, self._written
        if wish is None or self._is_barred or not self._is_fresh(wish):
            return math.inf
        if wish.power_w is None and not self._touched:
            return math.inf
        if written is None or is_another(written.power_w, wish.power_w, self._terms):
            return -math.inf
        return written.renew_s

    async def _read_first(self) -> None:
        """Wait for a reading when nobody knows what the device follows."""
        if self._outcome is Outcome.UNKNOWN:
            self._heard.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._terms.settle_s):
                    await self._heard.wait()

    async def _until_due(self) -> None:
        while (due_s := self._due_s()) > (now_s := self._clock.mono_s()):
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if math.isinf(due_s) else due_s - now_s):
                    await self._news.wait()

    async def _newest_intended(self) -> Wish | None:
        """Return the wish in the slot with its intent on disk, None when there is nothing to write any more."""
        for _ in range(CHASES):
            wish = self._wish
            if wish is None or self._covers(wish):
                break
            await self._intend(wish)
        # Last look before the write, with no await in between: a pause may have made it stale.
        return self._wish if self._due_s() <= self._clock.mono_s() else None

    def _covers(self, wish: Wish) -> bool:
        intent = self._intent
        if intent is None or self._inherited or (intent.power_w is None) != (wish.power_w is None):
            return False
        return abs((intent.power_w or 0.0) - (wish.power_w or 0.0)) <= self._terms.tolerance_w

    async def _intend(self, wish: Wish) -> None:
        intent = Intent(self._new_id(), self.asset_id, wish.power_w, wish.cause, wish.traceparent)
        try:
            await within(self._terms.limit_s, self._book.intent(intent), "intent not stored")
        except DeviceError as error:
            # The failsafe table answers a failing ledger; a protective write must not wait for the disk.
            log.warning("intent_not_stored", asset=self.asset_id, reason=str(error))
        self._intent, self._outcome, self._inherited = intent, None, False

    async def _carry_out(self, device: Controllable, wish: Wish) -> None:
        began_s = self._clock.mono_s()
        self._touched = self._writing = True
        try:
            result = await self._write(device, wish)
        finally:
            self._writing = False
        ended_s = self._clock.mono_s()
        self._written = _Written(wish.power_w, ended_s, self._renew_s(wish, began_s), isinstance(result, Lost))
        self._conclude(self._written, result, ended_s - began_s)
        if isinstance(result, Lost) and not isinstance(result.error, Garbled):
            raise result.error

    def _renew_s(self, wish: Wish, began_s: float) -> float:
        """Return when the lease wants renewal; a release has none. [s]"""
        return math.inf if wish.power_w is None else began_s + wish.valid_for_s / RENEWALS_PER_LEASE

    async def _write(self, device: Controllable, wish: Wish) -> Result:
        limit_s = self._terms.limit_s
        try:
            if wish.power_w is None:
                await within(limit_s, device.release(), "no answer to a release")
                return Took(None)
            setpoint = Setpoint(self.asset_id, wish.power_w, wish.valid_for_s, wish.cause, wish.traceparent)
            applied = await within(limit_s, device.apply(setpoint), "no answer to a setpoint")
        except Refused as error:
            return Denied(str(error))
        except DeviceError as error:
            return Lost(error)
        read_w = applied.power_w
        if read_w is not None and is_refused(self._terms.kind, read_w, wish.power_w, self._terms.tolerance_w):
            said = f"reads back {read_w:.0f} W, not {wish.power_w:.0f} W"
            return Denied(f"{said}: {applied.detail}" if applied.detail else said, read_w)
        return Took(read_w, applied.detail)

    def _conclude(self, written: _Written, result: Result, latency_s: float) -> None:
        match result:
            case Took(power_w, detail) if written.power_w is None or power_w is not None:
                self._confirm(written, power_w, detail, latency_s)
            case Took(_, detail):
                self._report(Outcome.UNKNOWN, None, detail or "cannot be read back", latency_s)
            case Denied(detail, power_w):
                self._deny(power_w, detail, latency_s)
            case Lost(error):
                self._report(Outcome.UNKNOWN, None, str(error), latency_s)
            case _:
                assert_never(result)

    def _confirm(self, written: _Written, power_w: float | None, detail: str, latency_s: float) -> None:
        self._denials, self._pause_s, self._inherited = 0, self._terms.probe_s, False
        self._written = replace(written, lost=False)
        self._report(Outcome.CONFIRMED, power_w, detail, latency_s)
        if written.power_w is None:
            self._touched = False
            self._released.set()

    def _deny(self, power_w: float | None, detail: str, latency_s: float) -> None:
        """Retry once at once; then flag the device and leave it alone for a while."""
        self._denials += 1
        log.warning("setpoint_denied", asset=self.asset_id, detail=detail, denials=self._denials)
        if self._denials < 2:
            self._write_again()
            return
        self._report(Outcome.REJECTED, power_w, detail, latency_s)
        self._barred_s = self._clock.mono_s()
        self._probe_at_s = self._barred_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._terms.probe_most_s)
        self._flag(True)

    def _is_overdue(self, written: _Written, sample: Sample, asked_s: float) -> bool:
        """Say whether an acknowledged write that cannot be read back ought to be seen in the power by now."""
        is_open = self._outcome is Outcome.UNKNOWN and not written.lost and not self._inherited
        seen = sample.power_w is not None and written.power_w is not None
        return is_open and seen and asked_s - self._unknown_s > self._terms.prove_s

    def _disprove(self, written: _Written, sample: Sample) -> None:
        """A reading shows that the device does not follow what was written."""
        power_w, confirmed = sample.setpoint_w, self._outcome is Outcome.CONFIRMED
        if written.power_w is None and confirmed:
            return  # some devices show a number also when they follow none
        detail = "a reading shows " + ("none" if power_w is None else f"{power_w:.0f} W")
        if self._inherited:
            self._report(Outcome.REJECTED, power_w, detail, 0.0)
            self._intent = self._written = None
        elif written.lost or power_w is None:
            log.warning("setpoint_not_followed", asset=self.asset_id, wanted_w=written.power_w, detail=detail)
            self._write_again()
        else:
            if confirmed:  # somebody else writes to it: once may be chance, but nobody gains by a fight
                self._denials = int(self._clock.mono_s() - self._disturbed_s < DISTURBED_AGAIN_S)
                self._disturbed_s = self._clock.mono_s()
            self._deny(power_w, detail, 0.0)

    def _write_again(self) -> None:
        self._written, self._unknown_s = None, self._clock.mono_s()
        self._news.set()

    def _try_to_unbar(self, follows: bool, asked_s: float) -> None:
        """Lift the bar when the device follows after all, or when it answers and the pause is over: one more try."""
        if asked_s > self._barred_s and (follows or asked_s >= self._probe_at_s):
            log.info("setpoint_probe", asset=self.asset_id, follows_after_all=follows)
            self._barred_s, self._denials = math.inf, 1
            self._write_again()
            self._flag(False)

    def _report(self, outcome: Outcome, power_w: float | None, detail: str, latency_s: float) -> None:
        assert self._intent is not None
        is_news, self._outcome = outcome is not self._outcome, outcome
        if is_news:
            self._unknown_s = self._clock.mono_s()
        report = Report(self._intent, outcome, power_w, detail, latency_s, is_news)
        if is_news:
            say = log.debug if outcome is Outcome.CONFIRMED else log.warning
            say(
                "setpoint_outcome",
                asset=self.asset_id,
                outcome=outcome.value,
                wanted_w=self._intent.power_w,
                read_back_w=power_w,
                detail=detail,
                latency_s=round(latency_s, 4),
                cause=self._intent.cause,
                traceparent=self._intent.traceparent,
            )
        self._book.outcome(report)


async def release_all(actuators: Iterable[Actuator], limit_s: float) -> tuple[str, ...]:
    """Release all devices at the same time and return the assets that have not confirmed within the limit. [s]"""
    tasks = {asyncio.ensure_future(actuator.release(limit_s)): actuator.asset_id for actuator in actuators}
    if not tasks:
        return ()
    try:
        _, late = await asyncio.wait(tasks, timeout=limit_s)
        return tuple(sorted(tasks[task] for task in late))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

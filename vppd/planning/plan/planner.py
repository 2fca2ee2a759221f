"""Plans storage, generation and deferrable compute ahead, again and again, and says what the control loop should prefer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Never
from zoneinfo import ZoneInfo

import numpy as np
import structlog

from vppd.config.planning import PlanningConfig
from vppd.core.failsafe import Severity
from vppd.core.forecast.outlook import Outlook
from vppd.core.headroom import narrowed, standing
from vppd.core.state import Decision
from vppd.core.timetable import Timetable
from vppd.errors import Garbled, Refused, Unreachable
from vppd.model import Obligation
from vppd.planning.plan.answer import Plan, plan_of, wishes
from vppd.planning.plan.assemble import assemble
from vppd.planning.plan.deferral import SECONDS, Ledger, Measured, settled
from vppd.planning.plan.file import Kept, packed, read
from vppd.planning.plan.green_account import GreenAccount, account_at, counted, green_view
from vppd.planning.plan.known import Moment
from vppd.planning.plan.tally import Planned, Step, Tally
from vppd.planning.plan.view import plan_view
from vppd.runtime.apart import apart
from vppd.runtime.clock import Clock
from vppd.runtime.curtail_file import write
from vppd.snapshot import Floats, Plant, Snapshot

WORKER = "vppd.planning.plan.worker"
GRACE_S = 30.0
"""Beyond the solver's own limits: a busy machine takes its time to start a process. [s]"""
APART_S = 10.0
"""Between two plans at least. [s]"""
AGAIN_S = 60.0
"""A plan that failed is tried again after so long. [s]"""
STALE_S = 3600.0
"""A plan that nobody could renew for so long is followed no longer. [s]"""

UTC_ZONE = ZoneInfo("UTC")

log = structlog.get_logger()

Solve = Callable[[str, Mapping[str, Any], float], Awaitable[Any]]


class Planner:
    """Holds the newest timetable; ``run`` makes new ones, ``take`` sees every cycle, ``preferred_w`` is asked by every cycle."""

    def __init__(
        self,
        config: PlanningConfig,
        step_s: float,
        plant: Plant,
        outlook: Callable[[], Mapping[str, Outlook]],
        obligations: Callable[[datetime], Sequence[Obligation]],
        clock: Clock,
        solve: Solve = apart,
        file: Path | None = None,
        zone: ZoneInfo = UTC_ZONE,
    ) -> None:
        """``step_s``: of the forecasts' grid [s]; ``obligations``: those that are not over at a moment; ``zone``: of the calendar.

        ``file`` keeps what waits, the peak that will be billed and the green account over a restart.
        """
        self._config, self._step_s, self._plant, self._clock = config, step_s, plant, clock
        self._outlook, self._obligations, self._solve = outlook, obligations, solve
        self._defers = tuple(hours > 0.0 for hours in config.defer_h)
        self._tally = Tally(plant, step_s)
        self._last: tuple[Snapshot, Decision] | None = None
        self._plan: Plan | None = None
        self._woken = asyncio.Event()
        self._usable: Any = None
        self._orders: frozenset[str] = frozenset()
        self.ledger = Ledger()
        """Compute that waits, and how that has gone."""
        self.reason = "waits for the first readings"
        """Why there is no new plan; empty when there is."""
        self._zone = zone
        self._green: GreenAccount | None = None
        self.rounds = 0
        self.took_s = 0.0
        """The last round, all in all. [s]"""
        self._file, self._unwritten = file, False
        self._restore()

    # ---- what others ask -------------------------------------------------------------------------------------------

    @property
    def newest(self) -> Plan | None:
        """Return the newest plan, whether or not it can still be believed."""
        return self._plan

    @property
    def in_force(self) -> bool:
        """Say whether there is a plan that can be believed."""
        return self.timetable is not None

    @property
    def last_step(self) -> Step | None:
        """Return the step that ended last, planned and measured."""
        return self._tally.steps[-1] if self._tally.steps else None

    @property
    def timetable(self) -> Timetable | None:
        """Return the plan in force; None while there is none, or none that can still be believed."""
        plan = self._plan
        if plan is None or not self._holds(plan, self._clock.now()):
            return None
        return plan.timetable

    def preferred_w(self, at: datetime) -> Floats | None:
        """Return what the plan wishes of each asset now, (n,), NaN for nothing; None without a plan to follow. [W]

        What is sold and can be asked for now is left alone.
        """
        plan, last = self._plan, self._last
        if not self._config.economics or plan is None or last is None or not self._holds(plan, at):
            return None
        snapshot, decision = last
        found_w = wishes(plan, at, snapshot.readings, self._defers, self._plant)
        sold = self._obligations(at)
        if found_w is None or not sold:
            return found_w
        return narrowed(found_w, sold, at, standing(snapshot.readings, decision, self._plant), self._plant)

    def wake(self) -> None:
        """Have a new plan made soon: something has changed that the plan rests on."""
        self._woken.set()

    def take(self, snapshot: Snapshot, decision: Decision) -> None:
        """Look at one cycle: what was measured, who came or went, which orders came or went."""
        first, self._last = self._last is None, (snapshot, decision)
        ended = self._tally.take(snapshot, decision)
        if ended is not None:
            self._close(ended)
        usable = decision.state.counted & (decision.severity < Severity.PROTECT)
        orders = frozenset(order.order_id for order in snapshot.orders)
        changed = self._usable is not None and (orders != self._orders or not np.array_equal(usable, self._usable))
        self._usable, self._orders = usable, orders
        if first or changed:
            self.wake()

    def view(self) -> dict[str, Any]:
        """Return the plan, the day so far and what waits, as plain JSON values."""
        now = self._clock.now()
        head = {
            "at": now.isoformat(),
            "in_force": self.in_force,
            "economics": self._config.economics,
            "reason": self.reason,
            "rounds": self.rounds,
            "took_s": round(self.took_s, 3),
        }
        green = {"green": green_view(self._green_at(now), self._config)}
        return head | green | plan_view(self._plan, list(self._tally.steps), self.ledger, self._plant, now)

    # ---- planning --------------------------------------------------------------------------------------------------

    async def run(self) -> Never:
        """Plan whenever it is due, for ever; at most one plan is made at a time."""
        await self._woken.wait()
        while True:
            self._woken.clear()
            began_s = self._clock.mono_s()
            await self.round()
            await self._keep()
            await asyncio.sleep(APART_S)
            left_s = (AGAIN_S if self.reason else self._config.replan_s) - (self._clock.mono_s() - began_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(left_s, 0.0)):
                    await self._woken.wait()

    async def round(self) -> None:
        """Make one plan; when that fails the old one stays for as long as it can be believed, and ``reason`` says why."""
        if self._last is None:
            return
        outlook = self._outlook()
        if not outlook:
            self.reason = "waits for the first forecasts"  # as every start does: nothing to warn of
            return
        began_s, now = self._clock.mono_s(), self._clock.now()
        moment = Moment(*self._last, self._tally.stored_wh, self._tally.peak_w, self._green_at(now))
        sold = [o for o in self._obligations(now) if not o.is_over(now)]
        try:
            problem = assemble(moment, self._plant, self._outlook(), sold, self.ledger.owed, self._config, self._step_s)
            answer = await self._solve(WORKER, problem.document, 2.0 * self._config.time_limit_s + GRACE_S)
        except (Unreachable, Refused) as error:
            self._tell(str(error))
            return
        finally:
            self.took_s = self._clock.mono_s() - began_s
        if answer["cost"] is None:
            self._tell("no plan: " + "; ".join(answer["conflicts"]))
            return
        self._plan, self.rounds = plan_of(problem, answer, now, self._plant), self.rounds + 1
        self._tell("")
        self._tell_conflicts(self._plan.timetable)

    def _holds(self, plan: Plan, at: datetime) -> bool:
        """Say whether a plan is young enough and reaches to ``at``."""
        young = (at - plan.timetable.made_at) <= timedelta(seconds=max(STALE_S, 3.0 * self._config.replan_s))
        return young and plan.timetable.step_at(at) is not None

    def _close(self, start: datetime) -> None:
        """Put a step that is over into the day, and settle what has run of the work that may wait."""
        plan = self._plan
        index = None if plan is None else plan.timetable.step_at(start)
        planned = None if plan is None or index is None else _planned(plan, index)
        step = self._tally.close(start, planned)
        chunks = () if plan is None or index is None else plan.chunks
        budgets = {} if planned is None else dict(zip(self._plant.asset_ids, planned.power_w.tolist(), strict=True))
        self.ledger = settled(
            self.ledger, index or 0, chunks, _measured(step, self._plant), budgets,
            start + timedelta(seconds=self._step_s), self._step_s / SECONDS,
        )  # fmt: skip
        account = self._green_at(start)
        if account is not None:
            contracted_w = 0.0 if plan is None or index is None else float(plan.assembled.contracted_w[index])
            hours = self._step_s / SECONDS
            self._green = counted(account, step, contracted_w, hours, self._plant, self._config)
        self._unwritten = True

    def _green_at(self, at: datetime) -> GreenAccount | None:
        """Return the green account of the period that a moment lies in, None where no rule asks for one."""
        terms = self._config
        if terms.green_load_frac is None and terms.green_self_use_frac is None:
            return None
        return account_at(self._green, at, terms.green_period, self._zone)

    def _restore(self) -> None:
        """Go on with what an earlier process left."""
        if self._file is None:
            return
        try:
            kept = read(self._file)
        except Garbled as error:
            log.error("deferred_work_forgotten", reason=str(error))
            return
        if kept is not None:
            self.ledger = kept.ledger
            self._tally.month, self._tally.peak_w = kept.month, kept.peak_w
            self._green = kept.green

    async def _keep(self) -> None:
        if self._file is None or not self._unwritten:
            return
        self._unwritten = False
        blob = packed(Kept(self.ledger, self._tally.month, self._tally.peak_w, self._green))
        try:
            await asyncio.to_thread(write, self._file, blob)
        except OSError as error:
            self._unwritten = True
            log.error("deferred_work_not_kept", reason=str(error))

    def _tell(self, reason: str) -> None:
        if reason and reason != self.reason:
            log.warning("plan_failed", reason=reason, old_plan_in_force=self.timetable is not None)
        elif self.reason and not reason:
            log.info("planned", rounds=self.rounds, took_s=round(self.took_s, 3))
        self.reason = reason

    def _tell_conflicts(self, timetable: Timetable) -> None:
        if timetable.conflicts:
            log.warning("plan_gives_up", conflicts=list(timetable.conflicts))


def _planned(plan: Plan, index: int) -> Planned:
    table = plan.timetable
    return Planned(
        power_w=table.power_w[:, index],
        import_w=float(table.import_w[index]),
        renewable_w=float(table.renewable_w[index]),
        price_per_wh=float(plan.assembled.price_import_per_wh[index]),
    )


def _measured(step: Step, plant: Plant) -> dict[str, Measured]:
    """Return what each asset did, of those that were measured."""
    rows = zip(plant.asset_ids, step.power_w.tolist(), step.unheld_w.tolist(), strict=True)
    return {
        name: Measured(drawn_w, free_w) for name, drawn_w, free_w in rows if drawn_w == drawn_w and free_w == free_w
    }

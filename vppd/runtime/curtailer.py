"""The planner of one cluster: keeps its jobs' accounts, learns their curves, and says which of them give how much.

An adapter shows it the cluster as read back, at each reading and at each setpoint; what was found in force is charged, what the
meter shows beyond what was expected makes the next plan go deeper. It outlives reconnections, and its accounts the process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
import structlog

from vppd.core.curtail.accounts import allowed_s
from vppd.core.curtail.books import Books, Look, blank, looked
from vppd.core.curtail.ceiling import Ceiling, ahead, followed
from vppd.core.curtail.classes import Classes, classes
from vppd.core.curtail.gangs import Gangs, alike, gangs_of, rows_of
from vppd.core.curtail.learn import observed
from vppd.core.curtail.plan import Jobs, Plan, State, plan
from vppd.core.curtail.sheddable import sheddable_w
from vppd.core.curtail.tracking import Track, seen, untracked, wished
from vppd.core.curtail.workload_columns import Columns, columns_of
from vppd.runtime.curtailer_story import Reasons, Story
from vppd.runtime.verification import Verification
from vppd.snapshot import Bools, Floats
from vppd.workload import Curtailment, Workload

SETTLE_S = 10.0
"""A level that has stood for so long is seen in the power. [s]"""
OBSERVE_S = 10.0
"""Curves take an observation at most this often. [s]"""
LONGEST_STEP_S = 30.0
"""A plan is kept for so long when nothing changes; windows are divided into at least 60 of it. [s]"""
REACTION_S = 5.0
"""Held back of every account, at most a tenth of it: what is decided takes time to happen. [s]"""
LAPSED_S = 20.0
"""A wish that the adapter has not asked for again in so long is none any more. [s]"""
BAR_S = 120.0
"""A job that did not follow is left alone for so long. [s]"""
DEFAULT_HORIZON_S = 3600.0
"""Looked ahead at most; without an order what could be shed is told for so long. [s]"""
AT_ONCE_S = 60.0
"""For an order without an end what could be shed is told for the next minute: as long as the accounts last. [s]"""
SAME_FRAC = 0.002
"""A budget that moves by less asks for no new plan. [0-1]"""
SPARE_FRAC = 0.02
"""More than this part of the cluster's power to give back asks for one. [0-1]"""
FREE_FRAC = 0.999
"""A level from here on is full speed. [0-1]"""
_ROUND = 1000.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Terms:
    """How one cluster's jobs are treated."""

    window_s: float = 3600.0
    """In every window of this length a job loses no more than its tier accepts. [s]"""
    margin_frac: float = 0.01
    """Held below the budget. [0-1]"""
    ramp_s: float = 30.0
    """What is told has to show at the meter by then. [s]"""
    restore_s: float = 15.0
    """Power that was held comes back over no less than this. [s]"""

    @property
    def step_s(self) -> float:
        """Return for how long a plan is made. [s]"""
        return min(LONGEST_STEP_S, max(self.window_s / 60.0, 1.0))


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """The plan in force and for what it was made."""

    answer: Curtailment
    ids: tuple[str, ...]
    level_frac: Floats
    paused: Bools
    budget_w: float
    until_s: float


class Curtailer:
    """Implements ``ports.Planner`` for one cluster."""

    def __init__(
        self,
        asset_id: str,
        terms: Terms,
        mono_s: Callable[[], float],
        horizon_s: Callable[[], float] = lambda: DEFAULT_HORIZON_S,
        known: tuple[Books, Classes] | None = None,
        is_short: Callable[[], bool] = lambda: False,
    ) -> None:
        """``horizon_s``: until the order in force ends, inf for no end, 0 for no order [s]; ``known``: of an earlier process.

        ``is_short``: what can be held to the end of the order is too little, so what can be given for a while counts.
        """
        self.asset_id, self._terms, self._mono_s, self._horizon_s = asset_id, terms, mono_s, horizon_s
        self._is_short = is_short
        self.books, self.classes = known or (blank(terms.window_s, mono_s()), classes())
        self.verification = Verification(asset_id, terms.ramp_s)
        self._track: Track = untracked()
        self._ceiling: Ceiling | None = None
        self._full_w = 0.0
        self._kept: _Kept | None = None
        self._story: Story | None = None
        self._learned_s = self._planned_s = -np.inf
        self.measured_w = np.nan
        """What the cluster drew at the last look. [W]"""

    @property
    def story(self) -> Story | None:
        """Return the newest plan with all that led to it, None before the first."""
        return self._story

    @property
    def comes_back(self) -> bool:
        """Say whether power that was held is still on its way back; not for longer than that can take."""
        if self._ceiling is None:
            return False
        missing_w = self._full_w - self._ceiling.most_w
        return self._mono_s() < self._ceiling.at_s + missing_w / self._ceiling.rate_w_per_s + self._terms.step_s

    def plan(self, workload: Workload, budget_w: float, now_s: float) -> Curtailment:
        """Return what is to be in force from ``now_s`` [s] so that the cluster draws at most ``budget_w``. [W]"""
        columns = self._look(workload, now_s)
        self._planned_s = now_s
        in_force_w = workload.rest_w + float(columns.drawn_w(self.classes).sum())
        settled = bool((now_s - self._track.steady_s >= SETTLE_S).all())
        self.verification.measured(workload.power_w, in_force_w, budget_w, settled=settled, now_s=now_s)
        aim_w = budget_w * (1.0 - self._terms.margin_frac) - self.verification.correction_w
        full_w = workload.rest_w + float(columns.full_w.sum())
        self._full_w = full_w
        self._ceiling = followed(self._ceiling, aim_w, full_w, now_s, self._terms.restore_s)
        kept = self._kept
        if kept is None or not self._still_holds(kept, columns, workload.rest_w, budget_w, aim_w, full_w, now_s):
            kept = self._anew(columns, workload, budget_w, aim_w, now_s)
        return kept.answer

    def shed_w(self, workload: Workload) -> tuple[float, ...]:
        """Return what could be shed all the time until the order ends, or for an hour, by flex tier 0-3. [W, >= 0]"""
        now_s = self._mono_s()
        columns = self._look(workload, now_s)
        _, jobs, state = self._rows(columns, now_s)
        horizon_s, step_s = self._horizon_s() or DEFAULT_HORIZON_S, self._terms.step_s
        for_now = self._is_short() or np.isinf(horizon_s)
        horizon_s = min(horizon_s, AT_ONCE_S if for_now else DEFAULT_HORIZON_S)
        most_w = sheddable_w(self.classes.curves, jobs, state, now_s, max(horizon_s, step_s), step_s)
        # The margin below a budget has to be shed too, so it cannot be counted on.
        total_w, full_w = sum(most_w), workload.rest_w + float(columns.full_w.sum())
        margin_frac = self._terms.margin_frac
        sure_w = max(total_w - margin_frac * full_w, 0.0) / (1.0 - margin_frac)
        return tuple(shed_w * sure_w / total_w if total_w > 0.0 else 0.0 for shed_w in most_w)

    def released(self) -> None:
        """Note that the cluster was given back: nothing that was found in force is in force any more."""
        n = len(self.books.ids)
        self.books = replace(self.books, lost_frac=np.zeros(n), paused=np.zeros(n, dtype=np.bool_))

    def let_go(self) -> None:
        """Note that the cluster is given back while we go on: who goes on now does not refuse, and the next cut begins anew."""
        n = len(self._track.ids)
        self._track = wished(self._track, np.ones(n), np.zeros(n, dtype=np.bool_), self._mono_s())
        self._kept = self._ceiling = self._story = None
        self.verification.planned(0.0, 0.0, 0.0, is_free=True, now_s=self._mono_s())

    # ---- what was found --------------------------------------------------------------------------------------------

    def _look(self, workload: Workload, now_s: float) -> Columns:
        """Charge what is in force, see who follows, and learn."""
        self.measured_w = workload.power_w
        columns, self.classes = columns_of(workload.jobs, self.classes)
        look = Look(
            columns.ids, columns.tier, columns.lost_frac(self.classes), columns.paused, columns.restart_s, columns.checkpoint_s
        )  # fmt: skip
        self.books = looked(self.books, look, now_s)
        if now_s - self._planned_s > LAPSED_S and not self._track.is_free:
            self.let_go()  # nobody has asked for long: a lost link or a lease that ran out, and no refusal
        barred = int((self._track.barred_s > now_s).sum())
        self._track = seen(
            self._track, columns.ids, columns.level_frac, columns.paused, now_s, self._terms.ramp_s, BAR_S
        )
        if (refusing := int((self._track.barred_s > now_s).sum())) > barred:
            log.warning("jobs_do_not_follow", asset=self.asset_id, jobs=refusing)
            self._kept = None
        self._learn(columns, now_s)
        return columns

    def _learn(self, columns: Columns, now_s: float) -> None:
        """Take one observation of every class from jobs that have stood under their level for a while."""
        if now_s - self._learned_s < OBSERVE_S:
            return
        tells = np.isfinite(columns.power_w) & ~columns.paused & (columns.level_frac < FREE_FRAC)
        tells &= (now_s - self._track.steady_s >= SETTLE_S) & (columns.full_w > 0.0)
        tells &= self.books.owed_s[: self.books.present] <= 0.0
        if not tells.any():
            return
        self._learned_s = now_s
        drawn_frac = np.clip(columns.power_w[tells] / columns.full_w[tells], 0.0, 1.0)
        unknown = np.full(len(drawn_frac), np.nan)
        self.classes = self.classes.taught(
            observed(
                self.classes.learned, columns.kind[tells], columns.level_frac[tells], drawn_frac, unknown,
                columns.gpus[tells],
            )
        )  # fmt: skip

    # ---- what is to be done ----------------------------------------------------------------------------------------

    def _still_holds(
        self, kept: _Kept, columns: Columns, rest_w: float, budget_w: float, aim_w: float, full_w: float, now_s: float
    ) -> bool:
        """Say whether the plan in force still does, for what is believed now."""
        if now_s >= kept.until_s or kept.ids != columns.ids:
            return False
        if abs(budget_w - kept.budget_w) > SAME_FRAC * max(abs(budget_w), 1.0):
            return False
        would_w = rest_w + float(columns.would_draw_w(self.classes, kept.level_frac, kept.paused).sum())
        most_w = aim_w if self._ceiling is None else min(aim_w, self._ceiling.most_at_w(now_s))
        spare_w = min(most_w, full_w) - would_w
        return -SAME_FRAC * full_w - kept.answer.short_w <= spare_w <= SPARE_FRAC * full_w

    def _anew(self, columns: Columns, workload: Workload, budget_w: float, aim_w: float, now_s: float) -> _Kept:
        gangs, jobs, state = self._rows(columns, now_s)
        step_s = self._terms.step_s
        horizon_s = min(max(self._horizon_s(), step_s), DEFAULT_HORIZON_S)
        budget = ahead(self._ceiling, aim_w, workload.rest_w, now_s, horizon_s, step_s)
        found = plan(self.classes.curves, jobs, state, budget, now_s)
        if budget.soft[0] and workload.rest_w + found.expected_w > aim_w:
            # What yields to the accounts is the spreading, not the budget.
            budget = ahead(None, aim_w, workload.rest_w, now_s, horizon_s, step_s)
            found = plan(self.classes.curves, jobs, state, budget, now_s)
        level_frac, paused = _spread(found, gangs, columns)
        drawn_w = columns.would_draw_w(self.classes, level_frac, paused)
        expected_w = workload.rest_w + float(drawn_w.sum())
        reasons = Reasons(columns, self.classes, self._left_s(columns, now_s), level_frac, paused)
        slowed = (level_frac < 1.0) & ~paused
        answer = Curtailment(
            level_frac=dict(zip(compress(columns.ids, slowed.tolist()), level_frac[slowed].tolist(), strict=True)),
            paused=frozenset(compress(columns.ids, paused.tolist())),
            expected_w=expected_w,
            short_w=expected_w - aim_w if expected_w - aim_w > SAME_FRAC * expected_w and not budget.soft[0] else 0.0,
            reasons=reasons,
        )
        self._track = wished(self._track, level_frac, paused, now_s)
        unheld_w = workload.power_w + float((columns.full_w - columns.drawn_w(self.classes)).sum())
        self.verification.planned(
            unheld_w, budget_w, expected_w, is_free=self._track.is_free and self._ceiling is None, now_s=now_s
        )
        barred = self._track.barred_s > now_s
        self._story = Story(now_s, budget_w, aim_w, workload, answer, reasons, barred, horizon_s, bool(budget.soft[0]))
        self._kept = _Kept(answer, columns.ids, level_frac, paused, budget_w, now_s + step_s)
        return self._kept

    def _rows(self, columns: Columns, now_s: float) -> tuple[Gangs, Jobs, State]:
        """Return the planner's rows and what went before; who does not follow is left out."""
        follows = self._track.barred_s <= now_s
        slowed = alike(columns, columns.slowable & follows)
        gangs = gangs_of(columns, slowed)
        jobs = rows_of(columns, gangs, self.classes.curves, slowed, columns.pausable & follows)
        books, n = self.books, self.books.present
        window_s = books.accounts.window_s
        allowed = allowed_s(jobs.tier, window_s)
        held_back_s = np.minimum(REACTION_S, 0.1 * allowed)
        jobs = replace(jobs, slack_s=np.minimum(jobs.slack_s, allowed - held_back_s))
        state = State(
            accounts=gangs.worst(books.present_accounts()),
            paused=gangs.some(books.paused[:n]),
            since_s=gangs.most(books.since_s[:n]),
            owed_s=gangs.most(books.owed_s[:n]),
        )
        return gangs, jobs, state

    def _left_s(self, columns: Columns, now_s: float) -> Floats:
        """Return what is left in each job's account, (n,). [s]"""
        accounts = self.books.present_accounts()
        spent_s = accounts.since_s(now_s - accounts.window_s)
        return np.maximum(allowed_s(columns.tier, accounts.window_s) - spent_s, 0.0)


def _spread(found: Plan, gangs: Gangs, columns: Columns) -> tuple[Floats, Bools]:
    """Return level and pause of every job from those of its row; levels in whole thousandths, downwards."""
    paused = found.paused[gangs.row] & columns.pausable
    level_frac = np.floor(found.cap_w[gangs.row] * _ROUND + 1e-6) / _ROUND
    level_frac = np.clip(np.maximum(level_frac, columns.floor_frac), 0.0, 1.0)
    return np.where(paused | (level_frac >= FREE_FRAC), 1.0, level_frac), paused

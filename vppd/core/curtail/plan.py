"""Which jobs give how much now, so that power follows its budget and every job keeps the promise of its tier. Pure.

Called once per step. What is still to come of the budget is looked at first: it says how much of its account each job may
use in this step, and how many must be paused on average; then the step itself is divided, exactly where jobs are few.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vppd.core.curtail.accounts import Accounts
from vppd.core.curtail.curves import Curves
from vppd.core.curtail.prospect import Budget, Prospect, prospect
from vppd.core.curtail.shed import NO_PAUSE, TINY_W, Ask, Shed, corners, freed_w, relax, rounded, settled
from vppd.core.curtail.shed_exact import exact
from vppd.snapshot import Bools, Floats, Ints

FEW_JOBS = 64
"""Up to so many jobs the best division is searched for."""
MOVES_FRAC = 0.05
"""No more of the pausable jobs than this change places in one step, so that pauses do not end together."""


@dataclass(frozen=True, slots=True, eq=False)
class Jobs:
    """n running jobs, in columns. A job has one cap on all its GPUs: a gang is as slow as its slowest."""

    curve: Ints
    """(n,) rows of the curves."""
    gpus: Floats
    tier: Ints
    weight: Floats
    """(n,) importance of the throughput of one GPU."""
    watt_factor: Floats
    """(n,) measured power over the curve's."""
    pausable: Bools
    restart_s: Floats
    """(n,) after a pause the job draws power and does nothing for so long. [s]"""
    checkpoint_s: Floats
    """(n,) work lost by pausing. [s]"""
    least_run_s: Floats
    least_pause_s: Floats
    most_pause_s: Floats
    slack_s: Floats
    """(n,) how much later the job may end for its deadline; inf without one. [s]"""
    kept_w: Floats | None = None
    """(n,) drawn while paused, per GPU before ``watt_factor``; None: as idle as the curves say. [W]"""
    deepest_lost_frac: Floats | None = None
    """(n,) what the deepest cap that can be set loses; None: any cap of the curves. [0-1]"""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What went before."""

    accounts: Accounts
    paused: Bools
    since_s: Floats
    """(n,) when the job was last paused or resumed; -inf for never. [s]"""
    owed_s: Floats
    """(n,) restart time that is still to be lost, of paused jobs the whole. [s]"""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is in force during the step."""

    cap_w: Floats
    """(n,) per GPU; 0 is paused. [W]"""
    paused: Bools
    expected_w: float
    short_w: float
    """What the budget would still need, and nobody can give. [W]"""


def plan(curves: Curves, jobs: Jobs, state: State, budget: Budget, now_s: float) -> Plan:
    """Return caps and pauses from ``now_s`` to the end of the budget's first step."""
    uncapped_w = float((jobs.gpus * jobs.watt_factor * curves.power_w[jobs.curve, -1]).sum())
    ahead = prospect(budget, state.accounts, jobs.tier, jobs.slack_s, state.owed_s, uncapped_w, now_s)
    turns = _turns(jobs, state, ahead, now_s)
    need_w = ahead.need_w * (1.0 + 1e-9)
    shed = _divide(curves, jobs, ahead, turns, need_w)
    paused = shed.paused_frac > 0.5
    cap_w = np.where(paused, 0.0, curves.depth.cap_at_w(jobs.curve, shed.capped_w))
    ask = _ask(curves, jobs, turns, ahead.rate_frac, turns.may)
    return Plan(cap_w, paused, uncapped_w - freed_w(curves, ask, shed), shed.short_w)


@dataclass(frozen=True, slots=True, eq=False)
class _Turns:
    """Whose turn it may be to pause."""

    may: Bools
    must: Bools
    """Paused too short a time to be resumed."""
    covers: Bools
    """The account lasts to the end of the need."""
    lost_frac: Floats
    """What a pause costs per second of it, the restart included."""
    last_s: Floats
    """For how long the job may (go on to) be paused. [s]"""
    rank: Floats


def _turns(jobs: Jobs, state: State, ahead: Prospect, now_s: float) -> _Turns:
    """Return who may be paused in this step, and who had better be."""
    elapsed_s = now_s - state.since_s
    cost_s = np.where(state.paused, 0.0, jobs.restart_s + jobs.checkpoint_s)
    most_s = np.where(state.paused, jobs.most_pause_s - np.where(state.paused, elapsed_s, 0.0), jobs.most_pause_s)
    last_s = np.minimum(np.where(state.paused, ahead.hard_s, ahead.share_s) - cost_s, most_s)
    starts = ~state.paused & (elapsed_s >= jobs.least_run_s) & (state.owed_s <= 0.0)
    starts &= last_s >= np.maximum(jobs.least_pause_s, ahead.step_s) - 1e-6
    goes_on = state.paused & (last_s >= ahead.step_s - 1e-6)
    may = jobs.pausable & (starts | goes_on)
    block_s = np.maximum(np.minimum(last_s, ahead.rest_s), ahead.step_s)
    return _Turns(
        may=may,
        must=goes_on & (elapsed_s < jobs.least_pause_s - 1e-6),
        covers=may & (np.minimum(last_s, ahead.share_s - cost_s) >= ahead.rest_s - 1e-6),
        lost_frac=1.0 + cost_s / block_s,
        last_s=last_s,
        rank=_rank(state.paused, last_s, ahead, most_moves=int(np.ceil(MOVES_FRAC * jobs.pausable.sum()))),
    )


def _rank(paused: Bools, last_s: Floats, ahead: Prospect, most_moves: int) -> Floats:
    """Return the order of pausing: who is paused already, then who has most left; a few paused ones go early to make room.

    Pauses that would all end together are ended one after another, before their time.
    """
    tired = np.zeros(len(paused), dtype=np.bool_)
    ending = np.flatnonzero(paused & (last_s < ahead.rest_s - 1e-6))
    if len(ending) > most_moves:
        ending = ending[np.argsort(last_s[ending], kind="stable")]
        steps_left = np.maximum(np.floor(last_s[ending] / ahead.step_s + 1e-9), 0.0)
        excess = np.arange(1, len(ending) + 1) - most_moves * steps_left
        tired[ending[: max(0, int(excess.max()))]] = True
    far_s = 1.0 + float(last_s.max(initial=0.0, where=np.isfinite(last_s)))
    return np.where(tired, 2.0 * far_s, np.where(paused, -far_s, 0.0)) - np.minimum(last_s, far_s)


def _divide(curves: Curves, jobs: Jobs, ahead: Prospect, turns: _Turns, need_w: float) -> Shed:
    """Return the division of the step; when the planned shares of the accounts do not do, all that is left in them."""
    planned = _ask(curves, jobs, turns, ahead.rate_frac, turns.may)
    planned = replace(planned, points=corners(curves, planned))
    loose = _relax_beside(curves, planned, turns.must, need_w)
    many, enough = len(turns.may) > FEW_JOBS, loose.short_w <= TINY_W
    if many and enough and not loose.paused_frac.any() and not turns.must.any():
        return settled(curves, planned, loose)
    if enough or ahead.soft or not many:
        chosen = turns.must | turns.covers | _by_turns(curves, planned, turns, loose)
        shed = _best(curves, replace(planned, pause_lost_frac=_only(planned, chosen)), turns.must, need_w)
        if shed.short_w <= TINY_W or ahead.soft:
            return shed
    return _best(curves, _ask(curves, jobs, turns, ahead.hard_s / ahead.step_s, turns.may), turns.must, need_w)


def _ask(curves: Curves, jobs: Jobs, turns: _Turns, most_lost_frac: Floats, may_pause: Bools) -> Ask:
    if jobs.deepest_lost_frac is not None:
        most_lost_frac = np.minimum(most_lost_frac, jobs.deepest_lost_frac)
    return Ask(
        curve=jobs.curve,
        gpus=jobs.gpus,
        watt_factor=jobs.watt_factor,
        weight=jobs.weight,
        most_lost_frac=most_lost_frac,
        pause_lost_frac=np.where(may_pause, turns.lost_frac, NO_PAUSE),
        rank=turns.rank,
        pause_saved_w=None if jobs.kept_w is None else curves.power_w[jobs.curve, -1] - jobs.kept_w,
    )


def _only(ask: Ask, chosen: Bools) -> Floats:
    return np.where(chosen, ask.pause_lost_frac, NO_PAUSE)


def _by_turns(curves: Curves, ask: Ask, turns: _Turns, loose: Shed) -> Bools:
    """Return whose turn it is among those who cannot pause to the end: as many as are paused on average."""
    chosen = np.zeros(len(turns.may), dtype=np.bool_)
    partly = np.flatnonzero((loose.paused_frac > 0.0) & ~turns.covers & ~turns.must)
    if not len(partly):
        return chosen
    whole_w = (ask.pause_w(curves) * ask.gpus * ask.watt_factor)[partly]
    wanted_w = float((whole_w * loose.paused_frac[partly]).sum())
    order = np.argsort(turns.rank[partly], kind="stable")
    before_w = np.cumsum(whole_w[order]) - whole_w[order]
    chosen[partly[order[before_w < wanted_w - TINY_W]]] = True
    return chosen


def _relax_beside(curves: Curves, ask: Ask, must: Bools, need_w: float) -> Shed:
    """Return the average over the time to come, beside those who stay paused anyway."""
    pause_w = ask.pause_w(curves) * ask.gpus * ask.watt_factor
    rest = replace(ask, gpus=np.where(must, 0.0, ask.gpus))
    return relax(curves, rest, need_w - float(pause_w[must].sum()), average=True)


def _best(curves: Curves, ask: Ask, must: Bools, need_w: float) -> Shed:
    """Return the division of the step beside those who stay paused anyway."""
    pause_w = ask.pause_w(curves) * ask.gpus * ask.watt_factor
    rest = replace(ask, gpus=np.where(must, 0.0, ask.gpus), pause_lost_frac=_only(ask, ~must))
    left_w = need_w - float(pause_w[must].sum())
    shed = exact(curves, rest, left_w) if len(must) <= FEW_JOBS else rounded(curves, rest, left_w)
    return replace(shed, paused_frac=np.where(must, 1.0, shed.paused_frac))

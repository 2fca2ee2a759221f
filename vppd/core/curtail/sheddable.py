"""What could be shed for some time without overdrawing an account: what a cluster may be counted on for. Pure."""

from __future__ import annotations

import numpy as np

from vppd.core.curtail.accounts import Accounts, allowed_s
from vppd.core.curtail.books import STEPS_PER_WINDOW
from vppd.core.curtail.curves import Curves
from vppd.core.curtail.plan import Jobs, State
from vppd.core.curtail.shed import NO_PAUSE, Ask, relax
from vppd.model import TIERS
from vppd.snapshot import Floats

SURE_FRAC = 0.97
"""Of what an account bears: levels are rounded downwards, and what was decided lasts a moment longer. [0-1]"""
_LOOKS = 6
"""Times within the horizon at which the accounts are looked at."""


def sheddable_w(
    curves: Curves, jobs: Jobs, state: State, now_s: float, horizon_s: float, step_s: float
) -> tuple[float, ...]:
    """Return the power that can be freed for all of ``horizon_s``, by tier 0-3: caps, and pauses in turns. [W]

    Jobs that cannot be paused all the time relieve one another; as the last of a round may be missing, one is not counted.
    """
    rate_frac, left_s = _affordable(jobs, state, now_s, horizon_s)
    pause_lost = _pause_lost(jobs, state, left_s, now_s, horizon_s, step_s)
    deepest = rate_frac if jobs.deepest_lost_frac is None else np.minimum(rate_frac, jobs.deepest_lost_frac)
    pause_saved_w = curves.power_w[jobs.curve, -1] - (0.0 if jobs.kept_w is None else jobs.kept_w)
    n = len(jobs.tier)
    caps = Ask(jobs.curve, jobs.gpus, jobs.watt_factor, jobs.weight, deepest, np.full(n, NO_PAUSE), np.zeros(n))
    capped_w = relax(curves, caps, np.inf).capped_w
    spare = rate_frac - np.minimum(curves.depth.lost_at_frac(jobs.curve, capped_w), rate_frac)
    lost_more = np.maximum(pause_lost - (rate_frac - spare), 1e-9)
    share = np.where(np.isfinite(pause_lost), np.clip(spare / lost_more, 0.0, 1.0), 0.0)
    only = np.where(np.isfinite(pause_lost), np.clip(rate_frac / pause_lost, 0.0, 1.0), 0.0)
    return _by_tier(jobs, capped_w, pause_saved_w, share, only)


def _by_tier(jobs: Jobs, capped_w: Floats, pause_saved_w: Floats, share: Floats, only: Floats) -> tuple[float, ...]:
    """Return what each tier frees: by caps and pauses for all of the time, or by pauses in turns where that is more. [W]

    Jobs under caps that relieve one another in pauses free a little more, at the edge of every account: not counted on.
    """
    watts = jobs.gpus * jobs.watt_factor
    cap_w, pause_w = watts * capped_w, watts * pause_saved_w
    found = []
    for tier in range(TIERS):
        mine = (jobs.tier == tier) & (tier > 0)
        beside_w = np.where(share >= 1.0, np.maximum(pause_w, cap_w), cap_w)[mine].sum()
        found.append(max(float(beside_w), _in_turns_w(only[mine], pause_w[mine])))
    return tuple(found)


def _in_turns_w(share: Floats, each_w: Floats) -> float:
    """Return what is freed at every moment by jobs that pause for a share of the time each. [W]"""
    whole = share >= 1.0
    part, part_w = share[~whole], each_w[~whole]
    turning = part > 0.0
    if not turning.any():
        return float(each_w[whole].sum())
    rounds_w = np.floor(part.sum() + 1e-6) * part_w[turning].min()
    most_w = (part * part_w).sum() - part_w[turning].max()
    return float(each_w[whole].sum() + max(rounds_w, most_w))


def _affordable(jobs: Jobs, state: State, now_s: float, horizon_s: float) -> tuple[Floats, Floats]:
    """Return the loss that every account bears all the time, (n,), and what is left in it at the end, (n,). [s]"""
    accounts: Accounts = state.accounts
    most_s = np.minimum(allowed_s(jobs.tier, accounts.window_s), np.maximum(jobs.slack_s, 0.0)) - state.owed_s
    rate, left_s = np.full(len(jobs.tier), np.inf), most_s
    span_s = min(horizon_s, accounts.window_s)
    for after_s in np.linspace(span_s / _LOOKS, span_s, _LOOKS).tolist():
        left_s = np.maximum(most_s - accounts.since_s(now_s + after_s - accounts.window_s), 0.0)
        rate = np.minimum(rate, left_s / after_s)
    # Books that put looks together count the whole of a step that a window begins in.
    return np.minimum(rate * SURE_FRAC * STEPS_PER_WINDOW / (STEPS_PER_WINDOW + 1.0), 1.0), left_s


def _pause_lost(jobs: Jobs, state: State, left_s: Floats, now_s: float, horizon_s: float, step_s: float) -> Floats:
    """Return what a pause costs per second of it, restart included; NO_PAUSE where there can be none, (n,)."""
    cost_s = np.where(state.paused, 0.0, jobs.restart_s + jobs.checkpoint_s)
    paused_s = np.where(state.paused, now_s - np.where(state.paused, state.since_s, 0.0), 0.0)
    last_s = np.minimum(left_s - cost_s, jobs.most_pause_s - paused_s)
    block_s = np.maximum(np.minimum(last_s, horizon_s), step_s)
    can = jobs.pausable & (last_s >= np.maximum(np.where(state.paused, 0.0, jobs.least_pause_s), step_s) - 1e-6)
    return np.where(can, 1.0 + cost_s / block_s, NO_PAUSE)

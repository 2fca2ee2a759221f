"""How much of its account each job may use now, seeing what is still to come of the power budget. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vppd.core.curtail.accounts import Accounts, allowed_s
from vppd.snapshot import Bools, Floats, Ints

BEND = 1.4
"""Loss grows with about this power of the depth of a cut, so accounts are shared out over time by it."""
_MOST_ENDS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """What the jobs may draw in this step and the k - 1 after it."""

    ends_s: Floats
    """(k,) ends of the steps, ascending."""
    most_w: Floats
    """(k,) margin deducted; inf where there is no limit. [W]"""
    soft: Bools
    """(k,) a limit that spreads a restoration: it yields to the accounts."""


@dataclass(frozen=True, slots=True, eq=False)
class Prospect:
    """The present step seen against what is to come."""

    step_s: float
    need_w: float
    """To be freed in this step. [W]"""
    soft: bool
    rest_s: float
    """Until the present need ends. [s]"""
    rate_frac: Floats
    """(n,) loss that may be planned for this step. [0-1]"""
    share_s: Floats
    """(n,) of the account, for the present need alone. [s]"""
    hard_s: Floats
    """(n,) all that is left in the account. [s]"""


def prospect(
    budget: Budget, accounts: Accounts, tier: Ints, slack_s: Floats, owed_s: Floats, uncapped_w: float, now_s: float
) -> Prospect:
    """Return what is left in the accounts and this step's share of it: later steps get theirs by how deep they cut."""
    length_s = np.diff(budget.ends_s, prepend=now_s)
    need_w = np.maximum(uncapped_w - budget.most_w, 0.0)
    effort = np.cumsum(np.power(need_w / max(uncapped_w, 1.0), BEND) * length_s)
    most_s = np.minimum(allowed_s(tier, accounts.window_s), np.maximum(slack_s, 0.0)) - owed_s
    n, step_s = len(tier), float(length_s[0])
    rate, share_s, hard_s = np.full(n, np.inf), np.full(n, np.inf), np.full(n, np.inf)
    idle = np.flatnonzero(need_w <= 0.0)
    rest = int(idle[0]) if len(idle) else len(need_w)
    for end in _ends(budget.ends_s, need_w, accounts.window_s, now_s):
        left_s = np.maximum(most_s - accounts.since_s(float(budget.ends_s[end]) - accounts.window_s), 0.0)
        hard_s = np.minimum(hard_s, left_s)
        if effort[0] > 0.0:
            rate = np.minimum(rate, left_s / step_s * (effort[0] / effort[end]))
            share_s = np.minimum(share_s, left_s * effort[min(end, max(rest - 1, 0))] / effort[end])
    return Prospect(
        step_s=step_s,
        need_w=float(need_w[0]),
        soft=bool(budget.soft[0]),
        rest_s=float(budget.ends_s[rest - 1]) - now_s if rest else 0.0,
        rate_frac=np.minimum(rate, 1.0) if effort[0] > 0.0 else np.zeros(n),
        share_s=share_s,
        hard_s=hard_s,
    )


def _ends(ends_s: Floats, need_w: Floats, window_s: float, now_s: float) -> list[int]:
    """Return steps at whose ends the accounts are looked at: this one, ends of needs, and some between."""
    within = np.flatnonzero((need_w > 0.0) & (ends_s <= now_s + window_s + 1e-9))
    if not len(within):
        return [0]
    last = within[np.flatnonzero(np.diff(within, append=within[-1] + 2) > 1)]
    between = within[np.linspace(0, len(within) - 1, _MOST_ENDS).astype(np.int64)]
    return sorted({0, *last[:_MOST_ENDS].tolist(), int(within[-1]), *between.tolist()})

"""Compute that may run later: the work of each hour and tier, until when it must have run, and what of it is still owed. Pure.

Work arrives as the forecasts say. What the plan lets wait is kept by tier and deadline, step by step, until it has run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from vppd.model import TIERS
from vppd.snapshot import Floats

SECONDS = 3600.0
LEAST_WH = 1.0
"""Less than this is nothing. [Wh]"""
FREE_FRAC = 0.01
"""A cluster this close to what it would draw unheld has nothing waiting. [0-1]"""


@dataclass(frozen=True, slots=True)
class Key:
    """Work of one tier of one cluster that must have run by ``until``."""

    asset: str
    tier: int
    until: datetime

    @property
    def name(self) -> str:
        """Return a name for it in a scheduling problem."""
        return f"{self.asset}/tier{self.tier}/{self.until:%Y-%m-%dT%H:%M}"


@dataclass(frozen=True, slots=True)
class Owed:
    """Work that has arrived and not run."""

    energy_wh: float
    power_w: float
    """It runs at no more than this. [W]"""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Work as the plan sees it, over its h steps."""

    key: Key
    arrives_w: Floats
    """(h,) what would run at once if nothing waited. [W]"""
    owed_wh: float
    max_w: float
    first: int
    last: int
    """The last step in which it may run."""

    def energy_wh(self, step_h: float) -> float:
        """Return all of its work. [Wh]"""
        return self.owed_wh + float(self.arrives_w.sum()) * step_h


def chunks(
    asset: str, shed_w: Mapping[int, Floats], owed: Mapping[Key, Owed], defer_h: Sequence[float], start: datetime,
    step_s: float,
) -> Iterator[Chunk]:  # fmt: skip
    """Yield the work of one cluster that may wait, by tier and hour; ``shed_w``: by tier, (h,) what may wait of it. [W]"""
    for tier in range(1, TIERS):
        if defer_h[tier] <= 0.0 or tier not in shed_w:
            continue
        power_w = shed_w[tier]
        of = [_deadline(start + timedelta(seconds=k * step_s), defer_h[tier]) for k in range(len(power_w))]
        known = {key.until: found for key, found in owed.items() if (key.asset, key.tier) == (asset, tier)}
        ends_s = np.array([until.timestamp() for until in of])
        for until in sorted({*of, *known}):
            arrives_w = np.where(ends_s == until.timestamp(), power_w, 0.0)
            found = _chunk(Key(asset, tier, until), arrives_w, known.get(until), start, step_s)
            if found is not None:
                yield found


def _deadline(at: datetime, defer_h: float) -> datetime:
    """Return until when the work of the hour that ``at`` lies in must have run."""
    hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return hour + timedelta(hours=1.0 + defer_h)


def _chunk(key: Key, arrives_w: Floats, owed: Owed | None, start: datetime, step_s: float) -> Chunk | None:
    step_h, steps = step_s / SECONDS, len(arrives_w)
    owed_wh = 0.0 if owed is None else owed.energy_wh
    energy_wh = owed_wh + float(arrives_w.sum()) * step_h
    if energy_wh < LEAST_WH:
        return None
    first = 0 if owed_wh > 0.0 else int(np.flatnonzero(arrives_w)[0])
    max_w = max(float(arrives_w.max()), 0.0 if owed is None else owed.power_w, 1.0)
    last = int((key.until - start).total_seconds() // step_s) - 1
    if last < first:  # past its deadline: as soon as it can
        last = first + int(np.ceil(energy_wh / (max_w * step_h))) - 1
    last = min(last, steps - 1)
    return Chunk(key, arrives_w, owed_wh, max(max_w, energy_wh / ((last - first + 1) * step_h) * 1.000001), first, last)


def waiting_w(chunk: Chunk, power_w: Floats, step_h: float) -> Floats:
    """Return what the work would draw beyond its plan, (h,), if all that has arrived ran at once. [W]"""
    arrived_wh = chunk.owed_wh + np.cumsum(chunk.arrives_w) * step_h
    ran_wh = np.cumsum(power_w) * step_h
    return np.asarray(np.maximum(arrived_wh - ran_wh, 0.0) / step_h)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a cluster did in a step."""

    drawn_w: float
    unheld_w: float
    """What it would have drawn if nothing had held it. [W]"""

    @property
    def is_free(self) -> bool:
        """Say whether it drew all it wanted: then nothing of it waits."""
        return self.drawn_w >= self.unheld_w * (1.0 - FREE_FRAC)


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is owed, and how that has gone so far."""

    owed: Mapping[Key, Owed] = field(default_factory=dict)
    deferred_wh: float = 0.0
    """Work that has waited, all in all. [Wh]"""
    late_wh: float = 0.0
    """Of it: had not run by its deadline. [Wh]"""


def settled(
    ledger: Ledger, step: int, planned: Sequence[tuple[Chunk, Floats]], measured: Mapping[str, Measured],
    budget_w: Mapping[str, float], end: datetime, step_h: float,
) -> Ledger:  # fmt: skip
    """Return what is owed after a step that ends at ``end``, by the plan and by what clusters really did.

    A cluster that drew all it wanted has nothing waiting. One that drew less than its budget, being held by somebody else, has run
    less than was planned, the latest deadlines first; one that drew more has run more, the earliest deadlines first.
    """
    owed: dict[Key, Owed] = {}
    deferred_wh = ledger.deferred_wh
    for asset in sorted({*(chunk.key.asset for chunk, _ in planned), *(key.asset for key in ledger.owed)}):
        seen = measured.get(asset)
        if seen is not None and seen.is_free:
            continue
        before = {key: found for key, found in ledger.owed.items() if key.asset == asset}
        work = [(chunk, float(power_w[step]) * step_h) for chunk, power_w in planned if chunk.key.asset == asset]
        over_wh = _over_w(seen, budget_w.get(asset)) * step_h
        after = _corrected(_ran(work, before, step, step_h), {chunk.key: wh for chunk, wh in work}, over_wh)
        deferred_wh += max(_sum_wh(after) - _sum_wh(before), 0.0)
        owed |= {key: found for key, found in after.items() if found.energy_wh >= LEAST_WH}
    return Ledger(owed, deferred_wh, ledger.late_wh + _newly_late(owed, end, step_h))


def _over_w(seen: Measured | None, budget_w: float | None) -> float:
    """Return how much more a cluster drew than its budget, less where negative; 0 where nobody can say. [W]"""
    if seen is None or budget_w is None:
        return 0.0
    over_w = seen.drawn_w - budget_w
    return 0.0 if abs(over_w) <= FREE_FRAC * budget_w else over_w


def _sum_wh(owed: Mapping[Key, Owed]) -> float:
    return sum(found.energy_wh for found in owed.values())


def _ran(work: Sequence[tuple[Chunk, float]], before: Mapping[Key, Owed], step: int, step_h: float) -> dict[Key, Owed]:
    """Return what is owed after a step in which each chunk ran as much as was planned. [Wh]"""
    found = dict(before)
    for chunk, ran_wh in work:
        known = found.get(chunk.key, Owed(0.0, chunk.max_w))
        left_wh = known.energy_wh + float(chunk.arrives_w[step]) * step_h - ran_wh
        found[chunk.key] = Owed(max(left_wh, 0.0), max(known.power_w, chunk.max_w))
    return found


def _corrected(after: Mapping[Key, Owed], ran_wh: Mapping[Key, float], over_wh: float) -> dict[Key, Owed]:
    """Return what is owed when a cluster drew ``over_wh`` more than its budget, less where negative. [Wh]"""
    found = dict(after)
    for key in sorted(found, key=lambda k: k.until, reverse=over_wh < 0.0):
        moved_wh = min(over_wh, found[key].energy_wh) if over_wh > 0.0 else -min(-over_wh, ran_wh.get(key, 0.0))
        found[key] = replace(found[key], energy_wh=found[key].energy_wh - moved_wh)
        over_wh -= moved_wh
    return found


def _newly_late(owed: Mapping[Key, Owed], end: datetime, step_h: float) -> float:
    """Return what has just passed its deadline. [Wh]"""
    began = end - timedelta(hours=step_h)
    return sum(found.energy_wh for key, found in owed.items() if began < key.until <= end)

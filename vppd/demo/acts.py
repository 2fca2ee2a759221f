"""What the script asks for and how it is judged: pure sums over what the meters showed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WINDOW_S = 10.0
"""Power is judged on averages over this long. [s]"""
TOLERANCE_FRAC = 0.02
"""An average this far over the target still keeps it. [0-1]"""
SCORE_TO_PASS = 0.75
"""Performance score that a regulation resource must reach, as PJM's qualification test has it. [0-1]"""
LONGEST_LAG_S = 10.0


@dataclass(frozen=True, slots=True)
class Point:
    """One moment of one meter, or of all together."""

    mono_s: float
    power_w: float
    target_w: float | None = None
    """What was ordered then. [W, + = import]"""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the statement."""

    act: str
    resource: str
    ordered: str
    ordered_wh: float
    """Energy that was to be saved against the baseline. [Wh]"""
    delivered_wh: float
    """Energy that was saved against the baseline, at the meter. [Wh]"""
    kept_frac: float
    """Part of the windows in which the order was kept; for regulation the performance score. [0-1]"""
    worst_frac: float | None = None
    """Worst window over the target, as part of the target; negative when always below. [0-1]"""


@dataclass(frozen=True, slots=True)
class Result:
    """How an act went."""

    name: str
    lines: tuple[Line, ...]
    faults: tuple[str, ...] = ()
    """Why it failed, one sentence each; empty when it passed."""

    @property
    def passed(self) -> bool:
        """Say whether nothing was wrong."""
        return not self.faults


def windows(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Return (mean power, mean target) of every full 10 s window, one beginning at each point. [W]"""
    found, last = [], 0
    for first, point in enumerate(points):
        while last < len(points) and points[last].mono_s <= point.mono_s + WINDOW_S:
            last += 1
        if last == len(points) and points[-1].mono_s < point.mono_s + WINDOW_S * 0.95:
            break
        inside = points[first:last]
        targets = [p.target_w for p in inside if p.target_w is not None]
        if targets:
            found.append((sum(p.power_w for p in inside) / len(inside), sum(targets) / len(targets)))
    return found


def judge_limit(
    act: str, resource: str, points: Sequence[Point], baseline_w: float, limit_w: float, settled_s: float
) -> tuple[Line, list[str]]:
    """Return the statement line of a limit and what was wrong; judged from ``settled_s`` on, the ramp being over."""
    late = [Point(p.mono_s, p.power_w, limit_w) for p in points if p.mono_s >= settled_s]
    found = windows(late)
    if not found:
        return _line(act, resource, points, baseline_w, limit_w, 0.0, None), [f"{resource}: too little was measured"]
    over = [power_w / target_w - 1.0 for power_w, target_w in found]
    kept_frac = sum(o <= TOLERANCE_FRAC for o in over) / len(over)
    faults = []
    if max(over) > TOLERANCE_FRAC:
        faults.append(f"{resource}: a 10 s average was {max(over):.1%} over the target of {limit_w / 1e3:.0f} kW")
    return _line(act, resource, points, baseline_w, limit_w, kept_frac, max(over)), faults


def judge_regulation(
    resource: str, points: Sequence[Point], baseline_w: float, capacity_w: float
) -> tuple[Line, list[str]]:
    """Return the statement line of a regulation order and what was wrong, by accuracy and precision."""
    act, ordered = "regulation", f"±{capacity_w / 1e3:.0f} kW"
    moved = [p for p in points if p.target_w is not None]
    score_frac = performance(moved, capacity_w)
    asked_wh = energy_wh([Point(p.mono_s, abs((p.target_w or 0.0) - baseline_w)) for p in moved])
    given_wh = energy_wh([Point(p.mono_s, _along(p, baseline_w)) for p in moved])
    line = Line(act, resource, ordered, asked_wh, given_wh, score_frac)
    return line, [] if score_frac >= SCORE_TO_PASS else [
        f"{resource}: performance score {score_frac:.2f} is below {SCORE_TO_PASS}"
    ]


def performance(points: Sequence[Point], capacity_w: float) -> float:
    """Return a performance score: the mean of accuracy, delay and precision scores, at the best lag of up to 10 s. [0-1]

    Simplified from PJM's score: one window, correlation for accuracy, delay falling to 0 at 5 minutes.
    """
    if len(points) < 10:
        return 0.0
    step_s = (points[-1].mono_s - points[0].mono_s) / (len(points) - 1)
    powers, targets = [p.power_w for p in points], [p.target_w or 0.0 for p in points]
    best = (-1.0, 0)
    for lag in range(int(LONGEST_LAG_S / step_s) + 1):
        best = max(best, (correlation(powers[lag:], targets[: len(targets) - lag]), -lag))
    accuracy, lag = best[0], -best[1]
    delay = 1.0 - lag * step_s / 300.0
    late = [abs(p - t) for p, t in zip(powers[lag:], targets[: len(targets) - lag], strict=True)]
    precision = 1.0 - sum(late) / len(late) / capacity_w
    return sum(min(1.0, max(0.0, s)) for s in (accuracy, delay, precision)) / 3.0


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Pearson's correlation; 0 when one of the two does not move. [-1, 1]"""
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    cross = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))
    return cross / spread if spread > 0.0 else 0.0


def energy_wh(points: Sequence[Point]) -> float:
    """Return the energy under the points, by trapezoids. [Wh]"""
    return sum((a.power_w + b.power_w) / 2.0 * (b.mono_s - a.mono_s) / 3600.0 for a, b in pairwise(points))


def _along(point: Point, baseline_w: float) -> float:
    """Return how far the power went the way it was asked to. [W]"""
    asked_w = (point.target_w or 0.0) - baseline_w
    return math.copysign(1.0, asked_w) * (point.power_w - baseline_w)


def _line(
    act: str,
    resource: str,
    points: Sequence[Point],
    baseline_w: float,
    limit_w: float,
    kept_frac: float,
    worst_frac: float | None,
) -> Line:
    span_s = points[-1].mono_s - points[0].mono_s if points else 0.0
    return Line(
        act,
        resource,
        f"≤ {limit_w / 1e3:.0f} kW",
        (baseline_w - limit_w) * span_s / 3600.0,
        baseline_w * span_s / 3600.0 - energy_wh(points),
        kept_frac,
        worst_frac,
    )

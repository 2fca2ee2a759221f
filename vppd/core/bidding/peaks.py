"""What a bound that is not in force has to leave room for: the most that can be drawn whatever is sold. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vppd.core.bidding.lots import SIDES, Lot, Resource, Together
from vppd.snapshot import Floats


class Peaks:
    """The most that can be drawn of resources in each step. As little as can be said: the solver is slow with wide switches."""

    def __init__(self, resources: Sequence[Resource], together: Sequence[Together], held: Sequence[Lot]) -> None:
        steps = max((bound.last_step + 1 for bound in together), default=0)
        self._alone_w = {r.name: r.sure_w[:steps] for r in resources if np.isfinite(r.sure_w).all()}
        """By name, of resources that stand for themselves."""
        self._same_w: dict[frozenset[str], Floats] = {}
        """By names, of all bounds about just these."""
        self._any_w = {side: np.zeros(steps) for side in SIDES}
        """By direction, of all bounds about what does not stand for itself: each lot is in force with one about all it draws."""
        for bound in together:
            span = slice(bound.first_step, bound.last_step + 1)
            peaks = [self._same_w.setdefault(bound.names, np.zeros(steps))]
            peaks += [self._any_w[bound.direction]] if bound.names.isdisjoint(self._alone_w) else []
            for peak_w in peaks:
                peak_w[span] = np.maximum(peak_w[span], bound.sure_w)
        self._held_w = np.zeros(steps)
        for lot in held:
            self._held_w[lot.steps] += lot.max_w

    def most_w(self, bound: Together) -> float:
        """Return the most that can be drawn of a bound's resources in any of its steps. [W]"""
        span = slice(bound.first_step, bound.last_step + 1)
        if bound.is_common:
            return float((self._same_w[bound.names] + self._held_w)[span].max())
        alone_w = sum((w for name, w in self._alone_w.items() if name in bound.names), np.zeros(len(self._held_w)))
        return float((alone_w + self._any_w[bound.direction] + self._held_w)[span].max())

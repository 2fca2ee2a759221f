"""Every cycle's picture of the plant becomes 5-minute means of what it would have done if nobody had held it.

That is: the feeds' own load, what PV and wind could have given, what clusters would have drawn, and what of it could have been shed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import numpy as np

from vppd.core.state import Decision
from vppd.ledger.history import EPOCH, STEP_S, History, slot_of
from vppd.model import TIERS, Kind
from vppd.snapshot import KINDS, Bools, Floats, Ints, Plant, Snapshot

LEAST_MEASURED_S = STEP_S / 2.0
"""A step of which less was measured is not kept. [s]"""
HELD_WITHIN_FRAC = 0.02
"""A plant that generates within this part of its rating of its ceiling is held by it. [0-1]"""
ASLEEP_FRAC = 0.02
"""A generator that falls silent below this part of its rating sleeps: many inverters answer by day only. [0-1]"""
LONGEST_CYCLES = 5.0
"""A picture stands for no more than so many beats."""

Quotes = Callable[[datetime], Mapping[str, float]]
"""What is known of prices and the like at a moment, by series."""


class Recorder:
    """Takes every snapshot with its decision and hands means to the history; costs a few array operations a cycle."""

    def __init__(self, plant: Plant, history: History, quotes: Quotes | None = None) -> None:
        self._plant, self._history, self._quotes = plant, history, quotes
        generates = np.isin(plant.kind, [KINDS.index(k) for k in (Kind.PV, Kind.WIND)])
        computes = plant.kind == KINDS.index(Kind.CLUSTER)
        self._generators, self._clusters = np.flatnonzero(generates), np.flatnonzero(computes)
        self._generates, self._own = generates, generates | computes
        self._rating_w = np.maximum(np.abs(plant.rated_lower_w), np.abs(plant.rated_upper_w))
        self._most_w = np.where(self._rating_w > 0.0, plant.plausible_frac * self._rating_w, np.inf)
        self._longest_s = LONGEST_CYCLES * plant.cycle_s
        self.names = _names(plant, self._generators, self._clusters)
        """The series that are measured, in the order of the means."""
        self.heard = asyncio.Event()
        """Set once anything has been measured."""
        self._slot, self._mono_s = -1, -np.inf
        self._last = np.full(len(self.names), np.nan)
        self._sum, self._covered_s = np.zeros(len(self.names)), np.zeros(len(self.names))

    def take(self, snapshot: Snapshot, decision: Decision) -> None:
        """Count one cycle: its values hold since the one before, for as long as that is believable."""
        values = self._values(snapshot, decision)
        passed_s = min(max(snapshot.mono_s - self._mono_s, 0.0), self._longest_s) if self._slot >= 0 else 0.0
        slot = slot_of(snapshot.at)
        if slot != self._slot:
            into_s = (snapshot.at - EPOCH).total_seconds() - slot * STEP_S
            if slot > self._slot >= 0:
                self._add(values, max(passed_s - into_s, 0.0))
                self._close()
            self._sum[:], self._covered_s[:] = 0.0, 0.0
            passed_s = min(passed_s, into_s)
        self._add(values, passed_s)
        self._slot, self._mono_s, self._last = slot, snapshot.mono_s, values
        if not self.heard.is_set() and np.isfinite(values).any():
            self.heard.set()

    def present(self) -> dict[str, float]:
        """Return what is known of the step under way: its mean so far, or else the newest value."""
        measured = self._covered_s > 0.0
        so_far = np.where(measured, self._sum / np.where(measured, self._covered_s, 1.0), self._last)
        return {name: value for name, value in zip(self.names, so_far.tolist(), strict=True) if value == value}

    def _add(self, values: Floats, for_s: float) -> None:
        known = np.isfinite(values)
        self._sum += np.where(known, values, 0.0) * for_s
        self._covered_s += known * for_s

    def _close(self) -> None:
        start = EPOCH + timedelta(seconds=self._slot * STEP_S)
        enough = self._covered_s >= LEAST_MEASURED_S
        self._history.record(
            start, self.names, np.where(enough, self._sum / np.where(enough, self._covered_s, 1.0), np.nan)
        )
        quotes = self._quotes(start + timedelta(seconds=STEP_S / 2.0)) if self._quotes is not None else {}
        if quotes:
            self._history.record(start, tuple(quotes), np.array(list(quotes.values()), dtype=np.float64))

    def _values(self, snapshot: Snapshot, decision: Decision) -> Floats:
        """Return what every series is now, in the order of ``names``; NaN is not known."""
        r, plant = snapshot.readings, self._plant
        fresh = (snapshot.mono_s - r.mono_s <= plant.stale_after_s) & ~r.faulty
        power_w = np.where(fresh & (np.abs(r.power_w) <= self._most_w), r.power_w, np.nan)
        before_w = decision.state.power_w
        asleep = self._generates & ~fresh & (np.abs(before_w) <= ASLEEP_FRAC * self._rating_w)
        power_w = np.where(asleep, 0.0, power_w)
        available_w = np.where(fresh & (np.abs(r.available_w) <= self._most_w), r.available_w, np.nan)
        told_w = np.where(np.isfinite(r.setpoint_w), r.setpoint_w, decision.target_w)
        clusters, generators = self._clusters, self._generators
        tiers_w = np.where(fresh[clusters, None], r.tier_shed_w[clusters], np.nan)
        free_w = np.where(np.isfinite(available_w) | np.isfinite(told_w), available_w, power_w)
        return np.concatenate(
            [
                _loads(plant, decision, power_w, self._own),
                self._given(generators, power_w, available_w, told_w),
                free_w[clusters],
                tiers_w.reshape(-1),
            ]
        )

    def _given(self, i: Ints, power_w: Floats, available_w: Floats, told_w: Floats) -> Floats:
        """Return what generators could give: nobody knows it of one that is held and does not say so. [W, >= 0]"""
        held = power_w[i] <= told_w[i] + HELD_WITHIN_FRAC * self._rating_w[i]
        could_w = np.where(np.isfinite(available_w[i]), available_w[i], np.where(held, np.nan, power_w[i]))
        return np.maximum(-could_w, 0.0)


def _loads(plant: Plant, decision: Decision, power_w: Floats, own: Bools) -> Floats:
    """Return the load of each feed without the assets that have series of their own; NaN while its meter is not read. [W]

    An asset that is only watched, or out of play, is in the meter's remainder: it is taken out again as far as it is known.
    """
    state = decision.state
    outside = own & ~state.counted
    apart_w = np.bincount(plant.node[outside], weights=power_w[outside], minlength=len(plant.nodes))
    metered = plant.meter >= 0
    seen = np.isfinite(np.where(metered, power_w[plant.meter], np.nan))
    return np.where(seen, state.base_w - apart_w, np.nan)[1:]


def _names(plant: Plant, generators: Ints, clusters: Ints) -> tuple[str, ...]:
    ids = plant.asset_ids
    return (
        *(f"load/{tag}" for tag in plant.nodes[1:]),
        *(f"generation/{ids[i]}" for i in generators),
        *(f"compute/{ids[i]}" for i in clusters),
        *(f"compute/{ids[i]}/tier{k}" for i in clusters for k in range(TIERS)),
    )

"""What was wished of each job and whether it came to pass: who follows, who is steady enough to be learned from. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vppd.snapshot import Bools, Floats

SAME_FRAC = 0.02
"""Levels closer together than this are the same: devices round. [0-1]"""
HALF_WAY_FRAC = 0.5
"""A job that has come less than this part of its way when the ramp is over does not follow. [0-1]"""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """n jobs of one look."""

    ids: tuple[str, ...]
    level_frac: Floats
    """(n,) wished. [0-1]"""
    paused: Bools
    """(n,) wished."""
    wished_s: Floats
    """(n,) since when. [s]"""
    from_frac: Floats
    """(n,) the level in force when it was wished. [0-1]"""
    seen_frac: Floats
    """(n,) the level in force at the last look, 0 for paused. [0-1]"""
    steady_s: Floats
    """(n,) since when it has been there. [s]"""
    barred_s: Floats
    """(n,) until when the job is left alone because it did not follow; -inf for never. [s]"""

    @property
    def is_free(self) -> bool:
        """Say whether nothing is wished of anybody."""
        return not (self.paused.any() or (self.level_frac < 1.0).any())


def untracked() -> Track:
    """Return the track of no jobs."""
    none = np.zeros(0)
    return Track((), none, none > 0.0, none, none, none, none, none)


def seen(
    track: Track, ids: tuple[str, ...], level_frac: Floats, paused: Bools, now_s: float, ramp_s: float, bar_s: float
) -> Track:
    """Return the track after a look: who has not followed when his ramp is over is barred for ``bar_s``."""
    now_frac = np.where(paused, 0.0, level_frac)
    if track.ids != ids:
        track = _turned(track, ids, now_frac, now_s)
    moved = np.abs(now_frac - track.seen_frac) > 0.25 * SAME_FRAC
    way = track.from_frac - track.level_frac
    left = level_frac - track.level_frac
    late = now_s - track.wished_s >= ramp_s
    stays = ~track.paused & (left > np.maximum(SAME_FRAC, HALF_WAY_FRAC * way)) & ~paused
    refuses = late & ((track.paused & ~paused) | stays)
    return replace(
        track,
        seen_frac=np.where(moved, now_frac, track.seen_frac),
        steady_s=np.where(moved, now_s, track.steady_s),
        barred_s=np.where(refuses, now_s + bar_s, track.barred_s),
        level_frac=np.where(refuses, 1.0, track.level_frac),
        paused=track.paused & ~refuses,
        wished_s=np.where(refuses, now_s, track.wished_s),
    )


def wished(track: Track, level_frac: Floats, paused: Bools, now_s: float) -> Track:
    """Return the track after a plan, in the order of the last look."""
    level_frac = np.where(paused, 1.0, level_frac)
    # Who has not followed yet is given no more time by being asked for more: else he would always have just been asked.
    behind = (track.level_frac < 1.0) & (track.seen_frac > track.level_frac + SAME_FRAC)
    deeper = behind & ~paused & (level_frac <= track.level_frac)
    new = (paused != track.paused) | ((np.abs(level_frac - track.level_frac) > SAME_FRAC) & ~deeper)
    return replace(
        track,
        level_frac=level_frac,
        paused=paused,
        wished_s=np.where(new, now_s, track.wished_s),
        from_frac=np.where(new, track.seen_frac, track.from_frac),
    )


def _turned(track: Track, ids: tuple[str, ...], now_frac: Floats, now_s: float) -> Track:
    """Return the track in the order of another look; jobs that are new have just begun."""
    n = len(ids)
    fresh = Track(
        ids=ids,
        level_frac=np.ones(n),
        paused=np.zeros(n, dtype=np.bool_),
        wished_s=np.full(n, now_s),
        from_frac=now_frac.copy(),
        seen_frac=now_frac.copy(),
        steady_s=np.where(now_frac < 1.0, now_s, -np.inf),
        barred_s=np.full(n, -np.inf),
    )
    index = {job_id: i for i, job_id in enumerate(track.ids)}
    pairs = [(i, index[job_id]) for i, job_id in enumerate(ids) if job_id in index]
    if pairs:
        to, came = np.asarray(pairs, dtype=np.int64).T
        for name in ("level_frac", "paused", "wished_s", "from_frac", "seen_frac", "steady_s", "barred_s"):
            getattr(fresh, name)[to] = getattr(track, name)[came]
    return fresh

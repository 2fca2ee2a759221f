"""The planners of all clusters of a plant, and the files that their accounts are kept in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Never

import numpy as np
import structlog

from vppd.config.load import Config
from vppd.core.curtail.books import Books
from vppd.model import Kind
from vppd.runtime.clock import Clock
from vppd.runtime.curtail_file import packed, read, write
from vppd.runtime.curtailer import Curtailer, Terms

TICK_S = 1.0
CHANGED_S = 1.0
"""What is in force has changed: written this long after the last time, and no sooner. [s]"""
KEPT_S = 10.0
"""While anybody is held or has lost something: written this often. [s]"""
_MOVED_FRAC = 0.01

log = structlog.get_logger()


@dataclass(slots=True)
class _Written:
    """What is in the file."""

    books: Books | None
    at_s: float


class Curtailers(Mapping[str, Curtailer]):
    """The planners by asset."""

    def __init__(self, planners: Mapping[str, Curtailer], folder: Path, clock: Clock) -> None:
        self._planners, self._folder, self._clock = dict(planners), folder, clock
        self._written = {asset_id: _Written(None, -np.inf) for asset_id in planners}
        self._failing = False

    def __getitem__(self, asset_id: str) -> Curtailer:
        return self._planners[asset_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._planners)

    def __len__(self) -> int:
        return len(self._planners)

    async def run(self) -> Never:
        """Keep the files up to date, for ever; a disk that fails is told and tried again."""
        while True:
            await asyncio.sleep(TICK_S)
            for asset_id, planner in self._planners.items():
                if self._is_due(self._written[asset_id], planner.books):
                    await self._write(asset_id, planner)

    def close(self, released: Container[str]) -> None:
        """Write all files for the last time; ``released``: the clusters that were given back and have confirmed it."""
        for asset_id, planner in self._planners.items():
            if asset_id in released:
                planner.released()
            blob = packed(planner.books, planner.classes, self._clock.mono_s(), self._clock.now())
            try:
                write(file_of(self._folder, asset_id), blob)
            except OSError as error:
                log.error("accounts_not_kept", asset=asset_id, reason=str(error))

    async def _write(self, asset_id: str, planner: Curtailer) -> None:
        books, mono_s, at = planner.books, self._clock.mono_s(), self._clock.now()
        known = planner.classes
        self._written[asset_id] = _Written(books, mono_s)
        # All of it is made of values that nobody changes any more, so another thread may look at them.
        work = asyncio.to_thread(lambda: write(file_of(self._folder, asset_id), packed(books, known, mono_s, at)))
        writing = asyncio.ensure_future(work)
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])  # a thread cannot be stopped, and the last write must be the last
            raise
        except OSError as error:
            if not self._failing:
                log.error("accounts_not_kept", asset=asset_id, reason=str(error))
            self._failing = True
        else:
            self._failing = False

    def _is_due(self, written: _Written, books: Books) -> bool:
        age_s, before = self._clock.mono_s() - written.at_s, written.books
        if before is books or (books.is_clear and (before is None or before.is_clear)):
            return False
        return age_s >= KEPT_S or (age_s >= CHANGED_S and _differ(before, books))


def curtailers_of(
    config: Config, clock: Clock, horizon_s: Callable[[int], float], is_short: Callable[[int], bool]
) -> Curtailers:
    """Return a planner for every cluster that is controlled, with the accounts of an earlier process.

    ``horizon_s`` says how long the orders that bear on an asset go on, inf without an end, 0 when there is none [s];
    ``is_short``: they need what it can give for a while only.
    """
    folder, found = config.site.state_dir, {}
    for i, asset in enumerate(config.assets):
        if asset.kind is Kind.CLUSTER and asset.control:
            terms = Terms(**asset.curtail.model_dump())
            known = read(file_of(folder, asset.id), terms.window_s, clock.mono_s(), clock.now())
            found[asset.id] = Curtailer(
                asset.id, terms, clock.mono_s, partial(horizon_s, i), known, partial(is_short, i)
            )
    return Curtailers(found, folder, clock)


def file_of(folder: Path, asset_id: str) -> Path:
    """Return where the accounts of a cluster are kept."""
    return folder / f"accounts-{asset_id}.npz"


def _differ(before: Books | None, books: Books) -> bool:
    """Say whether what is in force has changed."""
    if before is None or before.ids != books.ids:
        return True
    moved = np.abs(before.lost_frac - books.lost_frac) > _MOVED_FRAC
    return bool(moved.any() or (before.paused != books.paused).any())

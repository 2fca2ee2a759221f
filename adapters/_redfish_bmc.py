"""One node's BMC: what it draws, what caps it, and how that is changed and put back."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from adapters._caps import Cap
from adapters._redfish_limits import Json, Limit, Place, Prior, power_beside, read_limit, to_restore
from adapters._redfish_link import Answer, BmcLink, NotThere, Stale
from adapters._redfish_search import Layout, Search
from vppd.errors import Refused

_REREAD_S = (0.0, 0.3, 1.0)
"""A BMC that has taken a limit may need so long until it shows it."""


class Bmc:
    """A BMC as the pool sees it; what it said last is kept."""

    def __init__(
        self, link: BmcLink, limit_by: str = "auto", other_w: float | None = None, percent_of_w: float | None = None
    ) -> None:
        self.link = link
        self.limits: tuple[Limit, ...] = ()
        self.power_w: float | None = None
        self.patches = 0
        self._limit_by = limit_by
        self._other_w = other_w
        self._percent_of_w = percent_of_w
        self._layout: Layout | None = None
        self._beside_w: float | None = None
        """What the node drew beside what its limits cover, when it was measured last."""

    async def look(self) -> Cap:
        """Read every limit and the power; return the cap of the node. Raises Unreachable, Refused or Garbled."""
        if self._layout is None:
            self._layout = await Search(self.link, self._limit_by).layout()
        layout = self._layout
        try:
            seen: dict[str, Answer] = {}
            for path in dict.fromkeys([*(place.path for place in layout.places), *layout.meters]):
                seen[path] = await self.link.get(path)
        except NotThere:
            self._layout = None  # a new firmware may have moved it
            raise
        self.limits = tuple(self._limit(place, seen[place.path]) for place in layout.places)
        self._measure([power_beside(seen[path].body) for path in layout.meters])
        return self.cap()

    def cap(self) -> Cap:
        """Return the node's cap by what was read last. [W]"""
        set_w = [limit.set_w for limit in self.limits]
        other_w = self._other_now_w() or 0.0
        total_w = sum(w for w in set_w if w is not None) + other_w
        held = bool(set_w) and all(w is not None for w in set_w)
        return Cap(total_w if held else None, sum(limit.min_w for limit in self.limits) + other_w)

    def max_cap_w(self) -> float | None:
        """Return the highest cap the BMC allows, None when it does not tell. [W]"""
        tops_w = [limit.max_w for limit in self.limits if limit.max_w is not None]
        return sum(tops_w) + (self._other_now_w() or 0.0) if tops_w and len(tops_w) == len(self.limits) else None

    def priors(self) -> tuple[Prior, ...]:
        """Return what must be written to have all limits as they are now."""
        return tuple(limit.prior() for limit in self.limits)

    async def put(self, cap_w: float, priors: Sequence[Prior], first: bool = False) -> Cap:
        """Cap the node, no limit higher than it was before, and return what then holds. [W] Raises Unreachable, Refused or Garbled.

        What was read last is what is changed: ``look`` first. A BMC that takes a limit and does not follow shows in what is
        returned. Raises Stale, with all as it was, when it is the ``first`` change and ``priors`` are not true any more.
        """
        before, done = {prior.place: prior for prior in priors}, list[Prior]()
        for limit, target_w in zip(self.limits, self._split(cap_w), strict=True):
            prior = before.get(limit.place)
            old_w = None if prior is None else _with(limit, prior).set_w
            try:
                await self._set(limit, target_w if old_w is None else min(target_w, old_w), first)
            except Stale:
                await self.restore(done)
                raise
            done += [] if prior is None else [prior]
        return self.cap()

    async def restore(self, priors: Sequence[Prior]) -> Cap:
        """Put every limit back as it was; return what then holds. Raises Unreachable, Refused or Garbled."""
        for prior in priors:
            await self._restore(prior)
        return self.cap()

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _limit(self, place: Place, answer: Answer) -> Limit:
        return read_limit(place, answer.body, answer.etag, self._percent_of_w)

    def _measure(self, readings_w: Sequence[float | None]) -> None:
        parts_w = [limit.power_w for limit in self.limits if limit.power_w is not None]
        told_w = [w for w in readings_w if w is not None]
        covered_w = sum(parts_w) if len(parts_w) == len(self.limits) else None
        whole = self._layout is not None and self._layout.whole
        if told_w:
            self.power_w = sum(told_w)
            if covered_w is not None and not whole:
                self._beside_w = max(self.power_w - covered_w, 0.0)
        elif covered_w is not None:
            self.power_w = covered_w + (self._other_now_w() or 0.0)
        else:
            self.power_w = None

    def _other_now_w(self) -> float | None:
        """Return what no limit covers, None when nobody knows. [W]"""
        if self._layout is not None and self._layout.whole:
            return 0.0
        return self._beside_w if self._other_w is None else self._other_w

    def _split(self, cap_w: float) -> list[float]:
        """Return each limit's share of a cap, in proportion to what each may be at most. Raises Refused. [W]"""
        other_w = self._other_now_w()
        if other_w is None:
            raise Refused(f"{self.link.name}: what its GPUs leave for the rest of the node is not known; give other_w")
        tops_w = [limit.max_w for limit in self.limits]
        known = all(top_w is not None for top_w in tops_w)
        shares = [(top_w or 0.0) if known else 1.0 for top_w in tops_w]
        return [max(cap_w - other_w, 0.0) * share / sum(shares) for share in shares]

    async def _set(self, limit: Limit, target_w: float, first: bool) -> None:
        """Bring one limit to its target and read it back; one that is there already is left alone."""
        units = limit.units(target_w)
        if limit.set_w is not None and limit.value == units and not limit.mode_for_cap():
            return
        await self._patch(limit, limit.to_cap(units), first)
        for rest_s in _REREAD_S:
            await asyncio.sleep(rest_s)
            now = await self._reread(limit.place)
            if now.set_w is not None and now.value is not None and math.isclose(now.value, units, abs_tol=0.5):
                return

    async def _restore(self, prior: Prior) -> None:
        now, refusal = await self._reread(prior.place), None
        for bodies in to_restore(prior):
            if now.is_prior(prior):
                return
            try:
                for body in bodies:
                    await self._patch(now, body)
                    now = await self._reread(prior.place)
                now, refusal = await self._shown(prior), None
            except Refused as error:
                refusal = error
        if not now.is_prior(prior):
            raise refusal or Refused(
                f"{self.link.name}: {prior.place.path} stays at {now.value} {now.mode}, was {prior.value} {prior.mode}"
            )

    async def _shown(self, prior: Prior) -> Limit:
        """Return a limit as soon as it is as it was, or as it is after a while."""
        for rest_s in _REREAD_S:
            await asyncio.sleep(rest_s)
            now = await self._reread(prior.place)
            if now.is_prior(prior):
                break
        return now

    async def _patch(self, limit: Limit, body: Json, as_read: bool = False) -> None:
        """Change a limit; a resource that has changed since it was read is read again. Raises Stale when ``as_read`` is not true."""
        self.patches += 1
        try:
            await self.link.patch(limit.place.path, body, limit.etag)
        except Stale:
            fresh = await self._reread(limit.place)
            if as_read and fresh.prior() != limit.prior():
                raise
            try:
                await self.link.patch(limit.place.path, body, fresh.etag or "*")
            except Stale:  # some count each reading of the power as a change: what we write is absolute
                await self.link.patch(limit.place.path, body, "*")

    async def _reread(self, place: Place) -> Limit:
        """Read one limit again and keep what it says."""
        now = self._limit(place, await self.link.get(place.path))
        self.limits = tuple(now if limit.place == place else limit for limit in self.limits)
        return now


def _with(limit: Limit, prior: Prior) -> Limit:
    """Return a limit as it was before."""
    return Limit(limit.place, prior.value, prior.mode, scale=limit.scale)

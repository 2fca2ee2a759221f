"""Brings the caps of nodes to what a plan wants, renews them, and gives each node its old cap back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from adapters._caps import Cap, NodeCaps
from adapters._slurm_journal import Held, Journal
from vppd.errors import DeviceError, Unreachable

_RENEW_S = 60.0
"""Caps are written again after this time: agents have been seen to lose them."""
_LOOK_S = 5.0
"""Nodes that are capped, or have not answered, are asked this often: a cap that is gone is written again."""
_MISSES = 2
"""So many looks in vain, and a node cannot be capped until it answers again."""
_AGAIN_S = 3.0
"""A node that did not answer an order gets the next one no sooner."""
_AT_ONCE = 256
_SLACK_W = 1.0


class Capping:
    """The caps of one cluster's nodes; without agents there are none."""

    def __init__(self, agents: NodeCaps | None, journal: Journal, lease: bool, remembers: bool = False) -> None:
        """``lease``: caps fall back by themselves; ``remembers``: to lift a cap brings back what was before."""
        self.known: dict[str, Cap] = {}
        """What each node's agent said when it was asked last."""
        self._agents = agents
        self._journal = journal
        self._lease = lease
        self._remembers = remembers
        self._written_at_s: dict[str, float] = {}
        self._look_at_s: dict[str, float] = {}
        self._misses: dict[str, int] = {}
        self._write_at_s: dict[str, float] = {}

    async def find(self, names: Iterable[str], held: Held, now_s: float) -> None:
        """Ask the agents of nodes of which nothing is known, and now and then those of nodes that are capped."""
        if self._agents is None:
            return
        if not self._look_at_s:  # caps of an earlier process hold until something else is heard
            self.known.update({name: Cap(cap_w) for name, cap_w in held.cap_w.items()})
        asked = [n for n in names if n not in self.known or n in held.cap_w]
        asked = [name for name in asked if now_s >= self._look_at_s.get(name, now_s)]
        found = await self._agents.look(asked) if asked else {}
        self._heard(asked, found, now_s)
        for name in found.keys() & held.cap_w.keys():
            if _is_looser(found[name], held.cap_w[name]):
                del held.cap_w[name]

    def _heard(self, asked: Iterable[str], found: Mapping[str, Cap], now_s: float) -> None:
        """Remember what agents have said; nothing is known of one that has been silent too often."""
        for name in asked:
            self._look_at_s[name] = now_s + _LOOK_S
            self._misses[name] = 0 if name in found else self._misses.get(name, 0) + 1
            if self._misses[name] >= _MISSES:
                self.known.pop(name, None)
        self.known.update(found)

    def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the nodes that ought to have a cap and have nobody who answers for it."""
        return () if self._agents is None else tuple(sorted(name for name in names if name not in self.known))

    def in_force(self, held: Held) -> dict[str, float]:
        """Return the caps of ours, as they were read back. [W]"""
        said_w = {name: self.known[name].cap_w for name in held.cap_w if name in self.known}
        return {name: cap_w for name, cap_w in said_w.items() if cap_w is not None}

    async def put(self, cap_w: Mapping[str, float], held: Held, now_s: float, lower: bool) -> dict[str, str]:
        """Write the caps that get lower (else those that get higher, or go), and those due again; return what failed by node."""
        due: dict[str, float | None] = {}
        for name in cap_w.keys() | held.old_cap_w.keys():
            wanted_w = _least(cap_w[name], held.old_cap_w.get(name)) if name in cap_w else None
            if self._is_due(name, wanted_w, held, now_s, lower):
                due[name] = wanted_w
        silent = {name for name in due if now_s < self._write_at_s.get(name, now_s)}
        await self._write_down([name for name in due if name not in held.old_cap_w], held)
        asked = {name: w for name, w in due.items() if name in held.old_cap_w and name not in silent}
        return {**await self._write(asked, held, now_s), **dict.fromkeys(silent, "did not answer a moment ago")}

    def _is_due(self, name: str, wanted_w: float | None, held: Held, now_s: float, lower: bool) -> bool:
        now_w = held.cap_w.get(name)
        if wanted_w is None:
            return not lower
        if now_w is None or wanted_w < now_w:
            return lower
        return not lower and (wanted_w > now_w or now_s >= self._written_at_s.get(name, 0.0) + self._renew_s(held))

    def _renew_s(self, held: Held) -> float:
        return min(held.lease_s / 2.0, _RENEW_S) if self._lease else _RENEW_S

    async def _write_down(self, names: list[str], held: Held) -> None:
        """Put the caps that nodes have now into the journal, before they are changed for the first time."""
        if self._agents is None or not names:
            return
        found = await self._agents.look(names)
        self.known.update(found)
        held.old_cap_w.update({name: None if self._remembers else cap.cap_w for name, cap in found.items()})
        await self._journal.save(held)

    async def _write(self, due: Mapping[str, float | None], held: Held, now_s: float) -> dict[str, str]:
        failed: dict[str, str] = {}
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str, wanted_w: float | None) -> None:
            async with gate:
                try:
                    await self._write_one(name, wanted_w, held, now_s)
                except DeviceError as error:
                    failed[name] = str(error)
                    if isinstance(error, Unreachable):
                        self._write_at_s[name] = now_s + _AGAIN_S

        async with asyncio.TaskGroup() as group:
            for name, wanted_w in due.items():
                group.create_task(one(name, wanted_w))
        for name, wanted_w in due.items():
            said = self.known.get(name, Cap(None))
            if wanted_w is not None and name not in failed and _is_looser(said, wanted_w):
                failed[name] = f"a cap of {wanted_w:.0f} W reads back as {said.cap_w} W"
        return failed

    async def _write_one(self, name: str, wanted_w: float | None, held: Held, now_s: float) -> None:
        """Write one cap, or the old one back; a node is forgotten only once its agent has confirmed."""
        if self._agents is None:
            return
        lease_s = max(held.lease_s, 1.0) if self._lease and wanted_w is not None else None
        cap_w = held.old_cap_w[name] if wanted_w is None else wanted_w
        self.known[name] = await self._agents.put(name, cap_w, lease_s)
        if wanted_w is None:
            held.cap_w.pop(name, None)
            held.old_cap_w.pop(name, None)
        else:
            held.cap_w[name] = wanted_w
            self._written_at_s[name] = now_s


def _least(cap_w: float, old_w: float | None) -> float:
    return cap_w if old_w is None else min(cap_w, old_w)


def _is_looser(said: Cap, wanted_w: float) -> bool:
    return said.cap_w is None or said.cap_w > wanted_w + _SLACK_W

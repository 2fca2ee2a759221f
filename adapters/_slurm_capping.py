"""Brings the caps of nodes to what a plan wants, renews them, and gives each node its old cap back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from adapters._caps import Cap, NodeCaps
from adapters._slurm_journal import Held, Journal
from vppd.errors import DeviceError

_RENEW_S = 60.0
"""Caps are written again after this time: agents have been seen to lose them."""
_AT_ONCE = 16
_SLACK_W = 1.0


class Capping:
    """The caps of one cluster's nodes; without agents there are none."""

    def __init__(self, agents: NodeCaps | None, journal: Journal, lease: bool) -> None:
        self.known: dict[str, Cap] = {}
        """What each node's agent said when it was asked last."""
        self._agents = agents
        self._journal = journal
        self._lease = lease
        self._written_at_s: dict[str, float] = {}

    async def find(self, names: Iterable[str]) -> None:
        """Ask the agents of nodes that have not been asked, or have not answered."""
        unknown = [name for name in names if name not in self.known]
        if self._agents is not None and unknown:
            self.known.update(await self._agents.look(unknown))

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
        await self._write_down([name for name in due if name not in held.old_cap_w], held)
        return await self._write({name: w for name, w in due.items() if name in held.old_cap_w}, held, now_s)

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
        held.old_cap_w.update({name: cap.cap_w for name, cap in found.items()})
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

        async with asyncio.TaskGroup() as group:
            for name, wanted_w in due.items():
                group.create_task(one(name, wanted_w))
        for name, wanted_w in due.items():
            cap_w = self.known[name].cap_w if name in self.known else None
            if wanted_w is not None and name not in failed and (cap_w is None or cap_w > wanted_w + _SLACK_W):
                failed[name] = f"a cap of {wanted_w:.0f} W reads back as {cap_w} W"
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

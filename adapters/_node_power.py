"""What nodes draw, from other sources than the scheduler: GPU exporters, node agents, BMCs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from adapters._caps import Cap, NodeCaps, NodeMeters


class NodePower(Protocol):
    """Knows what nodes draw."""

    async def look(self, names: Iterable[str]) -> dict[str, float]:
        """Return the power of nodes; one of which nothing fresh is known is left out, never 0. [W]"""
        ...


_FIRST_S, _POLL_S = 2.0, 0.1
"""Meters that speak by themselves are given so long to speak for the first time."""


class MeteredNodes:
    """What meters of the nodes' devices say, and beside it what the rest of a node draws. ``NodePower``."""

    def __init__(self, meters: NodeMeters, node_rest_w: float) -> None:
        self._meters = meters
        self._node_rest_w = node_rest_w
        self._heard = False

    async def look(self, names: Iterable[str]) -> dict[str, float]:
        """Return the power of nodes with fresh news. [W]"""
        names = list(names)
        if not self._heard:
            self._heard = True
            for _ in range(round(_FIRST_S / _POLL_S)):
                if all(self._meters.power_w(name) is not None for name in names):
                    break
                await asyncio.sleep(_POLL_S)
        found = {name: self._meters.power_w(name) for name in names}
        return {name: power_w + self._node_rest_w for name, power_w in found.items() if power_w is not None}


class WholeNodes:
    """Caps of whole nodes on top of caps of their devices: the rest of a node is not capped, and counted in. ``NodeCaps``."""

    def __init__(self, caps: NodeCaps, node_rest_w: float) -> None:
        self._caps = caps
        self._node_rest_w = node_rest_w

    async def look(self, names: Iterable[str]) -> dict[str, Cap]:
        """Return what is known of each node's cap; a node that does not answer is left out."""
        return {name: self._whole(cap) for name, cap in (await self._caps.look(names)).items()}

    async def put(self, name: str, cap_w: float | None, valid_for_s: float | None) -> Cap:
        """Set or lift a cap and return what then holds. [W; s] Raises Unreachable (outcome unknown), Refused or Garbled."""
        devices_w = None if cap_w is None else max(cap_w - self._node_rest_w, 0.0)
        return self._whole(await self._caps.put(name, devices_w, valid_for_s))

    def _whole(self, cap: Cap) -> Cap:
        cap_w = None if cap.cap_w is None else cap.cap_w + self._node_rest_w
        return Cap(cap_w, cap.min_cap_w + self._node_rest_w if cap.min_cap_w else 0.0)

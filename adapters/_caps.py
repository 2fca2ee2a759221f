"""Caps of nodes, whoever sets them: an agent behind HTTP or MQTT, or the node's BMC. One set of words for all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Cap:
    """What is said of a node's cap."""

    cap_w: float | None
    """The cap now; None for none. [W]"""
    min_cap_w: float = 0.0
    """The lowest cap that still binds, where that is told. [W]"""


class NodeCaps(Protocol):
    """Sets the caps of nodes, by name."""

    async def look(self, names: Iterable[str]) -> dict[str, Cap]:
        """Return what is known of each cap; a node that does not answer is left out."""
        ...

    async def put(self, name: str, cap_w: float | None, valid_for_s: float | None) -> Cap:
        """Set a cap (None: lift it) and return what then holds. [W; s] Raises Unreachable (outcome unknown), Refused or Garbled."""
        ...


@runtime_checkable
class NodeMeters(Protocol):
    """Knows what nodes draw without being asked for each."""

    def power_w(self, name: str) -> float | None:
        """Return what a node draws; None when nothing fresh is known. [W]"""
        ...

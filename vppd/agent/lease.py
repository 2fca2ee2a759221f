"""The dead man's hand: whoever caps this node must say so again within the lease. Pure; time is told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from vppd.errors import Refused

_REMEMBERED = 64
"""Senders whose last number is kept: there is one dispatcher, a few in its life; the least recent is forgotten."""


@dataclass(slots=True)
class Lease:
    """Who holds the node, and until when."""

    longest_s: float
    """A lease asked for longer is refused. [s]"""
    late_s: float = 0.0
    """Let go so much later: nodes that do differ in it, or the whole site would rise in one step. [s]"""
    holder: str = ""
    until_s: float = -math.inf
    held: bool = False
    _numbers: dict[str, int] = field(default_factory=dict)

    def renew(self, sender: str, seq: int, lease_s: float, now_s: float) -> None:
        """Start or extend the lease. Raises Refused, changing nothing, for an old number or a lease too long. [s]"""
        newest = self._numbers.get(sender)
        if newest is not None and seq <= newest:
            raise Refused(f"stale: seq {seq} of {sender} is not above {newest}")
        if not 0.0 < lease_s <= self.longest_s:
            raise Refused(f"lease_s must be above 0 and at most {self.longest_s:g}, not {lease_s:g}")
        self._numbers.pop(sender, None)
        self._numbers[sender] = seq
        while len(self._numbers) > _REMEMBERED:
            del self._numbers[next(iter(self._numbers))]
        self.holder, self.until_s, self.held = sender, now_s + lease_s, True

    def left_s(self, now_s: float) -> float:
        """Return for how long it is still good; 0 when there is none. [s]"""
        return max(self.until_s - now_s, 0.0) if self.held else 0.0

    def ended(self, now_s: float) -> bool:
        """Say whether it is time to let go: the lease has run out, and so has our place in the queue."""
        return self.held and now_s >= self.until_s + self.late_s

    def let_go(self) -> None:
        """End the lease; the senders' numbers stay known, so that an old command cannot start it again."""
        self.held = False

"""Keeps nodes free for awarded windows, by reservations in Slurm itself: those are the only state, so a restart finds them by name.

A reservation keeps the scheduler from starting jobs on its nodes that would run into the window; jobs that run already go on, and what
they draw then is curtailed like everything else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from adapters._slurm_config import SlurmConfig
from adapters._slurm_jobs import Node, Reservation
from adapters._slurm_link import SlurmLink
from adapters._slurm_power import Picture
from vppd.errors import DeviceError
from vppd.model import Applied
from vppd.ports import Window

_OFF = 1e9
"""A node that is off comes last: keeping it free saves nothing."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One reservation as it ought to be, and what it keeps free."""

    reservation: Reservation
    power_w: float
    asked_w: float


class Reservations:
    """The reservations of one asset."""

    def __init__(self, config: SlurmConfig, link: SlurmLink) -> None:
        self._config = config
        self._link = link
        self._prefix = f"vppd-{_hash(*sorted(config.partitions))[:6]}-"

    async def keep(self, windows: Sequence[Window], picture: Picture, nodes: Iterable[Node]) -> tuple[Applied, ...]:
        """Make the reservations those of these windows and no others; return what each window gets.

        Raises Unreachable, Refused or Garbled when it cannot be seen what there is.
        """
        found = {r.name: r for r in await self._link.reservations() if r.name.startswith(self._prefix)}
        on = {node.name: node.on for node in nodes}
        wanted = self._wanted(windows, found, picture, on)
        troubles: dict[str, str] = {}
        for name in found.keys() - wanted.keys():
            try:
                await self._link.unreserve(name)
            except DeviceError as error:
                troubles[name] = f"reservation {name} stays: {error}"
        for name, want in wanted.items():
            try:
                await self._write(want.reservation, found.get(name))
            except DeviceError as error:
                troubles[name] = f"reservation {name}: {error}"
        return tuple(self._told(self._name(window.start, window.end), wanted, troubles, found) for window in windows)

    async def _write(self, want: Reservation, found: Reservation | None) -> None:
        if found is not None and set(found.nodes) == set(want.nodes):
            return
        if want.nodes:
            await self._link.reserve(want, self._config.user_name, exists=found is not None)

    def _told(
        self, name: str, wanted: Mapping[str, Wanted], troubles: Mapping[str, str], found: Mapping[str, Reservation]
    ) -> Applied:
        """Return what a window gets: nothing new where Slurm has refused it; and, once, what else went wrong."""
        want = wanted.get(name)
        if want is None:
            return Applied(0.0, "nothing is asked for")
        stale = "; ".join(text for other, text in troubles.items() if other not in wanted)
        if name in troubles:
            kept_w = self._power_w(len(found[name].nodes)) if name in found else 0.0
            return Applied(min(kept_w, want.asked_w), "; ".join(filter(None, (troubles[name], stale))))
        detail = f"{name}: {len(want.reservation.nodes)} nodes"
        if want.power_w < want.asked_w:
            detail += f"; short by {want.asked_w - want.power_w:.0f} W"
        return Applied(min(want.power_w, want.asked_w), "; ".join(filter(None, (detail, stale))))

    def _wanted(
        self,
        windows: Sequence[Window],
        found: Mapping[str, Reservation],
        picture: Picture,
        on: Mapping[str, bool],
    ) -> dict[str, Wanted]:
        """Return one reservation per span of time; those that overlap have no node in common."""
        asked_w: dict[tuple[datetime, datetime], float] = {}
        for window in windows:
            span = window.start, window.end
            if window.power_w > 0.0:
                asked_w[span] = asked_w.get(span, 0.0) + window.power_w
        wanted: dict[str, Wanted] = {}
        for (start, end), power_w in sorted(asked_w.items()):
            name = self._name(start, end)
            taken = {
                node
                for other in wanted.values()
                if other.reservation.start < end and start < other.reservation.end
                for node in other.reservation.nodes
            }
            old = set(found[name].nodes) if name in found else set()
            free = sorted(picture.spots.keys() - taken, key=lambda node: (node not in old, *_rank(node, picture, on)))
            chosen = free[: math.ceil(power_w / self._power_w(1) - 1e-9)]
            covered_w = self._power_w(len(chosen))
            wanted[name] = Wanted(Reservation(name, start, end, tuple(sorted(chosen))), covered_w, power_w)
        return wanted

    def _power_w(self, nodes: int) -> float:
        """Return what so many nodes do not draw while nothing runs on them. [W]"""
        return nodes * max(self._config.node_max_w - self._config.node_idle_w, 1.0)

    def _name(self, start: datetime, end: datetime) -> str:
        return self._prefix + _hash(str(start.timestamp()), str(end.timestamp()))[:10]


def _rank(name: str, picture: Picture, on: Mapping[str, bool]) -> tuple[float, str]:
    """Return the order in which nodes are taken: those with the least work that may never be touched first."""
    spot = picture.spots[name]
    firm_w = sum(w for i, w in spot.full_w.items() if picture.loads[i].tier == 0)
    return (firm_w if on.get(name, True) else _OFF), name


def _hash(*words: str) -> str:
    return sha256("\n".join(words).encode()).hexdigest()

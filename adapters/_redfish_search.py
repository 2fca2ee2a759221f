"""Finds where a BMC keeps the power limits of its node, and where it says what the node draws."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

from adapters._redfish_limits import Json, Place, Style, power_beside
from adapters._redfish_link import Answer, BmcLink, NotThere
from vppd.errors import Garbled, Refused

_PARTS = frozenset({"Module", "Component", "Card", "Cartridge"})
"""Chassis of these types are parts of a node."""
_ACCELERATORS = frozenset({"GPU", "Accelerator"})


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in one BMC."""

    places: tuple[Place, ...]
    whole: bool
    """The limit covers all the node draws, not GPUs or modules alone."""
    meters: tuple[str, ...]
    """Resources that say what the node draws; empty: the limits' own readings are all there is."""


@dataclass(slots=True)
class _Chassis:
    path: str
    body: Json
    within: str
    metrics: tuple[str, Json] | None = None
    power: tuple[str, Json] | None = None


class Search:
    """One walk through one BMC's tree."""

    def __init__(self, link: BmcLink, limit_by: str) -> None:
        self._link = link
        self._ways = ("chassis", "control", "power", "processors") if limit_by == "auto" else (limit_by,)
        self._chassis: list[_Chassis] = []

    async def layout(self) -> Layout:
        """Return where limits and meters are. Raises Refused when there is no limit, Unreachable or Garbled."""
        async for path, answer in self._members("/redfish/v1/Chassis"):
            self._chassis.append(_Chassis(path, answer.body, _link_of(answer.body.get("Links"), "ContainedBy")))
        for way in self._ways:
            places, whole = await self._by(way)
            if places:
                return Layout(tuple(places), whole, await self._meters())
        raise Refused(
            f"{self._link.name}: its BMC has no power limit that can be set (looked for {', '.join(self._ways)})"
        )

    async def _by(self, way: str) -> tuple[list[Place], bool]:
        if way == "processors":
            return await self._in_processors(), False
        found = await {"chassis": self._in_metrics, "control": self._in_controls, "power": self._in_power}[way]()
        kept = self._topmost(found)
        places = [place for chassis in kept for place in found[chassis.path]]
        whole = len(places) == 1 and kept[0].body.get("ChassisType") not in _PARTS
        return places, whole

    def _topmost(self, found: Iterable[str]) -> list[_Chassis]:
        """Return the chassis among ``found`` that are not contained in another of them."""
        within = {chassis.path: chassis.within for chassis in self._chassis}
        wanted = set(found)

        def outer(path: str) -> bool:
            seen = {path}
            while (path := within.get(path, "")) and path not in seen:
                if path in wanted:
                    return False
                seen.add(path)
            return True

        return [chassis for chassis in self._chassis if chassis.path in wanted and outer(chassis.path)]

    async def _in_metrics(self) -> dict[str, list[Place]]:
        found = {}
        for chassis in self._chassis:
            metrics = await self._metrics(chassis)
            if metrics is not None and (place := _limit_in_metrics(*metrics)):
                found[chassis.path] = [place]
        return found

    async def _in_controls(self) -> dict[str, list[Place]]:
        found = {}
        for chassis in self._chassis:
            path = _link_of(chassis.body, "Controls")
            places = [
                Place(at, Style.CONTROL) async for at, answer in self._members(path, "power") if _is_limit(answer)
            ]
            if places:
                found[chassis.path] = places[:1]
        return found or await self._in_system_controls()

    async def _in_system_controls(self) -> dict[str, list[Place]]:
        """Return the first limit among the Controls of the systems; it counts as the first chassis's."""
        async for _, system in self._members("/redfish/v1/Systems"):
            async for at, answer in self._members(_link_of(system.body, "Controls"), "power"):
                if _is_limit(answer) and self._chassis:
                    return {self._chassis[0].path: [Place(at, Style.CONTROL)]}
        return {}

    async def _in_power(self) -> dict[str, list[Place]]:
        found = {}
        for chassis in self._chassis:
            power = await self._power(chassis)
            entries = power[1].get("PowerControl") if power else None
            for index, entry in enumerate(entries if isinstance(entries, list) else ()):
                limit = entry.get("PowerLimit") if isinstance(entry, dict) else None
                if power and isinstance(limit, dict) and "LimitInWatts" in limit:
                    found[chassis.path] = [Place(power[0], Style.POWER, index)]
                    break  # the entries after it are parts: processors, memory
        return found

    async def _in_processors(self) -> list[Place]:
        places = []
        async for _, system in self._members("/redfish/v1/Systems"):
            async for _, processor in self._members(_link_of(system.body, "Processors")):
                if processor.body.get("ProcessorType") in _ACCELERATORS:
                    metrics = await self._read(_link_of(processor.body, "EnvironmentMetrics"))
                    if metrics is not None and (place := _limit_in_metrics(*metrics)):
                        places.append(place)
        return places

    async def _meters(self) -> tuple[str, ...]:
        found: dict[str, str] = {}
        for chassis in self._chassis:
            metrics = await self._metrics(chassis)
            if metrics is not None and power_beside(metrics[1]) is not None:
                found[chassis.path] = metrics[0]
        if not found:
            for chassis in self._chassis:
                power = await self._power(chassis)
                if power is not None and power_beside(power[1]) is not None:
                    found[chassis.path] = power[0]
        kept = [c for c in self._topmost(found) if c.body.get("ChassisType") not in _PARTS]
        return tuple(found[chassis.path] for chassis in kept)

    async def _metrics(self, chassis: _Chassis) -> tuple[str, Json] | None:
        if chassis.metrics is None:
            chassis.metrics = await self._read(_link_of(chassis.body, "EnvironmentMetrics")) or ("", {})
        return chassis.metrics if chassis.metrics[0] else None

    async def _power(self, chassis: _Chassis) -> tuple[str, Json] | None:
        if chassis.power is None:
            chassis.power = await self._read(_link_of(chassis.body, "Power")) or ("", {})
        return chassis.power if chassis.power[0] else None

    async def _read(self, path: str) -> tuple[str, Json] | None:
        """Return a resource, None when there is no such thing."""
        if not path:
            return None
        try:
            return path, (await self._link.get(path)).body
        except NotThere:
            return None

    async def _members(self, path: str, containing: str = "") -> AsyncIterator[tuple[str, Answer]]:
        """Yield the members of a collection whose names contain a word; none when there is no collection."""
        while path:
            found = await self._read(path)
            if found is None:
                return
            for member in _list(found[1].get("Members")):
                at = _path(member)
                if at and containing in at.rpartition("/")[2].lower():
                    yield at, await self._link.get(at)
            path = _safe(found[1].get("Members@odata.nextLink"))


def _limit_in_metrics(path: str, body: Json) -> Place | None:
    """Return where the limit of an EnvironmentMetrics is to be written: there, or in the Control it is an excerpt of."""
    limit = body.get("PowerLimitWatts")
    if not isinstance(limit, dict) or "SetPoint" not in limit:
        return None
    source = _safe(limit.get("DataSourceUri"))
    return Place(source, Style.CONTROL) if "/Controls/" in source else Place(path, Style.METRICS)


def _is_limit(answer: Answer) -> bool:
    return answer.body.get("ControlType", "Power") == "Power" and "SetPoint" in answer.body


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Garbled("a collection whose members are no list")
    return value


def _link_of(body: object, key: str) -> str:
    return _path(body.get(key)) if isinstance(body, dict) else ""


def _path(reference: object) -> str:
    return _safe(reference.get("@odata.id")) if isinstance(reference, dict) else ""


def _safe(path: object) -> str:
    """Return a path within the BMC, or nothing: an answer never sends us to another host."""
    return path if isinstance(path, str) and path.startswith("/redfish/") else ""

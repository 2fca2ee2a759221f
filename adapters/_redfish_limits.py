"""What Redfish says of one power limit, in three dialects, and how each is written. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vppd.errors import Garbled, Refused

Json = dict[str, Any]
OFF = "Disabled"


class Style(StrEnum):
    """Where in a resource a limit is."""

    METRICS = "metrics"
    """``PowerLimitWatts.SetPoint`` of EnvironmentMetrics."""
    CONTROL = "control"
    """``SetPoint`` of a Control."""
    POWER = "power"
    """``PowerControl[].PowerLimit.LimitInWatts`` of the old Power resource."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one limit lives."""

    path: str
    style: Style
    index: int = 0
    """Which entry of PowerControl."""


@dataclass(frozen=True, slots=True)
class Prior:
    """A limit as it was before we changed it, in its own words."""

    place: Place
    value: float | None
    """In the BMC's own unit."""
    mode: str = ""

    def to_body(self) -> Json:
        """Return plain JSON values that ``from_body`` turns back into an equal Prior."""
        place = self.place
        where = {"path": place.path, "style": place.style.value, "index": place.index}
        return {**where, "value": self.value, "mode": self.mode}

    @classmethod
    def from_body(cls, body: Json) -> Prior:
        """Return the Prior that ``to_body`` described. Raises ValueError, KeyError or TypeError."""
        place = Place(str(body["path"]), Style(body["style"]), int(body["index"]))
        return cls(place, None if body["value"] is None else float(body["value"]), str(body["mode"]))


@dataclass(frozen=True, slots=True)
class Limit:
    """What a BMC says of one limit."""

    place: Place
    value: float | None
    """The set point in the BMC's own unit; None: there is none."""
    mode: str = ""
    """ControlMode; empty where there is no such thing."""
    modes: tuple[str, ...] = ()
    """What ControlMode may be, where that is told."""
    scale: float | None = 1.0
    """Watts of one unit of the set point: 1, or a hundredth of full power; None: not known."""
    min_w: float = 0.0
    max_w: float | None = None
    power_w: float | None = None
    """What is measured beside it. [W]"""
    etag: str = ""

    @property
    def set_w(self) -> float | None:
        """Return the limit in force, None when there is none. [W]"""
        if self.mode == OFF or self.value is None or self.scale is None:
            return None
        return self.value * self.scale

    def prior(self) -> Prior:
        """Return what must be written to have it as it is now."""
        return Prior(self.place, self.value, self.mode)

    def units(self, limit_w: float) -> int:
        """Return a limit as a whole number of the BMC's units, within what it allows. Raises Refused. [W]"""
        if self.scale is None:
            raise Refused(f"{self.place.path}: its limit is in percent of nobody knows what; give percent_of_w")
        low = math.ceil(self.min_w / self.scale - 1e-6)
        high = math.inf if self.max_w is None else math.floor(self.max_w / self.scale + 1e-6)
        return int(max(low, min(high, math.floor(limit_w / self.scale + 1e-6))))

    def is_prior(self, prior: Prior) -> bool:
        """Say whether it is as it was."""
        if self.mode == OFF == prior.mode:
            return True
        same = self.value == prior.value or (
            self.value is not None and prior.value is not None and math.isclose(self.value, prior.value, abs_tol=0.5)
        )
        return same and self.mode == prior.mode

    def to_cap(self, units: int) -> Json:
        """Return the body that sets the limit and puts it in force."""
        return _body(self.place, units, self.mode_for_cap())

    def mode_for_cap(self) -> str:
        """Return the ControlMode to write; empty: the present one will do."""
        if not self.mode:
            return ""
        wanted = "Manual" if self.place.style is Style.CONTROL else "Automatic"
        if self.modes and wanted not in self.modes:
            wanted = next((mode for mode in ("Manual", "Automatic", "Override") if mode in self.modes), wanted)
        in_force = self.mode != OFF and (self.place.style is not Style.CONTROL or self.mode == wanted)
        return "" if in_force else wanted


def to_restore(prior: Prior) -> tuple[list[Json], list[Json]]:
    """Return the bodies that put a limit back: all in one, and for a BMC that refuses this, one thing after the other."""
    whole = [_body(prior.place, prior.value, prior.mode)]
    if not prior.mode or prior.place.style is Style.POWER:
        return whole, whole
    parts = [] if prior.value is None else [_body(prior.place, prior.value, "")]
    return whole, [*parts, _mode(prior.place, prior.mode)]


def _body(place: Place, value: float | None, mode: str) -> Json:
    # Some BMCs take whole numbers only.
    set_point = int(value) if value is not None and float(value).is_integer() else value
    if place.style is Style.POWER:
        return {"PowerControl": [{}] * place.index + [{"PowerLimit": {"LimitInWatts": set_point}}]}
    fields = {"SetPoint": set_point, **({"ControlMode": mode} if mode else {})}
    return {"PowerLimitWatts": fields} if place.style is Style.METRICS else fields


def _mode(place: Place, mode: str) -> Json:
    return {"PowerLimitWatts": {"ControlMode": mode}} if place.style is Style.METRICS else {"ControlMode": mode}


def read_limit(place: Place, body: Json, etag: str, percent_of_w: float | None) -> Limit:
    """Return what a resource says of its limit. Raises Garbled."""
    try:
        if place.style is Style.POWER:
            return _from_power(place, body["PowerControl"][place.index], etag)
        return _from_control(place, body, etag, percent_of_w)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Garbled(f"{place.path}: has no power limit any more ({error})") from error


def _from_power(place: Place, entry: Json, etag: str) -> Limit:
    limit_w = _number(entry["PowerLimit"]["LimitInWatts"])
    # Some say "no limit" by 0.
    return Limit(
        place,
        limit_w,
        max_w=_number(entry.get("PowerCapacityWatts")) or None,
        mode=OFF if limit_w == 0.0 else "",
        power_w=_number(entry.get("PowerConsumedWatts")),
        etag=etag,
    )


def _from_control(place: Place, body: Json, etag: str, percent_of_w: float | None) -> Limit:
    said = body["PowerLimitWatts"] if place.style is Style.METRICS else body
    low, high = _number(said.get("AllowableMin")), _number(said.get("AllowableMax"))
    scale: float | None = 1.0
    if place.style is Style.CONTROL and str(said.get("SetPointUnits", "")).strip() in ("%", "Percent"):
        scale, low, high = _in_watts(low, high, percent_of_w)
    return Limit(
        place,
        _number(said["SetPoint"]),
        mode=str(said.get("ControlMode") or ""),
        modes=tuple(map(str, said.get("ControlMode@Redfish.AllowableValues") or ())),
        scale=scale,
        min_w=low or 0.0,
        max_w=high or None,
        power_w=power_beside(body),
        etag=etag,
    )


InItsUnit = float
"""A number in the unit of the control that says it."""


def _in_watts(
    low: InItsUnit | None, high: InItsUnit | None, percent_of_w: float | None
) -> tuple[float | None, float | None, float | None]:
    """Return watts per percent, and a control's range. [W] None is not known.

    The range is in watts where it goes beyond 100; else the hundred percent must be told.
    """
    if high is not None and high > 100.0:
        return high / 100.0, low, high
    if percent_of_w is None:
        return None, None, None
    scale = percent_of_w / 100.0
    return scale, None if low is None else low * scale, None if high is None else high * scale


def power_beside(body: Json) -> float | None:
    """Return what EnvironmentMetrics (or a Control's sensor, or the old Power resource) measures; None for nothing. [W]"""
    control = body.get("PowerControl")
    if isinstance(control, list) and control and isinstance(control[0], dict):
        return _number(control[0].get("PowerConsumedWatts"))
    for key in ("PowerWatts", "Sensor"):
        sensor = body.get(key)
        if isinstance(sensor, dict):
            return _number(sensor.get("Reading"))
    return None


def _number(value: object) -> float | None:
    """Return a finite number that is not negative, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0.0:
        return None
    return float(value)

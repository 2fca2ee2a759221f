"""What a JSON device has said: the newest live value of each point, and the device's own clock."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters._json_points import LIVE_ROLES, Sequence, at, decode, epoch_s, quantity
from adapters._json_profile import Point
from adapters._mqtt_news import Heard
from vppd.errors import Garbled
from vppd.model import Sample

BAD_IN_A_ROW = 3
"""So many senseless messages on a topic are no accident."""


@dataclass(frozen=True, slots=True)
class Known:
    """A value and until when it is good."""

    value: float | str | bool | None
    until_s: float


class DeviceState:
    """Newest values by role, filled from messages; retained ones are history and change nothing."""

    def __init__(self, points: Mapping[str, list[Point]]) -> None:
        self._points = points
        self._known: dict[str, Known] = {}
        self._sequences: dict[str, Sequence] = {}
        self._bad: dict[str, int] = {}
        self._ahead_s: float | None = None
        self.spoke = asyncio.Event()
        """The device has told its time in a live message."""

    def take(self, heard: Heard) -> bool:
        """Take a message; say whether it brought news. Raises Garbled after several senseless ones in a row."""
        if heard.retained:
            return False
        try:
            is_news = self._read(heard)
        except Garbled as error:
            self._bad[heard.topic] = self._bad.get(heard.topic, 0) + 1
            if self._bad[heard.topic] >= BAD_IN_A_ROW:
                raise Garbled(f"{heard.topic}: {error}") from error
            return False
        self._bad[heard.topic] = 0
        return is_news

    def forget_old(self, now_s: float) -> bool:
        """Make values that are too old missing; say whether there were any."""
        old = [role for role, known in self._known.items() if known.value is not None and known.until_s <= now_s]
        for role in old:
            self._known[role] = Known(None, math.inf)
        return bool(old)

    def next_old_s(self) -> float:
        """Return when the next value becomes too old. [s, the loop's clock]"""
        return min((known.until_s for known in self._known.values() if known.value is not None), default=math.inf)

    def number(self, role: str) -> float | None:
        """Return a value that is good now, None when it is missing."""
        known = self._known.get(role)
        is_good = known is not None and known.until_s > asyncio.get_running_loop().time()
        return known.value if known is not None and is_good and isinstance(known.value, float) else None

    def device_time_s(self) -> float | None:
        """Return what the device's clock shows now, by its last message. [s since 1970]"""
        return None if self._ahead_s is None else asyncio.get_running_loop().time() + self._ahead_s

    def sample(self) -> Sample:
        """Return all values that are good now."""
        fault = self._known.get("fault")
        on_battery = self._known.get("on_battery")
        return Sample(
            power_w=self.number("power"),
            soc_frac=self.number("soc"),
            energy_wh=self.number("energy_import"),
            available_w=self.number("available_power"),
            lower_w=self.number("lower_power"),
            upper_w=self.number("upper_power"),
            setpoint_w=self.number("setpoint"),
            on_battery=on_battery is not None and on_battery.value is True,
            fault=str(fault.value) if fault is not None and fault.value else "",
        )

    def _read(self, heard: Heard) -> bool:
        document, points = decode(heard.payload), self._points[heard.topic]
        for point in points:
            if point.seq_pointer is not None:
                sequence = self._sequences.setdefault(heard.topic, Sequence())
                if not sequence.is_new(at(document, point.seq_pointer)):
                    return False
                break
        values: dict[str, Known] = {
            point.role: Known(_value(document, point), heard.mono_s + point.max_age_s) for point in points
        }
        self._set_clock(document, heard)
        self._known |= values
        return True

    def _set_clock(self, document: Any, heard: Heard) -> None:
        for point in self._points[heard.topic]:
            if point.time_pointer is not None:
                self._ahead_s = epoch_s(at(document, point.time_pointer)) - heard.mono_s
                self.spoke.set()


def _value(document: Any, point: Point) -> float | str | bool | None:
    if point.quality_pointer is not None and at(document, point.quality_pointer) not in point.good:
        return None
    raw, dimension = at(document, point.pointer), LIVE_ROLES.get(point.role)
    if dimension:
        return quantity(raw, dimension, point)
    if point.role == "on_battery" and not isinstance(raw, bool | None):
        raise Garbled(f"{raw!r} is neither true nor false")
    if point.role == "fault":
        return point.role if raw is True else str(raw or "")
    return raw if isinstance(raw, bool) else None

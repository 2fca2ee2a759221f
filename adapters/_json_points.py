"""Values in JSON messages: where they are, what they mean in our units and signs, and how long they are good."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol

from vppd.errors import Garbled

LIVE_ROLES: Mapping[str, str] = MappingProxyType(
    {
        "power": "W",
        "available_power": "W",
        "lower_power": "W",
        "upper_power": "W",
        "setpoint": "W",
        "soc": "frac",
        "energy_import": "Wh",
        "fault": "",
        "on_battery": "",
    }
)
"""Roles that reach a Sample, with their dimension; text and yes-or-no have none."""

_UNITS: Mapping[str, Mapping[str, float]] = {
    "W": {"W": 1.0, "kW": 1e3, "MW": 1e6},
    "Wh": {"Wh": 1.0, "kWh": 1e3, "MWh": 1e6},
    "frac": {"%": 0.01, "frac": 1.0},
}
REORDERED = 32
"""A sequence number lower by up to this is an old message; lower by more is a device that began anew."""
_MILLISECONDS = 1e11
"""Epoch numbers from here on are milliseconds."""


class Meaning(Protocol):
    """What the adapter needs to know of a point to read it."""

    @property
    def unit(self) -> str:
        """As the device sends it."""
        ...

    @property
    def scale(self) -> float:
        """Factor before the unit."""
        ...

    @property
    def offset(self) -> float:
        """Added after scaling."""
        ...

    @property
    def positive(self) -> str | None:
        """What the device's + means."""
        ...

    @property
    def range(self) -> tuple[float, float] | None:
        """Allowed after scaling."""
        ...


def factor(dimension: str, unit: str) -> float:
    """Return what turns ``unit`` into W, Wh or a fraction. Raises ValueError."""
    known = _UNITS[dimension]
    if unit not in known:
        raise ValueError(f"unit: {unit!r} is not known (there are: {', '.join(known)})")
    return known[unit]


def decode(payload: bytes) -> Any:
    """Return the JSON value of a message. Raises Garbled, also for NaN and Infinity, which are not JSON."""
    try:
        return json.loads(payload, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"not JSON: {payload[:60]!r}") from error


def at(document: Any, pointer: str) -> Any:
    """Return the value a JSON pointer (RFC 6901) leads to. Raises Garbled when it leads nowhere."""
    value = document
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        try:
            value = value[int(name)] if isinstance(value, list) else value[name]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise Garbled(f"nothing at {pointer}") from error
    return value


def placed(pointer: str, value: Any) -> Any:
    """Return a document that has ``value`` at ``pointer`` and nothing else."""
    for part in reversed(pointer.split("/")[1:]):
        value = {part.replace("~1", "/").replace("~0", "~"): value}
    return value


def quantity(raw: Any, dimension: str, meaning: Meaning) -> float | None:
    """Return a number of the device in W, Wh or as a fraction, + = into the asset; None for null. Raises Garbled."""
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise Garbled(f"{raw!r} is not a number")
    try:
        value = float(raw) * meaning.scale + meaning.offset
    except OverflowError as error:
        raise Garbled("a number beyond all measure") from error
    lower, upper = meaning.range or (-math.inf, math.inf)
    if not math.isfinite(value) or not lower <= value <= upper:
        raise Garbled(f"{raw!r} is out of range")
    sign = -1.0 if meaning.positive == "export" else 1.0
    return value * sign * factor(dimension, meaning.unit)


def epoch_s(raw: Any) -> float:
    """Return a device's time, RFC 3339 text or epoch seconds or milliseconds, as epoch seconds. Raises Garbled."""
    if isinstance(raw, str):
        try:
            when = datetime.fromisoformat(raw)
        except ValueError as error:
            raise Garbled(f"{raw!r} is not a time") from error
        if when.tzinfo is None:
            raise Garbled(f"{raw!r} has no time zone")
        return when.timestamp()
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0.0 < raw < 1e14:
        raise Garbled(f"{raw!r} is not a time")
    return raw / 1e3 if raw >= _MILLISECONDS else float(raw)


class Sequence:
    """Tells new messages of one topic from repeated and overtaken ones."""

    def __init__(self) -> None:
        self._newest: int | None = None

    def is_new(self, raw: Any) -> bool:
        """Say whether a message with this number brings news. Raises Garbled."""
        if isinstance(raw, bool) or not isinstance(raw, int):
            raise Garbled(f"{raw!r} is not a sequence number")
        if self._newest is not None and self._newest - REORDERED <= raw <= self._newest:
            return False
        self._newest = raw
        return True


def _refuse(name: str) -> float:
    raise ValueError(name)

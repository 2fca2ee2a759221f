"""What node agents and we say to each other over MQTT, from our side. Pure.

Topics are ``vpp/agent/v1/{site}/{node}/...``: ``cap/set`` is ours, ``cap/status``, ``telemetry`` and ``availability`` are the agent's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vppd.errors import Garbled

ROOT = "vpp/agent/v1"
_POWERS = ("power_w", "cap_w", "min_cap_w", "max_cap_w", "default_cap_w")
TELEMETRY, STATUS, AVAILABILITY, SET = "telemetry", "cap/status", "availability", "cap/set"


class Device(NamedTuple):
    """A GPU or a CPU package as the agent measures it; what it does not know is None."""

    kind: str
    name: str
    power_w: float | None
    cap_w: float | None
    """The limit now. [W]"""
    min_cap_w: float | None
    max_cap_w: float | None
    default_cap_w: float | None
    clock_mhz: int | None

    @property
    def most_w(self) -> float | None:
        """Return the most it can draw by its limits, None where no limit is known. [W]"""
        return self.max_cap_w if self.max_cap_w is not None else self.cap_w


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a node draws."""

    devices: Mapping[str, Device]
    told_w: float | None = None
    """The node's own sum, for agents that name no device. [W]"""

    @property
    def power_w(self) -> float | None:
        """Return what the devices draw together; None when that of one is not known. [W]"""
        total_w = 0.0
        for device in self.devices.values():
            if device.power_w is None:
                return None
            total_w += device.power_w
        return total_w if self.devices else self.told_w


class Held(NamedTuple):
    """What became of one device's limit."""

    outcome: str
    """confirmed, rejected or unknown."""
    cap_w: float | None
    prior_w: float | None
    """The limit that was there before, and comes back. [W]"""
    detail: str

    @property
    def freed_w(self) -> float:
        """Return how much less than before it may draw, 0 when that is not known. [W]"""
        return 0.0 if self.cap_w is None or self.prior_w is None else max(self.prior_w - self.cap_w, 0.0)


@dataclass(frozen=True, slots=True)
class Status:
    """What an agent says of the caps on its node."""

    id: str
    """The id of the set that it answers; empty when it answers none."""
    state: str
    """idle, held or restoring."""
    sender: str
    cap_w: float | None
    """The cap of the node; None for none. [W]"""
    min_cap_w: float | None
    max_cap_w: float | None
    devices: Mapping[str, Held] = field(default_factory=dict)
    detail: str = ""

    @property
    def is_held(self) -> bool:
        """Say whether anything is held down."""
        return self.state == "held"

    @property
    def rejected(self) -> list[str]:
        """Return the devices that said no, with their reasons."""
        return [f"{name}: {d.detail or d.outcome}" for name, d in self.devices.items() if d.outcome == "rejected"]

    @property
    def in_force_w(self) -> float | None:
        """Return what holds for the node: the sum over its devices where one said no, else the node's cap; None when it is not known. [W]"""
        if not self.is_held:
            return None
        if self.cap_w is not None and all(d.outcome == "confirmed" for d in self.devices.values()):
            return self.cap_w
        if self.max_cap_w is None:
            return None
        # What is not known of a device is what the node's most leaves for it.
        return max(self.max_cap_w - sum(d.freed_w for d in self.devices.values()), 0.0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a node's agent is to hold: absolute; all None and empty gives everything back."""

    cap_w: float | None = None
    """Power of all capped devices of the node together. [W]"""
    clock_mhz: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Lowest and highest SM clock by device."""


def cap_set(id_: str, seq: int, sender: str, wanted: Wanted, lease_s: float) -> bytes:
    """Return a message that orders ``wanted`` for ``lease_s``."""
    body: dict[str, Any] = {
        "id": id_,
        "seq": seq,
        "from": sender,
        "lease_s": round(lease_s, 3),
        "node_cap_w": None if wanted.cap_w is None else round(wanted.cap_w, 1),
        "devices": {name: {"clock_mhz": list(span)} for name, span in wanted.clock_mhz.items()},
    }
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def telemetry(payload: bytes) -> Telemetry:
    """Return what an agent measures. Raises Garbled."""
    said = _object(payload)
    return Telemetry({name: _device(name, d) for name, d in _devices(said)}, _number(said, "power_w"))


def status(payload: bytes) -> Status:
    """Return what an agent says of its caps. Raises Garbled."""
    said = _object(payload)
    node = said.get("node") or {}
    if not isinstance(node, dict) or said.get("state") not in ("idle", "held", "restoring"):
        raise Garbled("a cap status without a state, or with a node that is no object")
    return Status(
        id=str(said.get("id") or ""),
        state=said["state"],
        sender=str(said.get("from") or ""),
        cap_w=_number(node, "cap_w"),
        min_cap_w=_number(node, "min_cap_w"),
        max_cap_w=_number(node, "max_cap_w"),
        devices={name: _held(d) for name, d in _devices(said)},
        detail=str(said.get("detail") or ""),
    )


def _device(name: str, said: dict[str, Any]) -> Device:
    clock_mhz = _number(said, "clock_mhz")
    power_w, cap_w, min_cap_w, max_cap_w, default_cap_w = _numbers(said, _POWERS)
    return Device(
        str(said.get("kind") or ""),
        str(said.get("name") or name),
        power_w,
        cap_w,
        min_cap_w,
        max_cap_w,
        default_cap_w,
        None if clock_mhz is None else int(clock_mhz),
    )


def _held(said: dict[str, Any]) -> Held:
    outcome = str(said.get("outcome") or "unknown")
    return Held(outcome, _number(said, "cap_w"), _number(said, "prior_w"), str(said.get("detail") or ""))


def _object(payload: bytes) -> dict[str, Any]:
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"no JSON: {payload[:40]!r}") from error
    if not isinstance(said, dict):
        raise Garbled(f"no JSON object: {payload[:40]!r}")
    return said


def _devices(said: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    devices = said.get("devices") or {}
    if not isinstance(devices, dict) or not all(isinstance(d, dict) for d in devices.values()):
        raise Garbled("devices is no object of objects")
    return list(devices.items())


def _numbers(said: dict[str, Any], keys: tuple[str, ...]) -> list[float | None]:
    values = [said.get(key) for key in keys]
    for value in values:
        # Nearly always a float or nothing, and ten thousand devices a second say so.
        if value is not None and (type(value) is not float or not 0.0 <= value < math.inf):
            return [_number(said, key) for key in keys]
    return values


def _number(said: dict[str, Any], key: str) -> float | None:
    """Return a number >= 0, None where there is none. Raises Garbled for anything else."""
    value = said.get(key)
    if value is None or (
        type(value) is float and 0.0 <= value < math.inf
    ):  # nearly always: ten thousand devices a second
        return value
    if isinstance(value, bool) or not isinstance(value, float | int) or not 0.0 <= value < math.inf:
        raise Garbled(f"{key} is {str(value)[:40]}")
    return float(value)

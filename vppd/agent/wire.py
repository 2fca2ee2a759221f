"""The agent's messages: ``vpp/agent/v1/{site}/{node}/...``, JSON. Pure, both directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from vppd.agent.device import Clocks, Device, Limits, Reading
from vppd.errors import Garbled
from vppd.grid.strict_json import Json, dump, parse_object

LONGEST_PAYLOAD = 65_536
"""A longer command is not read. [bytes]"""
LONGEST_TEXT = 128
State = Literal["idle", "held", "restoring"]
Verdict = Literal["confirmed", "rejected", "unknown"]


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one node."""

    site: str
    node: str

    @property
    def cap_set(self) -> str:
        """Commands to the agent: QoS 1, never retained."""
        return f"vpp/agent/v1/{self.site}/{self.node}/cap/set"

    @property
    def cap_status(self) -> str:
        """What the agent holds: QoS 1, retained."""
        return f"vpp/agent/v1/{self.site}/{self.node}/cap/status"

    @property
    def telemetry(self) -> str:
        """Readings: QoS 0."""
        return f"vpp/agent/v1/{self.site}/{self.node}/telemetry"

    @property
    def availability(self) -> str:
        """``online`` or ``offline``: QoS 1, retained, last will."""
        return f"vpp/agent/v1/{self.site}/{self.node}/availability"


@dataclass(frozen=True, slots=True)
class Ask:
    """What a command says of one device; None is: as it was before us."""

    cap_w: float | None = None
    clocks: Clocks | None = None
    says_cap: bool = True
    """False: the command names the device without a word on its power, so a node cap covers it still."""


@dataclass(frozen=True, slots=True)
class Command:
    """``cap/set``: absolute; a device that is not named goes back to what it was."""

    id: str
    sender: str
    seq: int
    lease_s: float
    node_cap_w: float | None = None
    devices: Mapping[str, Ask] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one device stands after a command."""

    outcome: Verdict
    cap_w: float | None = None
    """The cap that is held; None: none of ours. [W]"""
    prior_w: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """``cap/status``."""

    at: datetime
    state: State
    id: str = ""
    sender: str = ""
    lease_s: float = 0.0
    node_cap_w: float | None = None
    min_cap_w: float = 0.0
    max_cap_w: float = 0.0
    devices: Mapping[str, Outcome] = field(default_factory=dict)
    detail: str = ""


def decode_command(payload: bytes) -> Command:
    """Return the command in ``payload``. Raises Garbled, naming the key and what is allowed."""
    if len(payload) > LONGEST_PAYLOAD:
        raise Garbled(f"longer than {LONGEST_PAYLOAD} bytes")
    raw = parse_object(payload)
    _only(raw, "", "id", "seq", "from", "lease_s", "node_cap_w", "devices")
    seq, devices = raw.get("seq"), raw.get("devices")
    if not isinstance(seq, int) or isinstance(seq, bool) or not 0 <= seq < 1 << 63:
        raise Garbled("seq: a whole number, 0 or more")
    if devices is not None and not isinstance(devices, dict):
        raise Garbled("devices: an object")
    lease_s = _number(raw, "lease_s")
    if lease_s is None:
        raise Garbled("lease_s: a number of seconds")
    asks = {name: _ask(name, ask) for name, ask in (devices or {}).items()}
    return Command(_word(raw, "id"), _word(raw, "from"), seq, lease_s, _number(raw, "node_cap_w"), asks)


def id_of(payload: bytes) -> str:
    """Return the id of a command that may be wrong otherwise, so that its sender can be told; '' without one."""
    try:
        return _word(parse_object(payload[: LONGEST_PAYLOAD + 1]), "id")
    except Garbled:
        return ""


def encode_command(command: Command) -> bytes:
    """Return the message of a command."""
    devices: dict[str, Json] = {}
    for name, ask in command.devices.items():
        devices[name] = {"clock_mhz": None if ask.clocks is None else list(ask.clocks)}
        devices[name] |= {"cap_w": ask.cap_w} if ask.says_cap else {}  # type: ignore[operator]
    return dump(
        {
            "id": command.id,
            "from": command.sender,
            "seq": command.seq,
            "lease_s": command.lease_s,
            "node_cap_w": command.node_cap_w,
            "devices": devices,
        }
    )


def encode_status(status: Status) -> bytes:
    """Return the message of a status."""
    devices: dict[str, Json] = {
        name: {"cap_w": _round(o.cap_w), "prior_w": _round(o.prior_w), "outcome": o.outcome, "detail": o.detail}
        for name, o in status.devices.items()
    }
    return dump(
        {
            "id": status.id,
            "at": _stamp(status.at),
            "lease_s": _round(status.lease_s),
            "state": status.state,
            "from": status.sender,
            "node": {
                "cap_w": _round(status.node_cap_w),
                "min_cap_w": _round(status.min_cap_w),
                "max_cap_w": _round(status.max_cap_w),
            },
            "devices": devices,
            "detail": status.detail,
        }
    )


def encode_telemetry(at: datetime, devices: Mapping[str, tuple[Device, Reading]]) -> bytes:
    """Return the message of all devices' readings; what is not known is absent."""
    said: dict[str, Json] = {name: device_json(device, reading) for name, (device, reading) in devices.items()}
    powers_w = [r.power_w for _, r in devices.values()]
    known_w = [p for p in powers_w if p is not None]
    # A sum with a part missing would look like a node that draws less.
    total: dict[str, Json] = {"power_w": _round(sum(known_w))} if known_w and len(known_w) == len(powers_w) else {}
    return dump({"at": _stamp(at), **total, "devices": said})


def device_json(device: Device, reading: Reading) -> dict[str, Json]:
    """Return one device's part of the telemetry."""
    limits: Limits | None = device.limits
    values: dict[str, Json] = {
        "power_w": _round(reading.power_w),
        "utilisation_frac": reading.utilisation_frac,
        "energy_j": _round(reading.energy_ws),
        "cap_w": _round(reading.cap_w),
        "min_cap_w": _round(limits.min_w) if limits and limits.min_w else None,
        "max_cap_w": _round(limits.max_w) if limits else None,
        "default_cap_w": _round(limits.default_w) if limits else None,
        "clock_mhz": reading.clock_mhz,
        "temperature_c": reading.temperature_c,
    }
    return {"kind": device.kind, **device.about(), **{k: v for k, v in values.items() if v is not None}}


def _ask(name: str, raw: Any) -> Ask:
    where = f"devices.{name}."
    if raw is None:
        return Ask()
    if not isinstance(raw, dict):
        raise Garbled(f"devices.{name}: an object")
    _only(raw, where, "cap_w", "clock_mhz")
    return Ask(_number(raw, "cap_w", where), _clocks(raw.get("clock_mhz"), where), "cap_w" in raw)


def _clocks(raw: Any, where: str) -> Clocks | None:
    if raw is None:
        return None
    if not isinstance(raw, list) or len(raw) != 2 or not all(type(clock) is int for clock in raw):
        raise Garbled(f"{where}clock_mhz: two whole numbers, or null")
    low, high = raw
    if not 0 < low <= high <= 100_000:
        raise Garbled(f"{where}clock_mhz: least and most in MHz, above 0")
    return low, high


def _only(raw: Mapping[str, Any], where: str, *known: str) -> None:
    unknown = sorted(raw.keys() - set(known))
    if unknown:
        raise Garbled(f"{where}{unknown[0]}: unknown; there are {', '.join(known)}")


def _word(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_TEXT:
        raise Garbled(f"{key}: a text of 1 to {LONGEST_TEXT} characters")
    return value


def _number(raw: Mapping[str, Any], key: str, where: str = "") -> float | None:
    value = raw.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1e9:
        raise Garbled(f"{where}{key}: a number from 0 to 1e9, or null")
    return float(value)


def _round(value: float | None) -> float | None:
    """Milliwatts are what the devices know."""
    return None if value is None else round(value, 3)


def _stamp(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

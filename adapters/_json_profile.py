"""Profiles of devices that speak JSON over MQTT: topics, pointers, units, signs, ages; never hosts.

The keys are those of a register profile where they mean the same. A profile is a TOML file, named in
``connection.profile``, or the same keys in line. ``{base}`` and further names in topics come from the connection.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from adapters._device_files import content_of, find
from adapters._json_points import LIVE_ROLES, factor
from adapters._mqtt_config import MqttConfig
from vppd.errors import ConfigError

Seconds = Annotated[float, Field(ge=0.0)]
InDeviceUnit = float
"""A number in the device's own unit, which the key ``unit`` beside it tells."""
Scalar = float | int | str | bool


def _pointer(text: str) -> str:
    if text and not text.startswith("/"):
        raise ValueError('a JSON pointer is "" or begins with "/"')
    return text


def _topic(text: str) -> str:
    if "+" in text or "#" in text:
        raise ValueError("a topic without + and # is needed")
    return text


Pointer = Annotated[str, AfterValidator(_pointer)]
Topic = Annotated[str, AfterValidator(_topic)]
Role = Literal[
    "power", "soc", "energy_import", "available_power", "lower_power", "upper_power", "setpoint", "fault", "on_battery",
    "energy_export", "soh", "runtime", "frequency", "voltage", "current", "temperature", "state", "rated_power", "reserve_soc",
]  # fmt: skip
"""The first line reaches a Sample; the others are read by people only."""


class Part(BaseModel):
    """A table of a profile: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


class Bus(Part):
    """``[mqtt]``: how the device shows that it is there, and what it needs to go on speaking."""

    availability_topic: Topic = ""
    availability_pointer: Pointer = ""
    online: tuple[str, ...] = ("online",)
    keepalive_topic: Topic = ""
    keepalive_s: Seconds = 0.0

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if bool(self.keepalive_topic) != bool(self.keepalive_s):
            raise ValueError("keepalive_topic and keepalive_s belong together")
        return self


class Point(Part):
    """``[points.<name>]``: one value in the device's messages."""

    topic: Topic
    role: Role
    max_age_s: PositiveFloat
    pointer: Pointer = ""
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    positive: Literal["import", "export"] | None = None
    """What the device's + means."""
    range: tuple[float, float] | None = None
    """Allowed after scaling, in the device's unit."""
    time_pointer: Pointer | None = None
    seq_pointer: Pointer | None = None
    quality_pointer: Pointer | None = None
    good: tuple[Scalar, ...] = ()

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        dimension = LIVE_ROLES.get(self.role, "")
        if dimension:
            factor(dimension, self.unit)
        if dimension == "W" and self.positive is None:
            raise ValueError('positive: a power needs "import" or "export"')
        if (self.quality_pointer is None) != (not self.good):
            raise ValueError("quality_pointer and good belong together")
        return self


class Verify(Part):
    """``commands.<name>.verify``: the point that shows that a command without an answer was followed."""

    point: str
    point_delay_s: PositiveFloat
    point_tolerance_frac: PositiveFloat
    """Of the larger of ``min`` and ``max``. [0-1]"""


class Command(Part):
    """``[commands.<name>]``: a setpoint the device takes."""

    role: Literal["power", "power_limit"]
    topic: Topic
    unit: str
    positive: Literal["import", "export"]
    min: InDeviceUnit
    max: InDeviceUnit
    deadband: Annotated[InDeviceUnit, Field(ge=0.0)] = 0.0
    """A smaller change is not sent: the value before is sent again. [device unit]"""
    min_interval_s: Seconds = 0.0
    ramp_per_s: PositiveFloat | None = None
    persistence: Literal["volatile"]
    """Leases are renewed by sending again, so a device that keeps setpoints in flash is not for this adapter."""
    pointer: Pointer = "/p_set_w"
    """Where the value is in the message; "" sends the bare number."""
    envelope: bool = True
    """Send id, ts, exp, seq and hold_s beside the value; ts and exp are in the device's own time."""
    ack_topic: Topic = ""
    ack_timeout_s: PositiveFloat = 1.0
    expiry_s: PositiveFloat = 5.0
    verify: Verify | None = None
    release: dict[str, Scalar] | Scalar
    """The message, or what is added to id, ts, exp and seq, that gives the device back to itself."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        factor("W", self.unit)
        if self.min > self.max:
            raise ValueError("min must not be greater than max")
        if self.ack_topic and not self.envelope:
            raise ValueError("ack_topic needs envelope = true: an answer is known by the command's id")
        if self.envelope and (not self.pointer or not isinstance(self.release, dict)):
            raise ValueError("envelope = true needs a pointer and a table as release")
        if not self.envelope and self.ramp_per_s is not None:
            raise ValueError("ramp_per_s needs envelope = true")
        return self


class Publication(Part):
    """A message of ``watchdog.arm``, sent before the first setpoint."""

    topic: Topic
    payload: str


class Watchdog(Part):
    """``[watchdog]``: what the device does when nobody speaks to it any more."""

    kind: Literal["rewrite", "duration_command", "none"]
    """duration_command: each command says how long it holds; none: vppd itself releases when a lease ends."""
    timeout_s: Seconds = 0.0
    refresh_s: Seconds = 0.0
    fed_by: Literal["write", "any"] = "write"
    arm: tuple[Publication, ...] = ()
    fallback: str = ""
    safe_forever: bool = False

    @model_validator(mode="after")
    def _guards(self) -> Self:
        if self.kind == "none" and not self.safe_forever:
            raise ValueError('kind "none" needs safe_forever = true: every command must be safe for ever')
        if self.kind != "none" and not 0.0 < self.refresh_s <= self.timeout_s / 3.0:
            raise ValueError("refresh_s must be greater than 0 and at most a third of timeout_s")
        return self


class JsonProfile(Part):
    """A whole profile."""

    schema_version: Literal[1] = Field(alias="schema")
    profile: str
    version: str
    transport: Literal["mqtt"]
    vendor: str
    models: tuple[str, ...]
    kind: Literal["meter", "inverter", "battery", "ups", "genset", "cooling"]
    capability: Literal["observe", "dispatchable"]
    source: str
    confirmed: bool
    mqtt: Bus = Bus()
    points: dict[str, Point] = Field(min_length=1)
    commands: dict[str, Command] = Field(default_factory=dict)
    watchdog: Watchdog | None = None

    @property
    def command(self) -> Command | None:
        """The command that takes a power."""
        return next(iter(self.commands.values()), None)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        roles = [point.role for point in self.points.values() if point.role in LIVE_ROLES]
        for role in sorted({role for role in roles if roles.count(role) > 1}):
            raise ValueError(f"points: two of them are {role}")
        if (self.capability == "dispatchable") != (len(self.commands) == 1):
            raise ValueError("a dispatchable device has exactly one command, an observed one has none")
        if self.command is not None:
            self._check_control(self.command, roles)
        return self

    def _check_control(self, command: Command, roles: Collection[str]) -> None:
        if self.watchdog is None:
            raise ValueError("watchdog: a dispatchable device needs one")
        if command.envelope and not any(point.time_pointer is not None for point in self.points.values()):
            raise ValueError("envelope = true needs a point with time_pointer: exp is in the device's own time")
        if self.kind in ("battery", "ups") and "soc" not in roles:
            raise ValueError("points: a storage that is dispatched needs one with role soc")
        if command.verify is not None and command.verify.point not in self.points:
            raise ValueError(f"verify.point: there is no point {command.verify.point!r}")


class JsonConfig(MqttConfig):
    """``[assets.connection]`` of a JSON device."""

    profile: JsonProfile
    """Name or path of a profile, or the profile in line."""
    base: str = ""
    """Stands for {base} in the profile's topics."""
    variables: dict[str, str] = Field(default_factory=dict)
    """Stand for further names in braces."""
    reserve_frac: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """A storage is not discharged at or below this state of charge, nor when it is unknown. [0-1]"""

    def topic(self, template: str) -> str:
        """Return a topic with its names filled in."""
        return template.format_map(self._names)

    @property
    def _names(self) -> dict[str, str]:
        return self.variables | ({"base": self.base} if self.base else {})

    @model_validator(mode="before")
    @classmethod
    def _read_profile(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and isinstance(raw.get("profile"), str | Path):
            return raw | {"profile": load(str(raw["profile"]))}
        return raw

    @model_validator(mode="after")
    def _named(self) -> Self:
        used = {name for text in _templates(self.profile) for _, name, _, _ in Formatter().parse(text) if name}
        if missing := sorted(used - set(self._names)):
            raise ValueError(f"the profile's topics need {', '.join(missing)} (base, or names under variables)")
        return self


def load(name: str) -> JsonProfile:
    """Return the profile with this name or path. Raises ValueError naming the file and every wrong key."""
    try:
        path = find(name)
        content = content_of(path)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return parse(content, path)


def parse(content: Mapping[str, Any], path: Path) -> JsonProfile:
    """Return a checked profile from parsed TOML. Raises ValueError naming the file and every wrong key."""
    try:
        return JsonProfile.model_validate(content)
    except ValidationError as error:
        lines = (f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise ValueError("\n".join(lines)) from error


def _templates(profile: JsonProfile) -> Iterator[str]:
    yield from (profile.mqtt.availability_topic, profile.mqtt.keepalive_topic)
    yield from (point.topic for point in profile.points.values())
    yield from (topic for command in profile.commands.values() for topic in (command.topic, command.ack_topic))
    yield from (message.topic for message in (profile.watchdog.arm if profile.watchdog else ()))

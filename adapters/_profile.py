"""Register profiles: what ``config/devices/*.toml`` may say. A profile knows registers, never hosts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from adapters._profile_units import SAMPLE_UNITS, TYPES, factor

Addr = Annotated[int, Field(ge=0, le=65536)]
Seconds = Annotated[float, Field(ge=0.0)]
DeviceUnits = float
"""A number in the device's own unit, which the key ``unit`` beside it tells."""
Order = Literal["big", "little"]
Function = Literal["holding", "input", "coil", "discrete"]
Codes = dict[int, str]
TypeName = Literal[
    "u16", "s16", "u32", "s32", "u64", "s64", "f32", "f64", "acc32", "bits16", "bits32", "enum16", "str"
]  # fmt: skip
Source = Literal["value", "value_abs", "direction", "timeout_s", "heartbeat", "complement"]


class Part(BaseModel):
    """A table of a profile: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


class Wire(Part):
    """``[wire]``: how the device wants to be asked."""

    function: Function
    address_base: Literal[0, 1]
    byte_order: Order
    word_order: Order
    max_read_words: Annotated[int, Field(ge=1, le=125)]
    max_write_words: Annotated[int, Field(ge=0, le=123)]
    max_gap_words: Annotated[int, Field(ge=0, le=124)]
    one_connection: bool
    connect_delay_s: Seconds
    min_interval_s: Seconds
    timeout_s: PositiveFloat


class Group(Part):
    """``[groups]``: points read together, every so often or once at connecting."""

    every_s: PositiveFloat | None = None
    at: Literal["connect"] | None = None
    timeout_s: PositiveFloat | None = None

    @model_validator(mode="after")
    def _one_pace(self) -> Self:
        if (self.every_s is None) == (self.at is None):
            raise ValueError('give either every_s or at = "connect"')
        return self


class Register(Part):
    """A value on the wire: address, type, scale."""

    addr: Addr
    type: TypeName
    scale: float = 1.0
    scale_addr: Addr | None = None
    words: Annotated[int, Field(ge=1, le=125)] | None = None
    function: Function | None = None
    word_order: Order | None = None
    byte_order: Order | None = None

    @property
    def size(self) -> int:
        """Registers it takes."""
        return self.words or TYPES[self.type][1]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.type == "str") != (self.words is not None):
            raise ValueError('words belongs to type = "str", and to no other')
        if not self.scale:
            raise ValueError("scale must not be 0")
        return self


class Point(Register):
    """``[points.NAME]``: something the device measures or holds."""

    unit: str
    group: str
    role: (
        Literal[
            "power", "energy_import", "energy_export", "soc", "soh", "runtime", "frequency", "voltage", "current",
            "temperature", "state", "rated_power", "reserve_soc",
        ]
        | None
    ) = None  # fmt: skip
    positive: Literal["import", "export"] | None = None
    scale_pow2: Annotated[int, Field(ge=-30, le=30)] | None = None
    offset: float = 0.0
    invalid: Literal["sunspec"] | tuple[int | Literal["nan"], ...] = ()
    range: tuple[DeviceUnits, DeviceUnits] | None = None
    max_step: Annotated[DeviceUnits, Field(gt=0.0)] | None = None
    bits: Codes = {}
    map: Codes = {}

    @model_validator(mode="after")
    def _clear(self) -> Self:
        if self.role == "power" and self.positive is None:
            raise ValueError("positive is required for a power: what does the device's + mean, import or export?")
        if self.role is not None and self.role in SAMPLE_UNITS and factor(self.unit, SAMPLE_UNITS[self.role]) is None:
            raise ValueError(f"unit {self.unit!r} is none that role {self.role} can have")
        return self


class Identify(Register):
    """``[identify]``: the proof that this map fits the device."""

    equals: int | str | None = None
    contains: str | None = None

    @model_validator(mode="after")
    def _one_test(self) -> Self:
        if (self.equals is None) == (self.contains is None):
            raise ValueError("give either equals or contains")
        return self


class Step(Part):
    """One write of a command."""

    addr: Addr
    type: TypeName
    write: Literal["single", "multiple"]
    const: DeviceUnits | None = None
    source: Source | None = Field(default=None, alias="from")
    map: dict[Literal["charge", "stop", "discharge", "start"], int] = {}
    scale: float = 1.0
    scale_addr: Addr | None = None

    @property
    def size(self) -> int:
        """Registers it writes."""
        return TYPES[self.type][1]

    @model_validator(mode="after")
    def _one_value(self) -> Self:
        if (self.const is None) == (self.source is None):
            raise ValueError("give either const or from")
        if self.type == "str" or not self.scale:
            raise ValueError("a step writes a number, and scale must not be 0")
        if self.write == "single" and self.size != 1:
            raise ValueError(f'type {self.type} takes {self.size} registers: write = "multiple"')
        if (self.source == "direction") != bool(self.map):
            raise ValueError('map belongs to from = "direction", and to no other')
        return self


class Verify(Register):
    """The read-back of what the device follows, and the point that must go along."""

    delay_s: Seconds = 0.5
    tolerance: Annotated[DeviceUnits, Field(ge=0.0)] = 1.0
    point: str | None = None
    point_delay_s: Seconds = 5.0
    point_tolerance_frac: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1


class Command(Part):
    """``[commands.NAME]``: what may be asked of the device, and how."""

    role: Literal["power", "power_limit", "reserve_soc", "start"]
    unit: str
    positive: Literal["import", "export"]
    min: DeviceUnits
    max: DeviceUnits
    deadband: Annotated[DeviceUnits, Field(ge=0.0)]
    min_interval_s: Seconds
    ramp_per_s: PositiveFloat
    persistence: Literal["volatile", "flash", "unknown"]
    max_writes_per_day: Annotated[int, Field(ge=1)] | None = None
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    verify: Verify
    release: Annotated[tuple[Step, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _kind_to_the_device(self) -> Self:
        if self.min > self.max:
            raise ValueError("min is greater than max")
        if self.persistence != "volatile" and self.max_writes_per_day is None:
            raise ValueError('max_writes_per_day is required unless persistence = "volatile"')
        if self.role in ("power", "power_limit") and self.unit != "%" and factor(self.unit, "W") is None:
            raise ValueError(f"unit {self.unit!r} is no unit of power")
        return self


class Watchdog(Part):
    """``[watchdog]``: what the device does when nobody speaks to it."""

    kind: Literal[
        "timeout_register", "heartbeat_toggle", "heartbeat_counter", "rewrite", "duration_command", "none"
    ]  # fmt: skip
    timeout_s: PositiveFloat | None = None
    refresh_s: PositiveFloat | None = None
    fed_by: Literal["write", "any"] | None = None
    arm: tuple[Step, ...] | None = None
    fallback: str = ""
    safe_forever: bool = False

    @model_validator(mode="after")
    def _timing(self) -> Self:
        if self.kind == "none":
            if not self.safe_forever:
                raise ValueError('kind = "none" needs command limits that are safe for ever and safe_forever = true')
            return self
        if self.timeout_s is None or self.refresh_s is None or self.fed_by is None:
            raise ValueError("timeout_s, refresh_s and fed_by are required")
        if self.refresh_s > self.timeout_s / 3.0:
            raise ValueError("refresh_s must be at most timeout_s / 3")
        if self.arm is None or not self.fallback:
            raise ValueError("arm (may be empty) and fallback are required")
        return self


class Profile(Part):
    """A whole profile."""

    format: Literal[1] = Field(alias="schema")
    profile: str
    version: str
    transport: Literal["modbus"]
    vendor: str
    models: tuple[str, ...]
    kind: Literal["meter", "inverter", "battery", "ups", "genset", "cooling"]
    capability: Literal["observe", "reserve_only", "dispatchable"]
    source: str
    confirmed: bool
    identify: Identify | None = None
    wire: Wire
    groups: dict[str, Group]
    points: dict[str, Point]
    commands: dict[str, Command] = {}
    watchdog: Watchdog | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if problems := list(_problems(self)):
            raise ValueError("; ".join(problems))
        return self

    def role(self, *roles: str) -> dict[str, Point]:
        """Return the points that have one of these roles."""
        return {name: point for name, point in self.points.items() if point.role in roles}


def _problems(profile: Profile) -> Iterator[str]:
    yield from _point_problems(profile)
    yield from _command_problems(profile)
    dispatchable = profile.capability == "dispatchable"
    if dispatchable and not (profile.commands and profile.watchdog):
        yield 'capability = "dispatchable" needs commands and watchdog'
    if not dispatchable and profile.commands:
        yield f'commands: capability = "{profile.capability}" takes none'


def _point_problems(profile: Profile) -> Iterator[str]:
    wire = profile.wire
    for name, point in profile.points.items():
        if point.group not in profile.groups:
            yield f"points.{name}.group: {point.group!r} is not in groups ({', '.join(profile.groups)})"
        if point.size > wire.max_read_words:
            yield f"points.{name}: takes {point.size} registers, wire.max_read_words is {wire.max_read_words}"
        if point.unit.startswith("% of ") and point.unit.removeprefix("% of ") not in profile.points:
            yield f"points.{name}.unit: no point {point.unit.removeprefix('% of ')!r}"
        if point.scale_addr is not None:
            low, high = sorted(((point.addr, point.addr + point.size), (point.scale_addr, point.scale_addr + 1)))
            if high[0] - low[1] > wire.max_gap_words or high[1] - low[0] > wire.max_read_words:
                yield f"points.{name}.scale_addr: {point.scale_addr} can not lie in one block with {point.addr}"
    every: list[Register | Step] = [*profile.points.values(), *(step for _, step in _all_steps(profile))]
    if wire.address_base == 1 and any(item.addr < 1 for item in every):
        yield "wire.address_base: with 1 no address can be 0"


def _command_problems(profile: Profile) -> Iterator[str]:
    for key, step in _all_steps(profile):
        if step.size > profile.wire.max_write_words:
            yield f"{key}: writes {step.size} registers, wire.max_write_words is {profile.wire.max_write_words}"
    for name, command in profile.commands.items():
        point = command.verify.point
        if point is not None and point not in profile.points:
            yield f"commands.{name}.verify.point: no point {point!r}"
        if (
            command.unit.startswith("%")
            and command.role in ("power", "power_limit")
            and not profile.role("rated_power")
        ):
            yield f"commands.{name}.unit: {command.unit!r} needs a point with role rated_power"
    if sum(command.role != "reserve_soc" for command in profile.commands.values()) > 1:
        yield "commands: only one of power, power_limit and start"


def _all_steps(profile: Profile) -> Iterator[tuple[str, Step]]:
    for name, command in profile.commands.items():
        yield from ((f"commands.{name}.steps", step) for step in command.steps)
        yield from ((f"commands.{name}.release", step) for step in command.release)
    if profile.watchdog is not None:
        yield from (("watchdog.arm", step) for step in profile.watchdog.arm or ())

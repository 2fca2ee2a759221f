"""Carries out the commands of a register profile: ordered writes, pace, quota, watchdog, read-back."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from adapters._modbus import ModbusLink
from adapters._modbus_layout import words
from adapters._profile import Command, DeviceUnits, Profile, Step, Watchdog
from adapters._profile_read import Decoder, read_words, wire_addr
from adapters._profile_units import TYPES
from vppd.errors import Refused

DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What a command is to achieve, in the device's unit and with its sign."""

    value: float
    direction: str
    timeout_s: float
    heartbeat: int = 0


class Writer:
    """Turns steps into register writes."""

    def __init__(
        self, link: ModbusLink, profile: Profile, exponents: dict[int, int], rounded: Callable[[float], int]
    ) -> None:
        self._link, self._profile, self._exponents = link, profile, exponents
        self._round = rounded

    async def run(self, steps: Sequence[Step], wish: Wish) -> None:
        """Write the steps in order; neighbours that want FC16 go out in one request. Raises Unreachable or Refused."""
        for addr, registers, is_single in self._requests(steps, wish):
            if is_single:
                await self._link.write_one(addr, registers[0])
            else:
                await self._link.write(addr, registers)

    def _requests(self, steps: Sequence[Step], wish: Wish) -> list[tuple[int, list[int], bool]]:
        requests: list[tuple[int, list[int], bool]] = []
        previous = 0
        for step in steps:
            raw = self._raw(step, wish, previous)
            previous = int(raw)
            addr = wire_addr(self._profile, step.addr)
            registers = self._registers(step, raw)
            last = requests[-1] if requests else None
            fits = last is not None and len(last[1]) + len(registers) <= self._profile.wire.max_write_words
            if last and fits and step.write == "multiple" and not last[2] and last[0] + len(last[1]) == addr:
                last[1].extend(registers)
            else:
                requests.append((addr, registers, step.write == "single"))
        return requests

    def _raw(self, step: Step, wish: Wish, previous: int) -> float:
        if step.source == "direction":
            if wish.direction not in step.map:
                raise Refused(f"the profile knows no code for {wish.direction!r} at {step.addr}")
            return step.map[wish.direction]
        if step.source == "complement":
            return 0xFFFF - previous
        if step.source == "heartbeat":
            return wish.heartbeat
        number = {"value": wish.value, "value_abs": abs(wish.value), "timeout_s": wish.timeout_s}.get(
            step.source or "", step.const or 0.0
        )
        number /= step.scale * 10.0 ** (self._exponents[step.scale_addr] if step.scale_addr is not None else 0)
        if step.type.startswith("f"):
            return number
        if step.source == "timeout_s":
            return math.ceil(number - 1e-6)
        return self._round(number) if step.source in ("value", "value_abs") else round(number)

    def _registers(self, step: Step, value: float) -> list[int]:
        """Return the registers of a raw value in the device's word and byte order; out of its type's range, Refused."""
        wire = self._profile.wire
        try:
            registers = words(TYPES[step.type][0], value if step.type.startswith("f") else int(value))
        except (struct.error, OverflowError, ValueError) as error:
            raise Refused(f"{value:g} does not fit a {step.type} at {step.addr}") from error
        if wire.word_order == "little":
            registers.reverse()
        return [(r & 0xFF) << 8 | r >> 8 for r in registers] if wire.byte_order == "little" else registers


class Quota:
    """At most so many writes a day: flash wears out. It does not survive a restart."""

    def __init__(self, most: int | None) -> None:
        self._most, self._left, self._since_s = most, most or 0, -math.inf

    def spend(self, now_s: float) -> None:
        """Count one more. Raises Refused when the day's writes are used up."""
        if self._most is None:
            return
        if now_s - self._since_s >= DAY_S:
            self._left, self._since_s = self._most, now_s
        if self._left <= 0:
            raise Refused(f"{self._most} writes in a day are used up (max_writes_per_day)")
        self._left -= 1


class Commander:
    """One command of a profile with its pace, its quota and the device's watchdog."""

    def __init__(
        self, link: ModbusLink, profile: Profile, command: Command, watchdog: Watchdog, exponents: dict[int, int]
    ) -> None:
        self.command = command
        self._link, self._profile, self._watchdog, self._exponents = link, profile, watchdog, exponents
        self._writer = Writer(link, profile, exponents, ROUNDED.get(command.role, round))
        self._quota = Quota(command.max_writes_per_day)
        self._verify = Decoder(command.verify, profile.wire)
        self._reads_magnitude = any(
            step.addr == command.verify.addr and step.source == "value_abs" for step in command.steps
        )
        self._sent: tuple[float, float] | None = None
        self._armed_for_s: float | None = None
        self._heartbeat = 0

    async def apply(self, value: DeviceUnits, from_value: DeviceUnits, valid_for_s: float) -> str:
        """Write ``value`` (device unit), as far as pace and ramp allow; say what is held back, empty when nothing is.

        ``from_value`` is where a ramp begins when nothing was written before. Raises Unreachable or Refused.
        """
        now_s = asyncio.get_running_loop().time()
        aim = min(self.command.max, max(self.command.min, value))
        start, sent_s = self._sent or (from_value, -math.inf)
        if now_s - sent_s < self.command.min_interval_s and self._sent is not None:
            return f"next write in {self.command.min_interval_s - (now_s - sent_s):.1f} s"
        elapsed_s = max(self.command.min_interval_s, 1.0) if self._sent is None else now_s - sent_s
        reach = self.command.ramp_per_s * elapsed_s
        goal = min(start + reach, max(start - reach, aim))
        is_due = now_s - sent_s >= (self._watchdog.refresh_s or math.inf) or self._sent is None
        if not is_due and self._is_small(goal, start):
            return ""
        timeout_s = min(self._watchdog.timeout_s or math.inf, math.ceil(valid_for_s))
        await self._write(Wish(goal, self._direction(goal), timeout_s, self._beat()), now_s)
        return (
            "" if math.isclose(goal, aim, abs_tol=1e-9) else f"on its way from {start:g} to {aim:g} {self.command.unit}"
        )

    async def _write(self, wish: Wish, now_s: float) -> None:
        self._quota.spend(now_s)
        if self._armed_for_s != wish.timeout_s:
            await self._writer.run(self._watchdog.arm or (), wish)
            self._armed_for_s = wish.timeout_s
        await self._writer.run(self.command.steps, wish)
        self._sent = (wish.value, now_s)

    def _is_small(self, goal: DeviceUnits, sent: DeviceUnits) -> bool:
        """Say whether a change is not worth a write; a limit is tightened and a direction changed in any case."""
        if self.command.role == "power_limit" and goal < sent:
            return False
        if self._direction(goal) != self._direction(sent):
            return False
        return abs(goal - sent) < max(self.command.deadband, 1e-9)

    def _direction(self, value: float) -> str:
        if self.command.role == "start":
            return "start" if value else "stop"
        if not value:
            return "stop"
        return "charge" if (value > 0.0) == (self.command.positive == "import") else "discharge"

    def _beat(self) -> int:
        modulus = 2 if self._watchdog.kind == "heartbeat_toggle" else 0x8000
        self._heartbeat = (self._heartbeat + 1) % modulus
        return self._heartbeat

    async def effective(self, *, wait: bool) -> float | None:
        """Return what the device says it follows (device unit), after its own delay when just written."""
        verify = self.command.verify
        if wait and verify.delay_s:
            await asyncio.sleep(verify.delay_s)
        addr = wire_addr(self._profile, verify.addr)
        function = verify.function or self._profile.wire.function
        data = await read_words(self._link, function, addr, verify.size)
        raw = self._verify.raw(self._verify.cut(data, 0))
        if isinstance(raw, str) or not math.isfinite(raw):
            return None
        value = (
            raw * verify.scale * 10.0 ** (self._exponents[verify.scale_addr] if verify.scale_addr is not None else 0)
        )
        return math.copysign(value, self._sent[0]) if self._reads_magnitude and self._sent else value

    async def release(self) -> None:
        """Give the device back to itself. Idempotent. Raises Unreachable or Refused."""
        await self._writer.run(self.command.release, Wish(0.0, "stop", self._watchdog.timeout_s or 0.0))
        self._sent, self._armed_for_s = None, None


async def read_exponents(link: ModbusLink, profile: Profile) -> dict[int, int]:
    """Return the scale factors that commands refer to, by their address in the profile. Raises DeviceError."""
    exponents: dict[int, int] = {}
    for addr in sorted(_scale_addrs(profile)):
        data = await read_words(link, profile.wire.function, wire_addr(profile, addr), 1)
        exponent = int.from_bytes(data, "big", signed=True)
        if not -10 <= exponent <= 10:
            raise Refused(f"scale factor at {addr} is {exponent}: nothing can be commanded with it")
        exponents[addr] = exponent
    return exponents


def _scale_addrs(profile: Profile) -> Iterable[int]:
    steps = list((profile.watchdog.arm if profile.watchdog else None) or ())
    found = set()
    for command in profile.commands.values():
        steps += (*command.steps, *command.release)
        found.add(command.verify.scale_addr)
    return {addr for addr in (*found, *(step.scale_addr for step in steps)) if addr is not None}


def _floor(value: float) -> int:
    return math.floor(value + 1e-6)


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-6)


ROUNDED: Mapping[str, Callable[[float], int]] = MappingProxyType({"power_limit": _floor, "reserve_soc": _ceil})
"""Limits are rounded down and reserves up; everything else to the nearest."""

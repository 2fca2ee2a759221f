"""The ways a SunSpec device is commanded: reversion first, then the setpoint, in as few writes as the model allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from adapters._modbus import ExceptionAnswer, ModbusLink
from adapters._modbus_layout import words
from adapters._sunspec import Chain, Values

ON, OFF = 1, 0
WATTS, PERCENT = 1, 0
BOTH_WAYS = 3
U16_MOST = 65534


class Control(Protocol):
    """One way to command a device; powers are + = consumption."""

    keys: tuple[str, ...]
    """The points that tell what the device follows, read back after a write."""

    async def write(self, power_w: float, valid_for_s: float) -> None:
        """Program the reversion, then the setpoint. Raises Unreachable or Refused."""
        ...

    def following_w(self, values: Values) -> float | None:
        """Return the setpoint the device follows, None when it follows none. [W]"""
        ...

    async def release(self) -> None:
        """Switch the control off. Idempotent."""
        ...


class PowerSet:
    """Model 704 active power setpoint, in watts or in percent of the rating."""

    keys: tuple[str, ...] = ("704.WSetEna", "704.WSetMod", "704.WSet", "704.WSetPct")
    _FIRST, _COUNT = "704.+22", 11

    def __init__(self, link: ModbusLink, chain: Chain, values: Values, rating_w: float | None) -> None:
        self._link, self._chain, self._rating_w = link, chain, rating_w
        self._mode = PERCENT if values["704.WSet"] is None else WATTS
        self._scale_exponent = int(values["704.WSet_SF" if self._mode == WATTS else "704.WSetPct_SF"] or 0)
        self._has_timer = values["704.WSetRvrtTms"] is not None
        self._kept: list[int] = []
        self._fits_one_write = self._has_timer

    async def write(self, power_w: float, valid_for_s: float) -> None:
        """Write setpoint and reversion together, or one after the other where the device insists."""
        timer_s = _whole_s(valid_for_s, 2**32 - 2)
        if not self._kept:
            block = await self._link.read(self._chain.addr(self._FIRST), self._COUNT)
            self._kept = [int.from_bytes(block[i : i + 2], "big") for i in range(0, len(block), 2)]
            if self._has_timer:
                await self._arm(timer_s)
        registers = self._registers(-power_w, timer_s)
        if self._fits_one_write:
            try:
                await self._link.write(self._chain.addr(self._FIRST), registers)
            except ExceptionAnswer:
                await self._write_parts(registers)
                self._fits_one_write = False
        else:
            await self._write_parts(registers)

    def _registers(self, generation_w: float, timer_s: int) -> list[int]:
        kept = self._kept
        if self._mode == WATTS:
            value = words("i", round(generation_w / 10.0**self._scale_exponent))
            return [ON, WATTS, *value, 0, 0, *kept[6:8], OFF, *words("I", timer_s)]
        percent = round(generation_w / (self._rating_w or math.inf) * 100.0 / 10.0**self._scale_exponent)
        return [ON, PERCENT, *kept[2:6], *words("hh", percent, 0), OFF, *words("I", timer_s)]

    async def _arm(self, timer_s: int) -> None:
        if self._mode == WATTS:
            await self._link.write(self._chain.addr("704.+26"), [0, 0])
        else:
            await self._link.write(self._chain.addr("704.+29"), [0])
        await self._link.write(self._chain.addr("704.+30"), [OFF, *words("I", timer_s)])

    async def _write_parts(self, registers: list[int]) -> None:
        if self._has_timer:
            await self._link.write(self._chain.addr("704.+30"), registers[8:11])
        if self._mode == WATTS:
            await self._link.write(self._chain.addr("704.+22"), registers[:4])
        else:
            await self._link.write(self._chain.addr("704.+28"), registers[6:7])
            await self._link.write(self._chain.addr("704.+22"), registers[:2])

    def following_w(self, values: Values) -> float | None:
        """Return the setpoint while it is enabled. [W, + = consumption]"""
        if values["704.WSetEna"] != ON:
            return None
        if values["704.WSetMod"] == WATTS:
            return _negative(values["704.WSet"])
        return _negative(_part(values["704.WSetPct"], self._rating_w))

    async def release(self) -> None:
        """Disable the setpoint."""
        await self._link.write(self._chain.addr("704.+22"), [OFF])


class PowerLimit:
    """Model 704 limit of generation in percent of the rating; it reverts to no limit."""

    keys: tuple[str, ...] = ("704.WMaxLimPctEna", "704.WMaxLimPct")

    def __init__(self, link: ModbusLink, chain: Chain, values: Values, rating_w: float) -> None:
        self._link, self._chain, self._rating_w = link, chain, rating_w
        self._scale_exponent = int(values["704.WMaxLimPct_SF"] or 0)
        self._has_timer = values["704.WMaxLimPctRvrtTms"] is not None
        self._is_armed = False
        self._fits_one_write = self._has_timer

    async def write(self, power_w: float, valid_for_s: float) -> None:
        """Write limit and reversion together, or one after the other where the device insists."""
        percent = _limit_percent(power_w, self._rating_w, self._scale_exponent)
        full = round(100.0 / 10.0**self._scale_exponent)
        reversion = [full, OFF, *words("I", _whole_s(valid_for_s, 2**32 - 2))]
        if self._has_timer and not self._is_armed:
            await self._link.write(self._chain.addr("704.+16"), reversion)
            self._is_armed = True
        if self._fits_one_write:
            try:
                await self._link.write(self._chain.addr("704.+14"), [ON, percent, *reversion])
            except ExceptionAnswer:
                await self._write_parts(percent, reversion)
                self._fits_one_write = False
        else:
            await self._write_parts(percent, reversion)

    async def _write_parts(self, percent: int, reversion: list[int]) -> None:
        if self._has_timer:
            await self._link.write(self._chain.addr("704.+18"), reversion[2:])
        await self._link.write(self._chain.addr("704.+15"), [percent])
        await self._link.write(self._chain.addr("704.+14"), [ON])

    def following_w(self, values: Values) -> float | None:
        """Return the most it may generate while limited. [W, <= 0]"""
        if values["704.WMaxLimPctEna"] != ON:
            return None
        return _negative(_part(values["704.WMaxLimPct"], self._rating_w))

    async def release(self) -> None:
        """Disable the limit."""
        await self._link.write(self._chain.addr("704.+14"), [OFF])


class ImmediateLimit:
    """Model 123 limit of generation in percent of the rating; its timer switches it off."""

    keys: tuple[str, ...] = ("123.WMaxLimPct", "123.WMaxLim_Ena")

    def __init__(self, link: ModbusLink, chain: Chain, values: Values, rating_w: float) -> None:
        self._link, self._chain, self._rating_w = link, chain, rating_w
        self._scale_exponent = int(values["123.WMaxLimPct_SF"] or 0)
        self._window = _kept(values["123.WMaxLimPct_WinTms"], now=0)
        self._ramp = _kept(values["123.WMaxLimPct_RmpTms"])
        self._has_timer = values["123.WMaxLimPct_RvrtTms"] is not None
        self._is_armed = False

    async def write(self, power_w: float, valid_for_s: float) -> None:
        """Write limit, reversion and enable together (FC16), or register by register (FC06) where that is refused."""
        timer_s = _whole_s(valid_for_s, U16_MOST) if self._has_timer else 0xFFFF
        first = self._chain.addr("123.WMaxLimPct")
        if self._has_timer and not self._is_armed:
            await _write_words(self._link, first + 2, {0: timer_s})
            self._is_armed = True
        percent = _limit_percent(power_w, self._rating_w, self._scale_exponent)
        needed = {2: timer_s, 0: percent, 4: ON} if self._has_timer else {0: percent, 4: ON}
        await _write_words(self._link, first, needed, {1: self._window, 2: timer_s, 3: self._ramp})

    def following_w(self, values: Values) -> float | None:
        """Return the most it may generate while limited. [W, <= 0]"""
        if values["123.WMaxLim_Ena"] != ON:
            return None
        return _negative(_part(values["123.WMaxLimPct"], self._rating_w))

    async def release(self) -> None:
        """Disable the limit."""
        await _write_words(self._link, self._chain.addr("123.WMaxLim_Ena"), {0: OFF})


class StorageRates:
    """Model 124: charge and discharge rate pinned to one value, so that the battery follows it."""

    keys: tuple[str, ...] = ("124.StorCtl_Mod", "124.OutWRte", "124.InWRte")

    def __init__(
        self, link: ModbusLink, chain: Chain, values: Values, rating_w: float, *, charge_from_grid: bool
    ) -> None:
        self._link, self._chain, self._rating_w = link, chain, rating_w
        self._from_grid = charge_from_grid
        self._scale_exponent = int(values["124.InOutWRte_SF"] or 0)
        self._window = _kept(values["124.InOutWRte_WinTms"], now=0)
        self._has_timer = values["124.InOutWRte_RvrtTms"] is not None
        self._is_armed = False

    async def write(self, power_w: float, valid_for_s: float) -> None:
        """Write rates and reversion, then switch both limits on."""
        timer_s = _whole_s(valid_for_s, U16_MOST) if self._has_timer else 0xFFFF
        first = self._chain.addr("124.OutWRte")
        if self._has_timer and not self._is_armed:
            await _write_words(self._link, first + 3, {0: timer_s})
            self._is_armed = True
        rate = round(100.0 * power_w / self._rating_w / 10.0**self._scale_exponent)
        out_rate, in_rate = words("hh", -rate, rate)
        needed = {3: timer_s, 0: out_rate, 1: in_rate} if self._has_timer else {0: out_rate, 1: in_rate}
        await _write_words(self._link, first, needed, {2: self._window, 3: timer_s})
        if self._from_grid:
            await _write_words(self._link, self._chain.addr("124.+17"), {0: ON})
        await _write_words(self._link, self._chain.addr("124.StorCtl_Mod"), {0: BOTH_WAYS})

    def following_w(self, values: Values) -> float | None:
        """Return the power both rates pin it to. [W, + = consumption]"""
        in_rate, out_rate = values["124.InWRte"], values["124.OutWRte"]
        if values["124.StorCtl_Mod"] != BOTH_WAYS or in_rate is None or in_rate != _negative(out_rate):
            return None
        return _part(in_rate, self._rating_w)

    async def release(self) -> None:
        """Switch both limits off and open the rates."""
        await _write_words(self._link, self._chain.addr("124.StorCtl_Mod"), {0: OFF})
        full = round(100.0 / 10.0**self._scale_exponent)
        await _write_words(self._link, self._chain.addr("124.OutWRte"), {0: full, 1: full})
        if self._from_grid:
            await _write_words(self._link, self._chain.addr("124.+17"), {0: OFF})


class Heartbeats:
    """Models 715 and 802 want to see a counter move; it moves with each setpoint and never by itself."""

    _FORMS: Mapping[str, tuple[str, int]] = MappingProxyType(
        {"715.ControllerHb": ("I", 2**32 - 1), "802.CtrlHb": ("H", 2**16 - 1)}
    )
    KEYS: tuple[str, ...] = tuple(_FORMS)

    def __init__(self, link: ModbusLink, chain: Chain, values: Values) -> None:
        self._link, self._chain = link, chain
        self._counts = {key: int(seen) for key in self.KEYS if (seen := values[key]) is not None}

    async def beat(self) -> None:
        """Count one further in every heartbeat register the device has."""
        for key, count in self._counts.items():
            form, modulus = self._FORMS[key]
            self._counts[key] = (count + 1) % modulus
            await self._link.write(self._chain.addr(key), words(form, self._counts[key]))


async def _write_words(
    link: ModbusLink, addr: int, needed: Mapping[int, int], between: Mapping[int, int] | None = None
) -> None:
    """Write offset -> register in one FC16, ``between`` filling the gaps; where refused, what is needed by FC06 in order."""
    everything = {**(between or {}), **needed}
    last = max(needed)
    try:
        await link.write(addr, [everything[offset] for offset in range(last + 1)])
    except ExceptionAnswer:
        for offset, register in needed.items():
            await link.write_one(addr + offset, register)


def _limit_percent(power_w: float, rating_w: float, exponent: int) -> int:
    """Return the raw percentage that allows at most ``-power_w`` of generation, rounded down."""
    percent = 100.0 * min(1.0, max(0.0, -power_w / rating_w))
    return math.floor(percent / 10.0**exponent + 1e-6)


def _whole_s(valid_for_s: float, most_s: int) -> int:
    return min(most_s, max(1, math.ceil(valid_for_s)))


def _kept(value: float | None, now: int | None = None) -> int:
    """Return the register to write back: its own value (or ``now``), the sentinel when it is not implemented."""
    if value is None:
        return 0xFFFF
    return int(value) if now is None else now


def _negative(value: float | None) -> float | None:
    return None if value is None else 0.0 - value


def _part(value: float | None, rating_w: float | None) -> float | None:
    """Return ``value`` percent of the rating. [W]"""
    return None if value is None or rating_w is None else value / 100.0 * rating_w

"""SunSpec meters and inverters as vppd sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from adapters._lease import Lease
from adapters._modbus import ModbusLink
from adapters._sunspec import Chain, Plan, Values
from adapters._sunspec_control import Control, Heartbeats, ImmediateLimit, PowerLimit
from adapters._sunspec_state import INVERTERS, fault_text, state_keys
from vppd.errors import Refused
from vppd.model import Applied, Sample, Setpoint

RATING_KEYS = ("702.WMax", "702.WMaxRtg", "121.WMax", "120.WRtg")
_LIMIT_KEYS = (
    "704.WMaxLimPct_SF",
    "704.WMaxLimPctRvrtTms",
    "123.WMaxLimPct_SF",
    "123.WMaxLimPct_WinTms",
    "123.WMaxLimPct_RvrtTms",
    "123.WMaxLimPct_RmpTms",
)


class Device(Protocol):
    """Anything that can be read."""

    async def read(self) -> Sample:
        """Return what the device says now."""
        ...


def first_value(values: Values, keys: Sequence[str]) -> float | None:
    """Return the first of ``keys`` that the device implements."""
    return next((value for key in keys if (value := values.get(key)) is not None), None)


class PowerPoint:
    """The point that tells the device's power, turned to + = consumption."""

    def __init__(self, chain: Chain, meters: Sequence[int], *, invert_power: bool) -> None:
        number = chain.first(*meters) or chain.first(701, *INVERTERS, 802)
        if number is None:
            raise Refused(f"no power among SunSpec models {sorted(chain.models)}")
        self.model = number
        self.key = f"{number}.W"
        # Meters count import as positive; inverters and batteries count what they give.
        is_import = (number in meters) != invert_power
        self._sign = 1.0 if is_import else -1.0

    def power_w(self, values: Values) -> float | None:
        """Return the power. [W, + = consumption]"""
        value = values[self.key]
        return None if value is None else value * self._sign + 0.0


class Meter:
    """Reads active power and the import counter."""

    def __init__(self, link: ModbusLink, power: PowerPoint, energy_key: str, plan: Plan) -> None:
        self._link, self._power, self._energy_key, self._plan = link, power, energy_key, plan

    async def read(self) -> Sample:
        """Return power and counter. Raises Unreachable, Refused or Garbled."""
        values = await self._plan.read(self._link)
        return Sample(
            power_w=self._power.power_w(values),
            energy_wh=values.get(self._energy_key),
            fault=fault_text(values),
        )


class Inverter:
    """Reads a generating inverter; its power is negative."""

    def __init__(
        self, link: ModbusLink, chain: Chain, power: PowerPoint, rating_w: float | None, control: Control | None
    ) -> None:
        self._link, self._power, self._rating_w, self._control = link, power, rating_w, control
        control_keys = control.keys if control else ()
        keys = (power.key, "122.WAval", "701.TotWhAbs", *state_keys((power.model, 715)), *control_keys)
        self._plan = Plan(chain, keys)

    async def read(self) -> Sample:
        """Return power, bounds and the limit it follows. Raises Unreachable, Refused or Garbled."""
        values = await self._plan.read(self._link)
        power_w = self._power.power_w(values)
        limit_w = self._control.following_w(values) if self._control else None
        return Sample(
            power_w=power_w,
            energy_wh=values["701.TotWhAbs"],
            available_w=_available_w(power_w, limit_w, values["122.WAval"]),
            lower_w=None if self._rating_w is None else -self._rating_w,
            upper_w=None if self._rating_w is None else 0.0,
            setpoint_w=limit_w,
            fault=fault_text(values),
        )


class LimitedInverter(Inverter):
    """An inverter whose generation can be limited, for the time of the lease."""

    def __init__(
        self,
        link: ModbusLink,
        chain: Chain,
        power: PowerPoint,
        rating_w: float,
        control: Control,
        heartbeats: Heartbeats,
    ) -> None:
        super().__init__(link, chain, power, rating_w, control)
        self._limit, self._heartbeats, self._lease = control, heartbeats, Lease()
        self._verify = Plan(chain, control.keys)

    async def read(self) -> Sample:
        """Return what the device says; a limit whose lease ended is lifted first. Raises Unreachable, Refused, Garbled."""
        if self._lease.has_expired:
            await self.release()
        return await super().read()

    async def apply(self, setpoint: Setpoint) -> Applied:
        """Limit generation to ``-setpoint.power_w`` and read the limit back. Raises Unreachable or Refused."""
        self._lease.renew(setpoint.valid_for_s)
        await self._heartbeats.beat()
        await self._limit.write(setpoint.power_w, setpoint.valid_for_s)
        return Applied(self._limit.following_w(await self._verify.read(self._link)))

    async def release(self) -> None:
        """Lift the limit. Idempotent."""
        await self._limit.release()
        self._lease.end()


def meter(link: ModbusLink, chain: Chain, meters: Sequence[int], *, invert_power: bool) -> Meter:
    """Return the meter in the chain: 201-204 or 211-214, else the AC measurement of an inverter. Raises Refused."""
    power = PowerPoint(chain, meters, invert_power=invert_power)
    energy = "TotWhImp" if power.model in meters else "TotWhAbs"
    energy_key = f"{power.model}.{energy}" if power.model in (*meters, 701) else ""
    keys = (power.key, *((energy_key,) if energy_key else ()), *state_keys((power.model,)))
    return Meter(link, power, energy_key, Plan(chain, keys))


async def inverter(link: ModbusLink, chain: Chain, *, invert_power: bool) -> Inverter:
    """Return the inverter in the chain, controllable when it has 704 or 123 and a rating. Raises Refused, Unreachable."""
    power = PowerPoint(chain, (), invert_power=invert_power)
    values = await Plan(chain, (*RATING_KEYS, *_LIMIT_KEYS, *Heartbeats.KEYS)).read(link)
    rating_w = first_value(values, RATING_KEYS)
    if not rating_w:
        return Inverter(link, chain, power, None, None)
    control: Control
    if values["704.WMaxLimPct_SF"] is not None:
        control = PowerLimit(link, chain, values, rating_w)
    elif values["123.WMaxLimPct_SF"] is not None:
        control = ImmediateLimit(link, chain, values, rating_w)
    else:
        return Inverter(link, chain, power, rating_w, None)
    return LimitedInverter(link, chain, power, rating_w, control, Heartbeats(link, chain, values))


def _available_w(power_w: float | None, limit_w: float | None, reported_w: float | None) -> float | None:
    """Return what it would draw unlimited: reported, or measured while the limit does not bind. [W, <= 0]"""
    if reported_w is not None:
        return 0.0 - reported_w
    if power_w is None or (limit_w is not None and power_w <= 0.95 * limit_w):
        return None
    return power_w

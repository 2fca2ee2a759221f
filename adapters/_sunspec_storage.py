"""SunSpec batteries and UPSs as vppd sees them: power setpoint, state of charge, reserve."""

from __future__ import annotations

import math

from adapters._lease import Lease, Reserve
from adapters._modbus import ModbusLink
from adapters._sunspec import Chain, Plan, Values
from adapters._sunspec_control import Control, Heartbeats, PowerSet, StorageRates
from adapters._sunspec_devices import RATING_KEYS, PowerPoint, first_value
from adapters._sunspec_state import fault_text, is_islanded, state_keys
from vppd.errors import Refused
from vppd.model import Applied, Sample, Setpoint

_CHARGE_KEYS = ("702.WChaRteMax", "702.WChaRteMaxRtg", "802.WChaRteMax", "124.WChaMax", "120.MaxChaRte")
_DISCHARGE_KEYS = ("702.WDisChaRteMax", "702.WDisChaRteMaxRtg", "802.WDisChaRteMax", "120.MaxDisChaRte", "124.WChaMax")
SOC_KEYS = ("713.SoC", "802.SoC", "124.ChaState")
_RESERVE_KEYS = ("802.SoCRsvMin", "124.MinRsvPct")
_SETTING_KEYS = (
    *RATING_KEYS,
    *_CHARGE_KEYS,
    *_DISCHARGE_KEYS,
    *_RESERVE_KEYS,
    *Heartbeats.KEYS,
    "802.SoCMin",
    "802.SoCMax",
    "802.SoC_SF",
    "124.MinRsvPct_SF",
    "704.WSet",
    "704.WSet_SF",
    "704.WSetPct",
    "704.WSetPct_SF",
    "704.WSetRvrtTms",
    "124.InOutWRte_SF",
    "124.InOutWRte_WinTms",
    "124.InOutWRte_RvrtTms",
)


class Storage:
    """Reads a battery or UPS; discharging is negative."""

    def __init__(self, link: ModbusLink, chain: Chain, power: PowerPoint, settings: Values, reserve: Reserve) -> None:
        self._link, self._power, self._reserve = link, power, reserve
        self._charge_w = first_value(settings, (*_CHARGE_KEYS, *RATING_KEYS))
        self._discharge_w = first_value(settings, (*_DISCHARGE_KEYS, *RATING_KEYS))
        self._empty_frac = max(reserve.reserve_frac, (settings["802.SoCMin"] or 0.0) / 100.0)
        self._full_frac = min(1.0, (settings["802.SoCMax"] or 100.0) / 100.0)
        self._plan = Plan(chain, self._keys())

    def _keys(self) -> tuple[str, ...]:
        states = state_keys((self._power.model, 713, 715, 802))
        return (self._power.key, "701.TotWhAbs", "701.DERMode", *SOC_KEYS, *states)

    async def read(self) -> Sample:
        """Return power, charge and bounds. Raises Unreachable, Refused or Garbled."""
        return self._sample(await self._plan.read(self._link))

    def _sample(self, values: Values) -> Sample:
        soc_frac = _soc_frac(values)
        self._reserve.saw(soc_frac)
        can_give = soc_frac is not None and soc_frac > self._empty_frac
        can_take = soc_frac is None or soc_frac < self._full_frac
        return Sample(
            power_w=self._power.power_w(values),
            soc_frac=soc_frac,
            energy_wh=values["701.TotWhAbs"],
            lower_w=None if self._discharge_w is None else -self._discharge_w * can_give + 0.0,
            upper_w=None if self._charge_w is None else self._charge_w * can_take,
            setpoint_w=self._following_w(values),
            on_battery=is_islanded(values),
            fault=fault_text(values),
        )

    def _following_w(self, values: Values) -> float | None:
        return None


class DispatchableStorage(Storage):
    """A storage that follows a power setpoint for the time of its lease and is never discharged below its reserve."""

    def __init__(
        self,
        link: ModbusLink,
        chain: Chain,
        power: PowerPoint,
        settings: Values,
        reserve: Reserve,
        control: Control,
    ) -> None:
        self._control = control
        super().__init__(link, chain, power, settings, reserve)
        self._heartbeats, self._lease = Heartbeats(link, chain, settings), Lease()
        self._verify = Plan(chain, control.keys)

    def _keys(self) -> tuple[str, ...]:
        return (*super()._keys(), *self._control.keys)

    def _following_w(self, values: Values) -> float | None:
        return self._control.following_w(values)

    async def read(self) -> Sample:
        """Return what the device says; a setpoint whose lease ended is released first. Raises Unreachable, Refused."""
        if self._lease.has_expired:
            await self.release()
        return await super().read()

    async def apply(self, setpoint: Setpoint) -> Applied:
        """Write the setpoint, held to ratings and reserve, and read it back. Raises Unreachable or Refused."""
        if setpoint.power_w < 0.0 and self._reserve.needs_reading:
            await super().read()
        power_w, why = self._reserve.hold(setpoint.power_w)
        power_w = max(power_w, -_or_infinite(self._discharge_w))
        power_w = min(power_w, _or_infinite(self._charge_w))
        self._lease.renew(setpoint.valid_for_s)
        await self._heartbeats.beat()
        await self._control.write(power_w, setpoint.valid_for_s)
        values = await self._verify.read(self._link)
        return Applied(self._control.following_w(values), why or _held_to_rating(setpoint.power_w, power_w))

    async def release(self) -> None:
        """Disable the setpoint: the device does what it does by itself. The reserve stays. Idempotent."""
        await self._control.release()
        self._lease.end()


async def storage(
    link: ModbusLink,
    chain: Chain,
    *,
    reserve_frac: float,
    write_reserve: bool,
    charge_from_grid: bool,
    invert_power: bool,
) -> Storage:
    """Return the storage in the chain, with its reserve written, controllable through 704 or 124. Raises DeviceError."""
    power = PowerPoint(chain, (), invert_power=invert_power)
    settings = await Plan(chain, _SETTING_KEYS).read(link)
    if write_reserve and reserve_frac > 0.0:
        await _write_reserve(link, chain, settings, reserve_frac)
    device_frac = (first_value(settings, _RESERVE_KEYS) or 0.0) / 100.0
    reserve = Reserve(max(reserve_frac, device_frac))
    control = _control(link, chain, settings, charge_from_grid=charge_from_grid)
    if control is None:
        return Storage(link, chain, power, settings, reserve)
    return DispatchableStorage(link, chain, power, settings, reserve, control)


def _control(link: ModbusLink, chain: Chain, settings: Values, *, charge_from_grid: bool) -> Control | None:
    rating_w = first_value(settings, RATING_KEYS)
    in_watts = settings["704.WSet"] is not None
    in_percent = settings["704.WSetPct"] is not None and rating_w
    if in_watts or in_percent:
        return PowerSet(link, chain, settings, rating_w)
    charge_w = settings["124.WChaMax"]
    if charge_w and settings["124.InOutWRte_SF"] is not None:
        return StorageRates(link, chain, settings, charge_w, charge_from_grid=charge_from_grid)
    return None


async def _write_reserve(link: ModbusLink, chain: Chain, settings: Values, reserve_frac: float) -> None:
    """Raise the device's own reserve to ours; it is never lowered. Raises Refused when the device does not keep it."""
    for key, scale_key in (("802.SoCRsvMin", "802.SoC_SF"), ("124.MinRsvPct", "124.MinRsvPct_SF")):
        present, exponent = settings[key], settings[scale_key]
        if present is None or exponent is None or present >= 100.0 * reserve_frac:
            continue
        raw = math.ceil(100.0 * reserve_frac / 10.0**exponent - 1e-6)
        try:
            await link.write(chain.addr(key), [raw])
        except Refused as error:
            raise Refused(f"the device refuses its reserve ({key}); write_reserve = false leaves it alone") from error
        kept = (await Plan(chain, (key,)).read(link))[key]
        if kept is None or kept < 100.0 * reserve_frac - 1e-6:
            raise Refused(f"the device did not keep its reserve ({key} says {kept} %)")


def _soc_frac(values: Values) -> float | None:
    """Return the least state of charge the device reports; nonsense counts as unknown. [0-1]"""
    known = [value / 100.0 for key in SOC_KEYS if (value := values[key]) is not None]
    if not known or not all(0.0 <= soc_frac <= 1.005 for soc_frac in known):
        return None
    return min(1.0, *known)


def _or_infinite(power_w: float | None) -> float:
    return math.inf if power_w is None else power_w


def _held_to_rating(asked_w: float, power_w: float) -> str:
    return "" if asked_w == power_w else f"held to the rating of {abs(power_w):.0f} W"

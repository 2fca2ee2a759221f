"""A device with a register profile as vppd sees it."""

from __future__ import annotations

from dataclasses import replace

from adapters._lease import Lease, Reserve
from adapters._modbus import ModbusLink
from adapters._profile import Command, Profile, Watchdog
from adapters._profile_read import Reader
from adapters._profile_units import factor
from adapters._profile_write import Commander
from vppd.errors import Refused
from vppd.model import Applied, Sample, Setpoint

STORAGE = ("battery", "ups")
NO_WATCHDOG = Watchdog(kind="none", safe_forever=True)


class Device:
    """Reads power, charge, counter and state.

    A state whose name begins with ``fault`` is a fault; ``on_battery`` means just that.
    """

    def __init__(self, link: ModbusLink, profile: Profile, reserve_frac: float) -> None:
        self._profile = profile
        self._reader = Reader(link, profile)
        self._reserve = Reserve(reserve_frac)

    async def read(self) -> Sample:
        """Return what the device says now. Raises Unreachable, Refused or Garbled."""
        await self._reader.read()
        soc_frac = self._one("soc")
        if soc_frac is not None and not 0.0 <= soc_frac <= 1.0:
            soc_frac = None
        self._reserve.saw(soc_frac)
        states = self._reader.states()
        lower_w, upper_w = self._bounds()
        return Sample(
            power_w=self._reader.total("power"),
            soc_frac=soc_frac,
            energy_wh=self._reader.total("energy_import"),
            lower_w=self._reserve.hold(lower_w)[0] if self._is_storage and lower_w is not None else lower_w,
            upper_w=0.0 if self._is_storage and upper_w is not None and soc_frac == 1.0 else upper_w,
            on_battery="on_battery" in states,
            fault=", ".join(state for state in states if state.startswith("fault")),
        )

    @property
    def _is_storage(self) -> bool:
        return self._profile.kind in STORAGE

    def _one(self, role: str) -> float | None:
        name = next(iter(self._profile.role(role)), None)
        return None if name is None else self._reader.in_si(name)

    def _bounds(self) -> tuple[float | None, float | None]:
        """Return least and most power by the rating. [W, + = consumption]"""
        rated_w = self._one("rated_power")
        if rated_w is None or self._profile.kind not in ("inverter", "genset"):
            return None, None
        return -rated_w, 0.0


class CommandedDevice(Device):
    """A device that takes setpoints for the time of their lease."""

    def __init__(self, link: ModbusLink, profile: Profile, reserve_frac: float, exponents: dict[int, int]) -> None:
        super().__init__(link, profile, reserve_frac)
        watchdog = profile.watchdog
        if watchdog is None:
            raise Refused(f"profile {profile.profile} has no watchdog")
        commanders = {
            command.role: Commander(link, profile, command, watchdog, exponents)
            for command in profile.commands.values()
        }
        self._reserve_commander = commanders.pop("reserve_soc", None)
        self._commander = next(iter(commanders.values()), None)
        self._lease = Lease()
        self._has_read = False

    @property
    def takes_setpoints(self) -> bool:
        """It has a command for power, and not only for its reserve."""
        return self._commander is not None

    async def write_reserve(self, reserve_frac: float) -> None:
        """Write the ride-through reserve to the device; it is never lowered. Raises Refused when it does not keep it."""
        commander = self._reserve_commander
        if commander is None or reserve_frac <= 0.0:
            return
        asked = reserve_frac / (factor(commander.command.unit, "%") or 1.0)
        present = await commander.effective(wait=False)
        if present is not None and present >= asked:
            return
        await commander.apply(asked, asked, 1.0)
        kept = await commander.effective(wait=True)
        if kept is None or kept < asked - commander.command.verify.tolerance:
            raise Refused(f"the device did not keep its reserve: {kept} for {asked:g} {commander.command.unit}")

    async def read(self) -> Sample:
        """Return what the device says; a setpoint whose lease ended is released first. Raises DeviceError."""
        if self._lease.has_expired:
            await self.release()
        sample = await super().read()
        self._has_read = True
        if not self._lease.is_running:
            return sample
        commander = self._controls
        return replace(sample, setpoint_w=self._power_w(commander.command, await commander.effective(wait=False)))

    async def apply(self, setpoint: Setpoint) -> Applied:
        """Write the setpoint as pace, ramp and reserve allow and read it back. Raises Unreachable or Refused."""
        commander = self._controls
        must_know_charge = setpoint.power_w < 0.0 and self._is_storage and self._reserve.needs_reading
        if must_know_charge or not self._has_read:
            await super().read()
            self._has_read = True
        power_w, why = self._reserve.hold(setpoint.power_w) if self._is_storage else (setpoint.power_w, "")
        self._lease.renew(setpoint.valid_for_s)
        measured_w = self._reader.total("power")
        now = self._device_value(commander.command, power_w if measured_w is None else measured_w)
        value = self._device_value(commander.command, power_w)
        held = await commander.apply(value, now, setpoint.valid_for_s)
        effective = await commander.effective(wait=True)
        return Applied(self._power_w(commander.command, effective), ", ".join(part for part in (why, held) if part))

    async def release(self) -> None:
        """Give the device back to itself. Idempotent. Raises Unreachable or Refused."""
        await self._controls.release()
        self._lease.end()

    @property
    def _controls(self) -> Commander:
        if self._commander is None:
            raise Refused(f"profile {self._profile.profile} has no command for power")
        return self._commander

    def _bounds(self) -> tuple[float | None, float | None]:
        command = self._controls.command if self._commander else None
        if command is None or command.role != "power":
            return super()._bounds()
        ends = sorted(self._power_w(command, value) or 0.0 for value in (command.min, command.max))
        return ends[0], ends[1]

    def _device_value(self, command: Command, power_w: float) -> float:
        """Return a power as the command's value, in its unit and with its sign. Raises Refused without the rating."""
        signed_w = power_w if command.positive == "import" else -power_w
        if command.role == "start":
            return 1.0 if power_w < 0.0 else 0.0
        if command.role == "power_limit":
            signed_w = max(0.0, signed_w)
        return signed_w / self._unit_w(command) + 0.0

    def _power_w(self, command: Command, value: float | None) -> float | None:
        """Return a command's value as power, None for a start. [W, + = consumption]"""
        if value is None or command.role == "start":
            return None
        power_w = value * self._unit_w(command)
        return (power_w if command.positive == "import" else -power_w) + 0.0

    def _unit_w(self, command: Command) -> float:
        """Return what one unit of the command is. [W]"""
        if not command.unit.startswith("%"):
            return factor(command.unit, "W") or 1.0
        rated_w = self._one("rated_power")
        if not rated_w:
            raise Refused(f"profile {self._profile.profile}: the device does not tell its rated power")
        return rated_w / 100.0

"""Modbus TCP devices described by a register profile (``config/devices/*.toml``): no code per device."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from pydantic import Field, field_validator

from adapters._modbus import ModbusConfig, ModbusLink, modbus
from adapters._profile import Profile, Wire
from adapters._profile_device import CommandedDevice, Device
from adapters._profile_files import load
from adapters._profile_read import Decoder, read_words, wire_addr
from adapters._profile_write import read_exponents
from vppd.errors import ConfigError, Refused
from vppd.ports import Adapter


class Config(ModbusConfig):
    """``[assets.connection]`` of a device with a register profile."""

    profile: str
    """Name of a profile, or a path to one."""
    reserve_frac: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Storage: never discharged at or below this state of charge; written to the device where the profile can."""

    @field_validator("profile")
    @classmethod
    def _readable(cls, name: str) -> str:
        try:
            load(name)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return name


@asynccontextmanager
async def connect(config: Config) -> AsyncIterator[Device]:
    """Yield the device that the profile describes. Raises ConfigError, Unreachable or Refused."""
    profile = load(config.profile)
    async with modbus(_with_manners(config, profile.wire)) as link:
        await _identify(link, profile)
        if not profile.commands or profile.watchdog is None:
            yield Device(link, profile, config.reserve_frac)
            return
        device = CommandedDevice(link, profile, config.reserve_frac, await read_exponents(link, profile))
        await device.write_reserve(config.reserve_frac)
        yield device if device.takes_setpoints else Device(link, profile, config.reserve_frac)


def _with_manners(config: Config, wire: Wire) -> ModbusConfig:
    """Return the connection as the profile wants it; what the operator wrote wins."""
    wanted: dict[str, Any] = {
        "timeout_s": wire.timeout_s,
        "connect_delay_s": wire.connect_delay_s,
        "min_interval_s": wire.min_interval_s,
    }
    said = config.model_dump(exclude={"profile", "reserve_frac"}, exclude_unset=True)
    return ModbusConfig.model_validate(wanted | said)


async def _identify(link: ModbusLink, profile: Profile) -> None:
    """Make sure that the map fits the device. Raises Refused."""
    proof = profile.identify
    if proof is None:
        return
    function = proof.function or profile.wire.function
    decoder = Decoder(proof, profile.wire)
    found = decoder.raw(decoder.cut(await read_words(link, function, wire_addr(profile, proof.addr), proof.size), 0))
    fits = found == proof.equals if proof.contains is None else proof.contains in str(found)
    if not fits:
        expected = proof.equals if proof.contains is None else f"something with {proof.contains!r}"
        raise Refused(f"register {proof.addr} says {found!r}, profile {profile.profile} expects {expected}")


ADAPTER = Adapter(Config, connect)

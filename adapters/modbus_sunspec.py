"""SunSpec devices over Modbus TCP: meters, inverters and storage, found by discovery."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

from pydantic import Field

from adapters._modbus import ModbusConfig, ModbusLink, modbus
from adapters._sunspec import Chain, Plan, discover
from adapters._sunspec_devices import Device, inverter, meter
from adapters._sunspec_state import INVERTERS
from adapters._sunspec_storage import SOC_KEYS, storage
from vppd.errors import Refused
from vppd.ports import Adapter

METERS = (201, 202, 203, 204, 211, 212, 213, 214)


class Config(ModbusConfig):
    """``[assets.connection]`` of a SunSpec device."""

    role: Literal["auto", "meter", "inverter", "storage"] = "auto"
    reserve_frac: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Storage: never discharged at or below this state of charge; also written to the device."""
    write_reserve: bool = True
    """False: leave the device's own reserve register (802 SoCRsvMin, 124 MinRsvPct) alone."""
    charge_from_grid: bool = False
    """Model 124: switch ChaGriSet to GRID while a setpoint is followed."""
    invert_power: bool = False
    """The device's power has the opposite of the sign SunSpec says."""
    base_addr: Annotated[int, Field(ge=0, le=65000)] | None = None
    """Where the map begins; by default 40000, 0 and 50000 are tried."""


@asynccontextmanager
async def connect(config: Config) -> AsyncIterator[Device]:
    """Find the device's models and yield it. Raises Unreachable, Refused or Garbled."""
    async with modbus(config) as link:
        chain = await discover(link, config.base_addr)
        if config.role != "auto":
            role: str = config.role
        else:
            role = await _role(link, chain)
        if role == "storage":
            yield await storage(
                link,
                chain,
                reserve_frac=config.reserve_frac,
                write_reserve=config.write_reserve,
                charge_from_grid=config.charge_from_grid,
                invert_power=config.invert_power,
            )
        elif role == "inverter":
            yield await inverter(link, chain, invert_power=config.invert_power)
        else:
            yield meter(link, chain, METERS, invert_power=config.invert_power)


async def _role(link: ModbusLink, chain: Chain) -> str:
    """Say what the chain describes. Raises Refused when it is nothing known here."""
    if chain.first(713, 802, 124) is not None:
        # Inverters without a battery carry these models too, with nothing in them.
        values = await Plan(chain, SOC_KEYS).read(link)
        if any(value is not None for value in values.values()):
            return "storage"
    if chain.first(*INVERTERS, 702, 704) is not None:
        return "inverter"
    if chain.first(*METERS, 701) is not None:
        return "meter"
    raise Refused(f"no meter, inverter or storage among SunSpec models {sorted(chain.models)}")


ADAPTER = Adapter(Config, connect)

"""A stock SunSpec client (pysunspec2) finds and reads every simulated device."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP

from tests.sim.conftest import ServedSite
from vppd.sim.modbus import HOST

MODELS = {
    "poi-a": [1, 203],
    "poi-b": [1, 203],
    "ups-a": [1, 701, 702, 704, 713, 715, 802],
    "bess-b": [1, 701, 702, 704, 713, 715, 802],
    "pv-b": [1, 103, 120, 121, 123],
}


@contextmanager
def scanned(port: int) -> Iterator[Any]:
    """Open a device with the stock client and let it discover the models."""
    device = SunSpecModbusClientDeviceTCP(slave_id=1, ipaddr=HOST, ipport=port, timeout=5)
    try:
        device.scan()
        yield device
    finally:
        device.close()


def look(port: int, *points: tuple[int, str]) -> tuple[list[int], list[float]]:
    """Return the models a scan finds and the scaled values of some points."""
    with scanned(port) as device:
        found = [model for model in device.models if isinstance(model, int)]
        return found, [float(getattr(device.models[model][0], name).cvalue) for model, name in points]


@pytest.mark.parametrize("name", MODELS)
async def test_scan_finds_every_model(served_site: ServedSite, name: str) -> None:
    """The stock scan walks the whole chain of each device."""
    found, _ = await asyncio.to_thread(look, served_site.endpoints.modbus[name])
    assert found == MODELS[name]


async def test_it_reads_what_the_physics_has(served_site: ServedSite) -> None:
    """Power and state of charge are the plant's, to the resolution of the registers."""
    ports, site = served_site.endpoints.modbus, served_site.site
    before_w = site.state.feeds["main-a"].power_w
    _, (meter_w, hz) = await asyncio.to_thread(look, ports["poi-a"], (203, "W"), (203, "Hz"))
    assert meter_w == pytest.approx((before_w + site.state.feeds["main-a"].power_w) / 2.0, rel=0.005)
    assert hz == 50.0
    _, values = await asyncio.to_thread(
        look, ports["ups-a"], (713, "SoC"), (802, "SoC"), (802, "SoCRsvMin"), (713, "WHRtg"), (702, "WDisChaRteMax")
    )
    assert values == pytest.approx([90.0, 90.0, 30.0, 100_000.0, 100_000.0])
    _, (pv_w,) = await asyncio.to_thread(look, ports["pv-b"], (103, "W"))
    assert pv_w == pytest.approx(site.state.pv["pv-b"].output_w, rel=0.05)


def discharge(port: int) -> tuple[int, int]:
    """Set 40 kW with the stock client; return the setpoint and its remaining seconds as read back."""
    with scanned(port) as device:
        controls = device.models[704][0]
        controls.WSetRvrtTms.cvalue = 60
        controls.WSetMod.cvalue = 1
        controls.WSet.cvalue = 40_000
        controls.WSetEna.cvalue = 1
        controls.write()
        controls.read()
        return int(controls.WSet.cvalue), int(controls.WSetRvrtRem.cvalue)


async def test_it_commands_the_plant(served_site: ServedSite) -> None:
    """A setpoint written by the stock client moves the battery and the feed's meter."""
    site = served_site.site
    before_w = site.state.feeds["main-b"].power_w
    set_w, left_s = await asyncio.to_thread(discharge, served_site.endpoints.modbus["bess-b"])
    assert (set_w, left_s) == (40_000, 60)
    for _ in range(20):
        site.step()
    assert site.state.storage["bess-b"].power_w == -40_000.0
    assert site.state.feeds["main-b"].power_w < before_w - 20_000.0
    assert site.storage["bess-b"].log.transitions == 1

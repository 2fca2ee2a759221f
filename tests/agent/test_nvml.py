"""NVML through NVIDIA's own binding, against a library that behaves like the driver's."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.agent.stub import GPU_IS_LOST, NO_PERMISSION, Stub, uuid
from vppd.agent.device import Limits
from vppd.agent.inventory import Inventory
from vppd.agent.nvml import Nvml
from vppd.errors import ConfigError, Refused, Unreachable
from vppd.runtime.clock import FakeClock


@pytest.fixture
def nvml(gpus: Stub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nvml]:
    """The library, initialised in this process."""
    gpus.load()
    monkeypatch.setenv("VPPD_STUB_NVML", str(gpus.path))
    library = Nvml()
    yield library
    library.close()


def test_gpus_tell_what_they_are(nvml: Nvml) -> None:
    """Eight GPUs by index, with UUID, product, and the range of their limit."""
    found = nvml.devices()
    assert [gpu.name for gpu in found] == [uuid(index) for index in range(8)]
    assert found[3].about() == {"index": 3, "name": "NVIDIA H200"}
    assert found[3].limits == Limits(200.0, 700.0, 700.0)


def test_readings_are_in_base_units(nvml: Nvml, gpus: Stub) -> None:
    """Milliwatts, percent and millijoules become watts, fractions and watt-seconds."""
    gpus.put(0, limit_mw=500_000)
    reading = nvml.devices()[0].read()
    assert (reading.power_w, reading.cap_w, reading.enforced_w) == (500.0, 500.0, 500.0)
    assert (reading.utilisation_frac, reading.clock_mhz, reading.temperature_c) == (0.97, 1980, 61.0)
    assert reading.energy_ws is not None


def test_limits_and_clocks_reach_the_driver(nvml: Nvml, gpus: Stub) -> None:
    """A limit is set in milliwatts and read back; clocks are locked and freed."""
    gpu = nvml.devices()[2]
    gpu.set_cap(512.3)
    assert gpu.cap_w() == 512.3
    assert gpus.get(2, "limit_mw") == 512_300
    gpu.lock_clocks((210, 1200))
    assert (gpus.get(2, "low_mhz"), gpus.get(2, "high_mhz")) == (210, 1200)
    assert gpu.read().clock_mhz == 1200
    gpu.free_clocks()
    assert gpus.get(2, "high_mhz") == 0


def test_a_clear_no_is_refused(nvml: Nvml, gpus: Stub) -> None:
    """Out of range, not permitted and not offered are Refused, with NVML's own words."""
    gpu = nvml.devices()[0]
    with pytest.raises(Refused, match="Invalid Argument"):
        gpu.set_cap(100.0)
    with pytest.raises(Refused, match="Invalid Argument"):
        gpu.lock_clocks((210, 5000))
    gpus.put(0, set_error=NO_PERMISSION)
    with pytest.raises(Refused, match="Insufficient Permissions"):
        gpu.set_cap(500.0)


def test_what_a_gpu_does_not_offer_is_none(nvml: Nvml, gpus: Stub) -> None:
    """A card without an energy counter has none in its reading, and everything else."""
    gpus.offer_no_energy()
    reading = nvml.devices()[0].read()
    assert reading.energy_ws is None
    assert reading.power_w == 650.0


def test_a_lost_gpu_is_unreachable(nvml: Nvml, gpus: Stub) -> None:
    """A GPU that has fallen off the bus is Unreachable, in reading and setting; the next search finds the others."""
    gpu = nvml.devices()[1]
    gpus.put(1, error=GPU_IS_LOST)
    with pytest.raises(Unreachable, match="lost"):
        gpu.read()
    with pytest.raises(Unreachable, match="lost"):
        gpu.set_cap(500.0)
    assert len(nvml.devices()) == 7


def test_a_driver_that_comes_late_is_found(gpus: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a driver there are no GPUs and no failure; it is asked for again after half a minute, not before."""
    gpus.load()
    monkeypatch.setenv("VPPD_STUB_NVML", "/nonexistent")
    clock = FakeClock()
    inventory = Inventory(gpus=True, cpus=False, powercap=gpus.path, mono_s=clock.mono_s)
    assert inventory.devices() == {}
    monkeypatch.setenv("VPPD_STUB_NVML", str(gpus.path))
    assert inventory.devices() == {}
    clock.advance(31.0)
    assert len(inventory.devices()) == 8
    inventory.close()


def test_a_driver_that_was_loaded_again_is_opened_again(gpus: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no GPU answers any more the library is opened anew, at most every half minute, and finds them again."""
    gpus.load()
    monkeypatch.setenv("VPPD_STUB_NVML", str(gpus.path))
    clock = FakeClock()
    inventory = Inventory(gpus=True, cpus=False, powercap=gpus.path, mono_s=clock.mono_s)
    before = inventory.devices()
    assert inventory.devices(lost=True)[uuid(0)] is before[uuid(0)]
    clock.advance(31.0)
    again = inventory.devices(lost=True)
    assert again[uuid(0)] is not before[uuid(0)]
    assert again[uuid(0)].cap_w() == 700.0
    inventory.close()


def test_without_the_binding_the_configuration_is_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPUs wanted and no binding installed: said so, with what to install."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(ConfigError, match="install"):
        Nvml()

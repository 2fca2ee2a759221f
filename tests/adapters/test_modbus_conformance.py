"""The Modbus adapters keep the contract of the ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters import modbus_profile, modbus_sunspec
from tests.adapters.profile_rig import BATTERY, battery_bank, toml
from tests.adapters.sunspec_maps import DER_PV, DER_STORAGE, LEGACY_PV, LEGACY_STORAGE, METER, Device
from vppd.model import Sample
from vppd.testing.conformance import AdapterConformance, Rig, faults

LEASE_S = 0.1


async def end_lease() -> None:
    """Wait out the short lease of these tests."""
    await asyncio.sleep(1.2 * LEASE_S)


class SunSpecConformance(AdapterConformance):
    """A SunSpec device as its register map says."""

    models: dict[int, dict[str, Any]]
    setpoint_w: float | None = None
    enabled = (0, "", 0)
    """Model, point and value that say a setpoint is followed."""

    @asynccontextmanager
    async def rig(self) -> AsyncIterator[Rig]:
        """Yield a served register map."""
        device = Device(self.models)
        model, point, value = self.enabled

        def follows_w() -> float | None:
            return self.setpoint_w if device.get(model, point) == value else None

        async with device.bank.serving() as bank:
            yield Rig(
                modbus_sunspec.ADAPTER,
                {"host": "127.0.0.1", "port": bank.port, "timeout_s": 0.2},
                hush=lambda: bank.silent.add(1),
                setpoint_w=self.setpoint_w,
                follows_w=follows_w,
                lease_s=LEASE_S,
                end_lease=end_lease,
            )


class TestMeter(SunSpecConformance):
    """Model 203."""

    models = METER


class TestInverter(SunSpecConformance):
    """Models 701-704."""

    models, setpoint_w, enabled = DER_PV, -4000.0, (704, "WMaxLimPctEna", 1)


class TestLegacyInverter(SunSpecConformance):
    """Models 103 and 123."""

    models, setpoint_w, enabled = LEGACY_PV, -25_000.0, (123, "WMaxLim_Ena", 1)


class TestStorage(SunSpecConformance):
    """Models 701-704, 713, 715 and 802."""

    models, setpoint_w, enabled = DER_STORAGE, -20_000.0, (704, "WSetEna", 1)


class TestLegacyStorage(SunSpecConformance):
    """Models 103 and 124."""

    models, setpoint_w, enabled = LEGACY_STORAGE, 4000.0, (124, "StorCtl_Mod", 3)


class TestProfile(AdapterConformance):
    """A battery with a register profile."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.profile = tmp_path / "test.toml"
        self.profile.write_text(toml(BATTERY))

    @asynccontextmanager
    async def rig(self) -> AsyncIterator[Rig]:
        """Yield a served battery."""
        async with battery_bank().serving() as bank:

            def follows_w() -> float | None:
                power_w = bank.get(102, "i")
                return -power_w if power_w else None

            yield Rig(
                modbus_profile.ADAPTER,
                {"host": "127.0.0.1", "port": bank.port, "profile": str(self.profile)},
                hush=lambda: bank.silent.add(1),
                setpoint_w=-3000.0,
                follows_w=follows_w,
                lease_s=LEASE_S,
                end_lease=end_lease,
            )


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (Sample(power_w=float("nan")), "power_w is nan"),
        (Sample(power_w=1.0, soc_frac=50.0), "soc_frac"),
        (Sample(power_w=1.0, lower_w=5.0, upper_w=-5.0), "above upper_w"),
        (Sample(available_w=1.0, tier_shed_w=(-1.0,)), "tier_shed_w"),
        (Sample(), "nothing is measured"),
    ],
)
def test_a_wrong_sample_is_found(sample: Sample, said: str) -> None:
    """The suite sees what is not SI, not finite or not there."""
    assert said in " ".join(faults(sample))

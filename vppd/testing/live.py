"""The conformance tests against a device on the wire.

    pytest -p vppd.testing.plugin --pyargs vppd.testing.live --adapter modbus-sunspec --connection device.toml

In a checkout give the path ``vppd/testing/live.py`` instead of ``--pyargs vppd.testing.live``. ``device.toml`` is the ``connection`` table of ``vppd.toml``. Nothing is written to the device unless ``--setpoint WATTS`` says what
may be; it is released afterwards.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from vppd.testing.conformance import AdapterConformance, Rig


class TestDevice(AdapterConformance):
    """A device named on pytest's command line."""

    live: Rig

    @pytest.fixture(autouse=True)
    def _device(self, live_rig: Rig) -> None:
        self.live = live_rig

    @asynccontextmanager
    async def rig(self) -> AsyncIterator[Rig]:
        """Yield the device on the wire."""
        yield self.live

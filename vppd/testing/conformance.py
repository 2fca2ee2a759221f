"""What every adapter must do, as tests: subclass ``AdapterConformance`` in a test module and give it a rig.

    class TestAcme(AdapterConformance):
        @asynccontextmanager
        async def rig(self):
            async with acme_simulator() as simulator:
                yield Rig(ADAPTER, {"host": "127.0.0.1", "port": simulator.port}, hush=simulator.hush)

Against a device on the wire: see ``vppd.testing.live``.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from typing import Any

import pytest
from pydantic import ValidationError

from vppd.errors import ConfigError, Unreachable
from vppd.model import Applied, Sample, Setpoint
from vppd.ports import Adapter, Controllable, Polled, Streaming

ANSWER_WITHIN_S = 10.0
CANCEL_AFTER_S = 0.05


@dataclass(frozen=True, slots=True)
class Rig:
    """A device for the tests to play with, and the hand that moves it."""

    adapter: Adapter[Any]
    connection: Mapping[str, Any]
    """A ``[assets.connection]`` table that works."""
    hush: Callable[[], None] | None = None
    """From now on the device answers nothing; None: it can not be silenced."""
    setpoint_w: float | None = None
    """A setpoint the device can follow; None: nothing is written. [W, + = consumption]"""
    follows_w: Callable[[], float | None] | None = None
    """What the device itself says it follows, past the adapter; None when it follows nothing."""
    lease_s: float = 1.0
    """The lease to give. [s]"""
    end_lease: Callable[[], Awaitable[None]] | None = None
    """Let the lease pass, in the device's time and in the adapter's."""

    def open(self) -> AbstractAsyncContextManager[Any]:
        """Connect to the device by the adapter's own configuration."""
        return self.adapter.connect(self.adapter.config.model_validate(dict(self.connection)))


class AdapterConformance:
    """The contract of ``vppd.ports`` as tests; what a rig can not do is skipped."""

    def rig(self) -> AbstractAsyncContextManager[Rig]:
        """Return a device to test against, fresh for each test."""
        raise NotImplementedError

    @pytest.mark.asyncio
    async def test_unknown_keys_are_refused(self) -> None:
        """A misspelt key in the connection table is an error, not a surprise."""
        async with self.rig() as rig:
            with pytest.raises((ValidationError, ConfigError)):
                rig.adapter.config.model_validate({**rig.connection, "no_such_key": 1})

    @pytest.mark.asyncio
    async def test_the_configuration_is_frozen(self) -> None:
        """Nobody changes a connection behind the adapter's back."""
        async with self.rig() as rig:
            assert rig.adapter.config.model_config.get("frozen")

    @pytest.mark.asyncio
    async def test_the_device_can_be_read_or_speaks_by_itself(self) -> None:
        """What connect() yields is Polled or Streaming."""
        async with self.rig() as rig, rig.open() as device:
            assert isinstance(device, Polled | Streaming)

    @pytest.mark.asyncio
    async def test_readings_are_si_and_finite(self) -> None:
        """Numbers are finite, fractions lie in 0-1, bounds are in order, and something is measured at all."""
        async with self.rig() as rig, rig.open() as device, asyncio.timeout(ANSWER_WITHIN_S):
            assert list(faults(await one_sample(device))) == []

    @pytest.mark.asyncio
    async def test_silence_is_unreachable(self) -> None:
        """A device that stops answering is Unreachable, never an old value."""
        async with self.rig() as rig, rig.open() as device:
            if rig.hush is None or not isinstance(device, Polled):
                pytest.skip("the device can not be silenced")
            await device.read()
            rig.hush()
            async with asyncio.timeout(ANSWER_WITHIN_S):
                with pytest.raises(Unreachable):
                    await device.read()

    @pytest.mark.asyncio
    async def test_silence_while_writing_is_unreachable(self) -> None:
        """A setpoint without an answer has an unknown outcome: Unreachable."""
        async with self.rig() as rig, rig.open() as device:
            if rig.hush is None or rig.setpoint_w is None:
                pytest.skip("the device can not be silenced, or nothing may be written")
            rig.hush()
            async with asyncio.timeout(ANSWER_WITHIN_S):
                with pytest.raises(Unreachable):
                    await device.apply(self.setpoint(rig))

    @pytest.mark.asyncio
    async def test_cancellation_gets_through(self) -> None:
        """A reading of a silent device that is cancelled ends, and ends as cancelled."""
        async with self.rig() as rig, rig.open() as device:
            if rig.hush is None or not isinstance(device, Polled):
                pytest.skip("the device can not be silenced")
            rig.hush()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(CANCEL_AFTER_S):
                    await device.read()

    @pytest.mark.asyncio
    async def test_applying_twice_is_applying_once(self) -> None:
        """Setpoints are absolute: the second time changes nothing, and the device says what it follows."""
        async with self.rig() as rig, rig.open() as device:
            self.need_control(rig, device)
            first: Applied = await device.apply(self.setpoint(rig))
            second: Applied = await device.apply(self.setpoint(rig))
            assert first.power_w == second.power_w
            assert first.power_w is None or first.power_w == pytest.approx(rig.setpoint_w, rel=0.02, abs=1.0)
            if rig.follows_w is not None:
                assert rig.follows_w() == pytest.approx(rig.setpoint_w, rel=0.02, abs=1.0)
            await device.release()

    @pytest.mark.asyncio
    async def test_releasing_twice_is_releasing_once(self) -> None:
        """release() gives the device back, whatever state it is in."""
        async with self.rig() as rig, rig.open() as device:
            self.need_control(rig, device)
            await device.release()
            await device.apply(self.setpoint(rig))
            await device.release()
            await device.release()
            if rig.follows_w is not None:
                assert rig.follows_w() is None

    @pytest.mark.asyncio
    async def test_an_ended_lease_gives_the_device_back(self) -> None:
        """Without renewal the device returns to its own safe default; reading it does not keep the setpoint alive."""
        async with self.rig() as rig, rig.open() as device:
            self.need_control(rig, device)
            if rig.end_lease is None or rig.follows_w is None:
                pytest.skip("the rig can not let a lease end")
            await device.apply(self.setpoint(rig))
            await rig.end_lease()
            await one_sample(device)
            assert rig.follows_w() is None

    @staticmethod
    def setpoint(rig: Rig) -> Setpoint:
        """Return the rig's setpoint with its lease."""
        assert rig.setpoint_w is not None
        return Setpoint("device-under-test", rig.setpoint_w, rig.lease_s)

    @staticmethod
    def need_control(rig: Rig, device: object) -> None:
        """Skip unless the device may be and can be commanded."""
        if rig.setpoint_w is None:
            pytest.skip("nothing may be written")
        assert isinstance(device, Controllable)


async def one_sample(device: object) -> Sample:
    """Return the next Sample of a polled or streaming device."""
    if isinstance(device, Polled):
        return await device.read()
    assert isinstance(device, Streaming)
    samples = device.samples()
    try:
        return await anext(samples)
    finally:
        if isinstance(samples, AsyncGenerator):
            await samples.aclose()


def faults(sample: Sample) -> Iterator[str]:
    """Yield what is wrong with a Sample, by field."""
    yield from _senseless(sample)
    if all(value is None for value in (sample.power_w, sample.soc_frac, sample.energy_wh, sample.available_w)):
        yield "nothing is measured"


def _senseless(sample: Sample) -> Iterator[str]:
    """Yield the numbers that cannot be."""
    for name, value in ((field.name, getattr(sample, field.name)) for field in fields(sample)):
        if isinstance(value, float | int) and not math.isfinite(value):
            yield f"{name} is {value}"
    if sample.soc_frac is not None and not 0.0 <= sample.soc_frac <= 1.0:
        yield f"soc_frac is {sample.soc_frac}, not in 0-1"
    if sample.lower_w is not None and sample.upper_w is not None and sample.lower_w > sample.upper_w:
        yield f"lower_w {sample.lower_w} is above upper_w {sample.upper_w}"
    if any(shed_w < 0.0 or not math.isfinite(shed_w) for shed_w in sample.tier_shed_w):
        yield f"tier_shed_w holds {sample.tier_shed_w}: amounts are not negative"

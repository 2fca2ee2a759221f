"""The latest values of all assets in columns: devices write whenever, the cycle takes a copy."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from vppd.model import TIERS, Sample
from vppd.snapshot import Readings

Listener = Callable[[Sample, float], None]
"""Called with a sample and the monotonic time at which the device was asked. [s]"""


class LatestValues:
    """One slot per asset, in the order of ``Plant``."""

    def __init__(self, asset_ids: Sequence[str]) -> None:
        self.asset_ids = tuple(asset_ids)
        self._index = {asset_id: i for i, asset_id in enumerate(self.asset_ids)}
        self._readings = Readings.blank(len(self.asset_ids))
        self._samples: list[Sample | None] = [None] * len(self.asset_ids)
        self._listeners: list[list[Listener]] = [[] for _ in self.asset_ids]
        self._untried = set(range(len(self.asset_ids)))
        self._all_tried = asyncio.Event()
        if not self._untried:
            self._all_tried.set()

    def index(self, asset_id: str) -> int:
        """Return the slot of an asset. Raises KeyError."""
        return self._index[asset_id]

    def store(self, i: int, sample: Sample, mono_s: float, asked_s: float | None = None) -> None:
        """Take what a device said; ``mono_s`` is the time of its reply, ``asked_s`` that of the question. [s]"""
        readings = self._readings
        readings.power_w[i] = _known(sample.power_w)
        readings.soc_frac[i] = _known(sample.soc_frac)
        readings.available_w[i] = _known(sample.available_w)
        readings.lower_w[i] = _known(sample.lower_w)
        readings.upper_w[i] = _known(sample.upper_w)
        readings.setpoint_w[i] = _known(sample.setpoint_w)
        for tier in range(TIERS):
            readings.tier_shed_w[i, tier] = sample.tier_shed_w[tier] if tier < len(sample.tier_shed_w) else 0.0
        readings.mono_s[i] = mono_s
        readings.on_battery[i] = sample.on_battery
        readings.faulty[i] = bool(sample.fault)
        readings.online[i] = True
        self._samples[i] = sample
        self.set_tried(i)
        for listener in self._listeners[i]:
            listener(sample, mono_s if asked_s is None else asked_s)

    def set_online(self, i: int, online: bool) -> None:
        """Say whether the link to a device is up; its values stay, and grow old."""
        self._readings.online[i] = online

    def set_rejected(self, i: int, rejected: bool) -> None:
        """Say whether a device refuses what it is told."""
        self._readings.rejected[i] = rejected

    def set_tried(self, i: int) -> None:
        """Note that a device has been asked once, whether it answered or not."""
        if i in self._untried:
            self._untried.discard(i)
            if not self._untried:
                self._all_tried.set()

    @property
    def untried(self) -> tuple[str, ...]:
        """Assets that nobody has asked yet."""
        return tuple(self.asset_ids[i] for i in sorted(self._untried))

    async def all_tried(self) -> None:
        """Return once every device has been asked."""
        await self._all_tried.wait()

    def listen(self, i: int, listener: Listener) -> None:
        """Have ``listener`` called with every further sample of an asset."""
        self._listeners[i].append(listener)

    def latest(self, i: int) -> Sample | None:
        """Return the last sample of an asset as its adapter gave it."""
        return self._samples[i]

    def frame(self) -> Readings:
        """Return a copy of all columns at this moment."""
        return self._readings.copy()


def _known(value: float | None) -> float:
    return math.nan if value is None else value

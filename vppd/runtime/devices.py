"""All devices of a plant: each with its own link, poller and - if it takes setpoints - actuator."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from vppd.config.load import Config
from vppd.config.plant import STORAGE, AssetConfig
from vppd.model import Kind, Setpoint
from vppd.ports import Planner, Window
from vppd.runtime.actuator import Actuator
from vppd.runtime.clock import Clock
from vppd.runtime.cluster_actuator import ClusterActuator
from vppd.runtime.intents import Intent, IntentBook, Terms
from vppd.runtime.link import Device, attend
from vppd.runtime.poller import Pace
from vppd.runtime.registry import Connect
from vppd.runtime.table import LatestValues
from vppd.runtime.windows import Windows
from vppd.snapshot import Plant

TOLERANCE_FRAC = 0.02
"""A read-back within this part of the rating is a confirmation. [0-1]"""
FRESH_CYCLES = 3.0
"""A wish older than this many cycles is not written any more: the cycle has stopped."""
OPEN_FACTOR = 2.0
"""A budget of this many times the rating asks for nothing, a planner's margin and corrections taken off."""
SLACK_S = 3.0
"""The outer limit of a read or write beyond the configured time limit: a guard behind the driver's own. [s]"""


class Devices:
    """Runs every device of the plant; what they say is in ``table``."""

    def __init__(
        self,
        config: Config,
        connects: Mapping[str, Connect],
        plant: Plant,
        clock: Clock,
        book: IntentBook,
        seed: int = 0,
        planners: Mapping[str, Planner] | None = None,
        comes_back: Callable[[str], bool] = lambda asset_id: False,
    ) -> None:
        """``planners``: who chooses for the clusters among the assets, by asset; ``comes_back``: has he jobs to bring back?"""
        self._planners, self._comes_back = planners or {}, comes_back
        self._config, self._connects, self._clock = config, connects, clock
        self._rng = random.Random(seed)  # noqa: S311 - spreads polls and retries, guards nothing
        self.table = LatestValues(plant.asset_ids)
        self._windows = {asset.id: Windows(asset.id) for asset in config.assets if asset.kind is Kind.CLUSTER}
        self.actuators = {
            i: self._actuator(i, asset, book) for i, asset in enumerate(config.assets) if plant.controllable[i]
        }

    def inherit(self, intents: Iterable[Intent]) -> None:
        """Take over intents of an earlier process whose outcome nobody knows."""
        by_id = {actuator.asset_id: actuator for actuator in self.actuators.values()}
        for intent in intents:
            if intent.asset_id in by_id:
                by_id[intent.asset_id].inherit(intent)

    def reserve(self, asset_id: str, windows: Sequence[Window]) -> None:
        """Have a cluster's scheduler, if it can, keep power free in these windows and no others; returns at once."""
        self._windows[asset_id].want(windows)

    def shed_first(self, assets: Iterable[int]) -> list[tuple[str, float]]:
        """Return the nodes that could be throttled on some assets, the first to shed first: (name, power [W])."""
        samples = (self.table.latest(i) for i in assets)
        return [entry for sample in samples if sample is not None for entry in sample.shed_first]

    async def run(self) -> None:
        """Hold every link for ever; only a bug ends it."""
        async with asyncio.TaskGroup() as group:
            for i, asset in enumerate(self._config.assets):
                planner = self._planners.get(asset.id) if i in self.actuators else None
                device = Device(
                    asset.id, self._connects[asset.id], self._pace(asset), self.actuators.get(i), planner,
                    self._windows.get(asset.id) if i in self.actuators else None,
                )  # fmt: skip
                group.create_task(attend(device, self.table, self._clock, self._rng), name=f"device-{asset.id}")

    def _pace(self, asset: AssetConfig) -> Pace:
        limit_s = self._config.site.io_timeout_s + SLACK_S
        return Pace(asset.poll_s, limit_s, self._rng.uniform(0.0, asset.poll_s))

    def _actuator(self, i: int, asset: AssetConfig, book: IntentBook) -> Actuator:
        rating_w = max(asset.rated_charge_w, asset.rated_discharge_w) if asset.kind in STORAGE else asset.rated_w
        terms = Terms(
            kind=asset.kind,
            tolerance_w=asset.tolerance_w or max(TOLERANCE_FRAC * rating_w, 1.0),
            limit_s=2 * self._config.site.io_timeout_s + SLACK_S,
            fresh_s=FRESH_CYCLES * self._config.site.cycle_s,
        )
        flag = partial(self.table.set_rejected, i)
        if asset.id not in self._planners:
            return Actuator(asset.id, terms, self._clock, book, flag)
        open_w = OPEN_FACTOR * asset.rated_w
        opened = Setpoint(asset.id, open_w, self._config.site.lease_s, "power comes back step by step")
        return ClusterActuator(asset.id, terms, self._clock, book, flag, opened, partial(self._comes_back, asset.id))

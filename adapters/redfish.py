"""Servers capped through their BMCs: a set of nodes as one asset that keeps to a power budget.

BMCs know no lease. While this process lives it lifts the caps when the lease ends; after its death they stay until the next process
finds them in the journal, holds them for one lease, and puts back what was there before.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from adapters._budget import applied
from adapters._redfish_config import RedfishConfig
from adapters._redfish_load import Load, headroom, planned, shed_first, shed_w, steady, workload
from adapters._redfish_pool import BmcPool, Outcome, open_pool
from vppd.errors import DeviceError, Refused, Unreachable
from vppd.model import Applied, Sample, Setpoint
from vppd.ports import Adapter, Planner

TEND_S = 2.0
_STIFF_S = 60.0
"""Others give in its place for so long when a node does not follow."""
_NAMED = 5
"""So many failing nodes are named, the others counted."""


class RedfishNodes:
    """A set of nodes. Polled, Controllable and Plannable."""

    def __init__(self, config: RedfishConfig, pool: BmcPool) -> None:
        self._config = config
        self._pool = pool
        self._planner: Planner | None = None
        self._budget_w = pool.books.budget_w
        self._valid_for_s = pool.books.lease_s or config.orphan_lease_s
        self._until_s = _now_s() + self._valid_for_s
        self._caps_w: dict[str, float] = {n: k.cap_w for n, k in pool.books.kept.items() if k.cap_w is not None}
        self._stiff_w: dict[str, tuple[float, float]] = {}
        """Nodes that did not follow a cap: the least that holds there, and until when that is believed. [W, s]"""
        self._turn = asyncio.Lock()
        self._tending = asyncio.create_task(self._tend())

    def plan_with(self, planner: Planner) -> None:
        """Let this planner choose the nodes; without one all that may be capped give the same part of their headroom."""
        self._planner = planner

    async def read(self) -> Sample:
        """Return what the nodes draw, and what each tier could shed. Raises Unreachable, Refused or Garbled.

        A node whose BMC has not answered lately counts for ``node_max_w``; values are ``refresh_s`` old at most while BMCs answer.
        That single BMCs fail is no fault of the asset, which would be isolated: it is told with each setpoint.
        """
        if self._tending.done():
            self._tending.result()
        await self._pool.news(self._config.read_wait_s)
        loads = self._loads()
        available_w = math.fsum(load.full_w for load in loads)
        tiers_w = shed_w(loads) if self._planner is None else self._planner.shed_w(workload(loads))
        return Sample(
            power_w=math.fsum(load.draw_w for load in loads),
            available_w=available_w,
            lower_w=max(available_w - sum(tiers_w), 0.0),
            upper_w=available_w,
            tier_shed_w=tiers_w,
            setpoint_w=self._budget_w,
            shed_first=shed_first(loads),
        )

    async def apply(self, setpoint: Setpoint) -> Applied:
        """Keep the draw within ``setpoint.power_w`` for as long as the lease runs. Raises Unreachable (outcome unknown) or Refused.

        Returns after ``wait_s`` at most: nodes that are not capped by then count in full, and are capped in the background.
        """
        async with self._turn:
            books = self._pool.books
            self._budget_w, self._valid_for_s = setpoint.power_w, setpoint.valid_for_s
            self._until_s = _now_s() + setpoint.valid_for_s
            if (books.budget_w, books.lease_s) != (setpoint.power_w, setpoint.valid_for_s):
                books.budget_w, books.lease_s = setpoint.power_w, setpoint.valid_for_s
                await self._pool.save()
            await self._pool.news(self._config.read_wait_s)
            return await self._enforce(setpoint.power_w, setpoint.valid_for_s, self._config.wait_s)

    async def release(self) -> None:
        """Put back every limit that we, or an earlier process, changed. Idempotent. Raises Unreachable or Refused.

        BMCs that are slow or dead do not hold this up: theirs are put back as soon as they answer, by whoever has the journal.
        """
        async with self._turn:
            self._end()
            touched = dict.fromkeys(name for name in self._pool.books.kept if name in self._pool.names)
            outcomes = await self._pool.put_all(touched, None, insist=True)
            with contextlib.suppress(Refused):  # a full disk keeps nobody from going on
                await self._pool.save()
            failed = _failed(outcomes)
            if refused := _refused(failed):
                raise Refused(f"not all limits are as they were: {_named(refused)}")
            if failed and _is_all(failed, outcomes):
                raise Unreachable(f"no limit is as it was: {_named(failed)}")

    async def close(self) -> None:
        """End the watch over the budget."""
        self._tending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._tending

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Have no budget any more."""
        self._budget_w, self._until_s, self._caps_w = None, math.inf, {}
        self._pool.books.budget_w = None

    def _loads(self) -> list[Load]:
        config, pool = self._config, self._pool
        return [self._load(config, pool, name) for name in pool.names]

    def _load(self, config: RedfishConfig, pool: BmcPool, name: str) -> Load:
        kept, power_w, cap = pool.kept(name), pool.power_w(name), pool.cap(name)
        before_w = kept.full_w if kept is not None else power_w
        full_w = config.node_max_w if before_w is None else max(before_w, power_w or 0.0)
        top_w = pool.max_cap_w(name) or config.node_max_w
        return Load(
            name=name,
            tier=config.node_tier.get(name, config.default_tier),
            full_w=full_w,
            floor_w=max(cap.min_cap_w if cap else 0.0, config.cap_floor_frac * top_w, self._stiff_floor_w(name)),
            power_w=power_w,
            cap_w=cap.cap_w if cap is not None and kept is not None else None,
            answers=cap is not None,
        )

    def _stiff_floor_w(self, name: str) -> float:
        floor_w, until_s = self._stiff_w.get(name, (0.0, -math.inf))
        return floor_w if _now_s() < until_s else 0.0

    async def _enforce(self, budget_w: float, valid_for_s: float, wait_s: float) -> Applied:
        """Plan, cap, lift what is not to be capped any more, and say what to expect."""
        loads = self._loads()
        caps_w = self._caps_w = steady(self._plan(loads, budget_w), self._caps_w)
        lifted = (name for name in self._pool.books.kept if name not in caps_w and name in self._pool.names)
        wanted_w: dict[str, float | None] = {**dict.fromkeys(lifted), **caps_w}
        outcomes = await self._pool.put_all(wanted_w, valid_for_s, wait_s)
        return self._applied(budget_w, loads, caps_w, outcomes)

    def _plan(self, loads: list[Load], budget_w: float) -> dict[str, float]:
        if self._planner is None:
            return headroom(loads, budget_w - self._config.margin_frac * max(budget_w, 0.0))
        return planned(loads, self._planner.plan(workload(loads), budget_w, _now_s()))  # it keeps a margin of its own

    def _applied(
        self, budget_w: float, loads: list[Load], caps_w: Mapping[str, float], outcomes: Mapping[str, Outcome]
    ) -> Applied:
        """Return the budget when the caps that hold keep to it, else the power to expect. [W] Raises what all nodes failed by."""
        failed = _failed(outcomes)
        if failed and _is_all(failed, outcomes):
            raise next(iter(failed.values()))
        held_w = {name: _held_w(outcomes.get(name)) for name in caps_w}
        expected_w = sum(min(held_w.get(load.name, math.inf), load.full_w) for load in loads)
        unheld = {
            load.name: Refused(
                f"{load.name}: a cap of {caps_w[load.name]:.0f} W reads back as {_watts(held_w[load.name])}"
            )
            for load in loads
            if load.name in caps_w and _is_unheld(outcomes.get(load.name), caps_w[load.name])
        }
        self._distrust({name: held_w[name] for name in unheld} | dict.fromkeys(_refused(failed), math.inf))
        silent = sum(not load.answers for load in loads)
        return applied(budget_w, expected_w, self._detail(caps_w, {**failed, **unheld}, silent))

    def _distrust(self, holds_w: Mapping[str, float]) -> None:
        """Have others give for some time in the place of nodes that did not follow; what holds there, by node. [W]"""
        until_s = _now_s() + _STIFF_S
        self._stiff_w |= {name: (power_w, until_s) for name, power_w in holds_w.items()}

    def _detail(self, caps_w: Mapping[str, float], bad: Mapping[str, DeviceError], silent: int) -> list[str]:
        """Return what is to be said of the nodes: how many are capped, who failed, who is silent."""
        detail = [f"{sum(name not in bad for name in caps_w)} of {len(caps_w)} capped"]
        detail += [f"{len(bad)} failed: {_named(bad)}"] if bad else []
        detail += [f"{silent} silent, counted at {self._config.node_max_w:.0f} W each"] if silent else []
        rest = {name: error for name, error in self._pool.problems().items() if name not in bad}
        return [*detail, f"other troubles: {_named(rest)}"] if rest else detail

    async def _tend(self) -> None:
        """Follow what the nodes draw while the budget is good; what fails is tried again in the next round."""
        while True:
            await asyncio.sleep(TEND_S)
            async with self._turn:
                if _now_s() >= self._until_s:
                    self._end()  # the pool lifts each cap at the same time
                if self._budget_w is None:
                    continue
                # The lease is the caller's to renew: what is left of it is all that a correction gets. Nobody waits for
                # BMCs here: what fails shows with them, and in the next setpoint's outcome.
                with contextlib.suppress(DeviceError):
                    await self._enforce(self._budget_w, max(self._until_s - _now_s(), 0.0), 0.0)


def _failed(outcomes: Mapping[str, Outcome]) -> dict[str, DeviceError]:
    return {name: outcome.error for name, outcome in outcomes.items() if outcome.error is not None}


def _refused(failed: Mapping[str, DeviceError]) -> dict[str, DeviceError]:
    return {name: error for name, error in failed.items() if isinstance(error, Refused)}


def _is_all(failed: Mapping[str, DeviceError], outcomes: Mapping[str, Outcome]) -> bool:
    """Say whether every node has failed, and none of them is still at it."""
    return len(failed) == len(outcomes) and not any(outcome.pending for outcome in outcomes.values())


def _held_w(outcome: Outcome | None) -> float:
    """Return the cap that holds on a node as it was read back, inf for none. [W]"""
    cap_w = outcome.cap.cap_w if outcome is not None and outcome.cap is not None else None
    return math.inf if cap_w is None else cap_w


def _is_unheld(outcome: Outcome | None, cap_w: float) -> bool:
    """Say whether a BMC took a cap and does not show it. [W]"""
    return outcome is not None and outcome.error is None and not outcome.holds(cap_w)


def _named(errors: Mapping[str, DeviceError]) -> str:
    texts = [str(errors[name]) for name in sorted(errors)[:_NAMED]]
    return "; ".join(texts) + (f"; and {len(errors) - _NAMED} more" if len(errors) > _NAMED else "")


def _watts(cap_w: float) -> str:
    return f"{cap_w:.0f} W" if cap_w < math.inf else "none"


def _now_s() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def connect(config: RedfishConfig) -> AsyncIterator[RedfishNodes]:
    """Open the nodes; on the way out all limits are put back, except after a lost link: then the next connection goes on."""
    async with open_pool(config) as pool:
        nodes = RedfishNodes(config, pool)
        try:
            yield nodes
        finally:
            await nodes.close()


ADAPTER = Adapter(RedfishConfig, connect)

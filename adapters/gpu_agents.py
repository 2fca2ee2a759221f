"""Nodes with agents and no scheduler, as one cluster: their caps and clocks follow a power budget.

Every order has a lease, and the agents keep it: when this process or the network dies, each node goes back by itself. What
is in force is read from what the agents say, so a restart finds it. A node that does not speak counts with all it could draw.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from adapters._agent_caps import AgentCaps, Node, agent_caps
from adapters._agents_clock import ClockTable
from adapters._agents_config import GpuAgentsConfig
from adapters._agents_load import Load, Memory, View, load, most_w
from adapters._agents_orders import FREE, Orders, Report, some
from adapters._agents_plan import (
    Targets,
    expected_w,
    is_another,
    planned,
    share,
    shed_first,
    shed_w,
    wanted,
    workload,
)
from adapters._agents_wire import Status, Wanted
from adapters._budget import SLACK_W, applied
from vppd.errors import DeviceError, Unreachable
from vppd.model import Applied, Sample, Setpoint
from vppd.ports import Adapter, Planner

LOOK_S = 0.02
"""Pause between two looks for the first words of nodes. [s]"""
SETTLE_S = 5.0
"""So long after an order a locked clock shows in what is measured. [s]"""
BREATH = 50
"""So many nodes are looked at in one go before others in this process have their turn."""


class _Seen(NamedTuple):
    """A node's load and what it was made from."""

    spoke_s: float
    status: Status | None
    order: Wanted | None
    load: Load | None


class GpuAgents:
    """The cluster. Streaming, Controllable and Plannable."""

    def __init__(self, config: GpuAgentsConfig, agents: AgentCaps) -> None:
        self._config, self._agents = config, agents
        self._table = ClockTable(config.clock_table)
        self._memory = Memory(self._table)
        self._seen: dict[str, _Seen] = {}
        self._orders = Orders(agents, config.at_once)
        self._planner: Planner | None = None
        self._budget_w: float | None = None
        self._until_s = -math.inf
        self._targets = Targets()
        self._has_begun, self._begins_s = False, _now_s() + config.stale_s
        self._turn = asyncio.Lock()
        self._trouble: dict[str, str] = {}
        self._tending = asyncio.create_task(self._tend(), name=f"agents of {config.site}")

    def plan_with(self, planner: Planner) -> None:
        """Use this planner from now on."""
        self._planner = planner

    async def samples(self) -> AsyncIterator[Sample]:
        """Yield what the nodes draw and could give, on a steady beat. Raises Unreachable when none speaks, or the link is lost."""
        await self._first_words()
        while True:
            if self._tending.done():
                self._tending.result()
            yield self._sample(await self._look())
            await asyncio.sleep(self._config.sample_s)

    async def apply(self, setpoint: Setpoint) -> Applied:
        """Keep the nodes' draw within ``setpoint.power_w``. [W] Raises Unreachable (outcome unknown) or Refused when no node takes its part."""
        async with self._turn:
            await self._first_words()
            view = await self._look(self._config.sample_s)
            self._budget_w, self._until_s = setpoint.power_w, _now_s() + setpoint.valid_for_s
            orders = self._wish(view, setpoint.power_w)
            lifted = dict.fromkeys(self._touched() - orders.keys(), FREE)
            report = await self._orders.send(orders | lifted, setpoint.valid_for_s)
            self._note(report)
            report.raise_if_all_failed()
            return self._applied(setpoint.power_w, view, report)

    async def release(self) -> None:
        """Give every node back, also those an earlier process holds; a node that does not answer goes back with its lease.

        Idempotent. Raises Unreachable or Refused when a node that we hold has not confirmed and its lease still runs.
        """
        async with self._turn:
            self._budget_w, self._until_s, self._targets = None, -math.inf, Targets()
            self._orders.forget_ended()
            report = await self._orders.send(
                dict.fromkeys(sorted(self._touched()), FREE), 1.0, self._config.release_within_s
            )
            self._note(report)
            held = {name: text for name, text in report.failed.items() if name in self._orders.held}
            if held:
                raise Unreachable(some(held))

    async def close(self) -> None:
        """End the watch over the budget; the nodes keep what they hold until their leases end."""
        self._tending.cancel()
        await asyncio.wait({self._tending})
        if not self._tending.cancelled():
            self._tending.result()  # only a bug ends it

    # ---- looking -----------------------------------------------------------------------------------------------------

    async def _first_words(self) -> None:
        """Return when all nodes we know of have spoken once, or had their time to. Raises Unreachable while there is no link."""
        while not self._has_begun:
            self._agents.check()
            names = self._names()
            has_all = bool(names) and all(self._is_fresh(name) for name in names)
            self._has_begun = has_all or _now_s() >= self._begins_s
            if not self._has_begun:
                await asyncio.sleep(LOOK_S)

    async def _look(self, old_s: float = 0.0) -> View:
        """Return what the nodes draw and may do, now or ``old_s`` ago at most. [s] Raises Unreachable when none speaks."""
        self._agents.check()
        config, view = self._config, View()
        names = self._names()
        for i, name in enumerate(names):
            node = self._agents.nodes.get(name)
            found = self._load(node, old_s) if node is not None and self._agents.is_fresh(node) else None
            if found is None:
                view.silent_w[name] = most_w(config, node)
                view.rest_w += view.silent_w[name] + config.node_rest_w
            else:
                view.loads[name] = found
                view.rest_w += found.rest_w
            if i % BREATH == BREATH - 1:
                await asyncio.sleep(0)
        if not view.loads:
            raise Unreachable(f"no agent of {config.site} speaks")
        self._memory.keep(dict.fromkeys(names))
        return view

    def _load(self, node: Node, old_s: float) -> Load | None:
        """Return a node's load, looked at once for each of its messages and orders; a measurement may be ``old_s`` older. [s]"""
        order = self._orders.held.get(node.name)
        seen = self._seen.get(node.name)
        if seen is None or node.spoke_s > seen.spoke_s + old_s or seen.status is not node.status or seen.order != order:
            found = load(self._config, node, self._memory, self._table, order)
            seen = self._seen[node.name] = _Seen(node.spoke_s, node.status, order, found)
        return seen.load

    def _names(self) -> list[str]:
        return self._config.chosen(self._agents.nodes)

    def _is_fresh(self, name: str) -> bool:
        node = self._agents.nodes.get(name)
        return node is not None and self._agents.is_fresh(node)

    def _is_foreign(self, status: Status) -> bool:
        return status.is_held and status.sender != self._agents.sender

    def _touched(self) -> set[str]:
        """Return the nodes that hold, or may hold, an order of ours or of an earlier process of ours."""
        found = set(self._orders.held)
        for name in self._names():
            node = self._agents.nodes.get(name)
            status = node.status if node is not None else None
            if status is not None and status.is_held and self._agents.is_ours(status):
                found.add(name)
        return found

    def _sample(self, view: View) -> Sample:
        planner = self._planner
        tier_shed_w = planner.shed_w(workload(self._config, view, self._targets)) if planner else shed_w(view)
        return Sample(
            power_w=view.power_w,
            available_w=view.demand_w,
            lower_w=view.demand_w - sum(tier_shed_w),
            upper_w=view.demand_w,
            tier_shed_w=tier_shed_w,
            setpoint_w=self._setpoint_w(view),
            fault=some(self._faults(view)),
            shed_first=shed_first(view),
        )

    def _setpoint_w(self, view: View) -> float | None:
        """Return the budget that is kept: ours, with what others have changed; without one, what an earlier process left. [W]"""
        budget_w = self._budget_w if _now_s() < self._until_s else None
        held = {name: load.cap_w for name, load in view.loads.items() if load.cap_w is not None}
        if budget_w is None:
            kept = not self._touched().isdisjoint(held)
            caps_w = [min(load.demand_w, held.get(name, math.inf)) for name, load in view.loads.items()]
            return view.rest_w + sum(caps_w) if kept else None
        lost_w = 0.0
        for name, order in self._orders.held.items():
            if name in view.loads and order.cap_w is not None and name not in self._trouble:
                now_w = held.get(name, view.loads[name].most_w)
                lost_w += max(
                    min(now_w, view.loads[name].demand_w) - max(order.cap_w, view.loads[name].cap_floor_w), 0.0
                )
        return budget_w + (lost_w if lost_w > SLACK_W else 0.0)

    def _faults(self, view: View) -> Mapping[str, str]:
        found = dict.fromkeys(view.silent_w, "silent, counted with all it could draw") | self._trouble
        for name in view.loads:
            node = self._agents.nodes[name]
            status = node.status
            if node.trouble:
                found[name] = node.trouble
            elif (
                status is not None
                and self._is_foreign(status)
                and not (node.is_history and self._agents.is_ours(status))
            ):
                found[name] = f"held by {status.sender}"
        return found

    # ---- acting ------------------------------------------------------------------------------------------------------

    def _wish(self, view: View, budget_w: float) -> dict[str, Wanted]:
        """Return the orders that a budget needs. [W]"""
        if self._planner is None:
            self._targets = share(view, budget_w)
        else:
            now = workload(self._config, view, self._targets)
            self._targets = planned(view, self._planner.plan(now, budget_w, _now_s()))
        return {
            name: wanted(self._config, view.loads[name], target_w, self._table)
            for name, target_w in self._targets.items()
        }

    def _applied(self, budget_w: float, view: View, report: Report) -> Applied:
        """Return the budget when what was acknowledged keeps it, else the power to expect. [W]"""
        power_w = view.rest_w
        for name, node in view.loads.items():
            if name in report.unknown:
                power_w += node.most_w
            elif name in report.done:
                status = report.done[name]
                power_w += expected_w(node, self._orders.held.get(name), status.in_force_w, self._table)
            else:
                power_w += node.demand_w
        slowed = sum(1 for status in report.done.values() if status.is_held)
        partly = {name: "; ".join(s.rejected) for name, s in report.done.items() if s.rejected}
        said = [f"{slowed} of {len(view.loads) + len(view.silent_w)} nodes held", some(partly), some(report.failed)]
        silent = {name: "silent" for name in view.silent_w if name not in report.failed}
        return applied(budget_w, power_w, [*said, some(silent)])

    def _note(self, report: Report) -> None:
        """Remember who did not follow, until he does."""
        for name, status in report.done.items():
            self._trouble.pop(name, None)
            if status.rejected:
                self._trouble[name] = "; ".join(status.rejected)
        self._trouble.update(report.failed)

    async def _tend(self) -> None:
        """Keep a running budget as nodes come, go and change what they draw; it is never renewed here."""
        while True:
            await asyncio.sleep(self._config.sample_s)
            async with self._turn:
                with suppress(DeviceError):  # the next sample says so too
                    await self._round(_now_s())

    async def _round(self, now_s: float) -> None:
        self._orders.forget_ended()
        left_s = self._until_s - now_s
        if self._budget_w is None or left_s <= self._config.ack_timeout_s:
            if left_s <= 0.0:
                self._budget_w, self._targets = None, Targets()
            return
        view = await self._look()
        self._learn(view)
        wish = self._wish(view, self._budget_w)
        due = {
            name: wish.get(name, FREE)
            for name in wish.keys() | self._orders.held.keys()
            if name in view.loads and self._is_due(name, wish.get(name), view)
        }
        self._note(await self._orders.send(due, left_s))

    def _is_due(self, name: str, new: Wanted | None, view: View) -> bool:
        """Say whether a node's order cannot wait for the renewal; whoever else holds it is not fought with."""
        node = self._agents.nodes[name]
        status = node.status
        if status is not None and self._is_foreign(status):
            return False
        has_lost = new is not None and name not in self._trouble and status is not None and not status.is_held
        return has_lost or is_another(self._orders.held.get(name), new, view.loads[name].most_w)

    def _learn(self, view: View) -> None:
        for name, order in self._orders.held.items():
            said = self._agents.nodes[name].telemetry() if name in view.loads else None
            if said is None or not self._orders.is_settled(name, SETTLE_S):
                continue
            for device, (_, top_mhz) in order.clock_mhz.items():
                if device in said.devices:
                    self._memory.learn((name, device), said.devices[device].power_w, top_mhz)


@asynccontextmanager
async def connect(config: GpuAgentsConfig) -> AsyncIterator[GpuAgents]:
    """Listen to the agents. Raises Unreachable, Refused when the broker turns us away, ConfigError."""
    async with agent_caps(config) as agents:
        cluster = GpuAgents(config, agents)
        try:
            yield cluster
        finally:
            await cluster.close()


ADAPTER = Adapter(GpuAgentsConfig, connect)


def _now_s() -> float:
    return asyncio.get_running_loop().time()

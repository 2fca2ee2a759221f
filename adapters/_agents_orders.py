"""Carries orders to many node agents at once and keeps who holds what, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from adapters._agent_caps import AgentCaps
from adapters._agents_wire import Status, Wanted
from vppd.errors import DeviceError, Refused, Unreachable

FREE = Wanted()
"""Everything as it was before us."""


@dataclass(slots=True)
class Report:
    """What came of a round of orders."""

    done: dict[str, Status] = field(default_factory=dict)
    """Acknowledged, by node."""
    refused: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    """Nodes that did not acknowledge: they may follow or not."""

    @property
    def failed(self) -> dict[str, str]:
        """Return what went wrong, by node."""
        return self.unknown | self.refused

    def raise_if_all_failed(self) -> None:
        """Raise Unreachable or Refused when orders were sent and none was taken."""
        if self.failed and not self.done:
            raise (Unreachable if self.unknown else Refused)(some(self.failed))


class Orders:
    """What each node was ordered to hold by this process."""

    def __init__(self, agents: AgentCaps, at_once: int) -> None:
        self.held: dict[str, Wanted] = {}
        """Orders that were sent and have not been taken back; a node that did not answer may hold its."""
        self._agents = agents
        self._gate = asyncio.Semaphore(at_once)
        self._until_s: dict[str, float] = {}
        self._since_s: dict[str, float] = {}

    async def send(self, orders: Mapping[str, Wanted], lease_s: float, over_s: float = 0.0) -> Report:
        """Send orders, all at once or spread ``over_s``, and wait for every acknowledgement. [s]"""
        report, pause_s = Report(), over_s / max(len(orders) - 1, 1)
        async with asyncio.TaskGroup() as group:
            for i, (name, wanted) in enumerate(orders.items()):
                group.create_task(self._send_one(name, wanted, lease_s, i * pause_s, report))
        return report

    def forget_ended(self) -> None:
        """Forget orders whose lease has passed: their nodes have gone back by themselves."""
        for name in [name for name, until_s in self._until_s.items() if _now_s() >= until_s]:
            self._forget(name)

    def is_settled(self, name: str, after_s: float) -> bool:
        """Say whether a node's order has not changed for so long. [s]"""
        return _now_s() - self._since_s.get(name, _now_s()) >= after_s

    async def _send_one(self, name: str, wanted: Wanted, lease_s: float, wait_s: float, report: Report) -> None:
        if wait_s > 0.0:
            await asyncio.sleep(wait_s)
        async with self._gate:
            if wanted != FREE:
                self._until_s[name] = _now_s() + lease_s + 1.0  # the agent counts from when it hears
                if self.held.get(name) != wanted:
                    self.held[name], self._since_s[name] = wanted, _now_s()
            try:
                report.done[name] = await self._agents.order(name, wanted, lease_s)
            except Unreachable as error:
                report.unknown[name] = str(error)
            except DeviceError as error:
                report.refused[name] = str(error)
                self._forget(name)
            else:
                if wanted == FREE:
                    self._forget(name)

    def _forget(self, name: str) -> None:
        for kept in (self.held, self._until_s, self._since_s):
            kept.pop(name, None)


def some(texts: Mapping[str, str], most: int = 3) -> str:
    """Return the first few of many texts in one line."""
    shown = [text if text.startswith(name) else f"{name}: {text}" for name, text in sorted(texts.items())[:most]]
    return "; ".join(shown) + (f"; and {len(texts) - most} more" if len(texts) > most else "")


def _now_s() -> float:
    return asyncio.get_running_loop().time()

"""What people see of the daemon, and the two things they may do to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog

from vppd.api.app import Pulse
from vppd.api.view import orders_view, state_view
from vppd.api.why import why_view
from vppd.consequences import LastDecision
from vppd.core.state import Decision
from vppd.model import Event
from vppd.ports import Ledger
from vppd.register import Register
from vppd.runtime.clock import Clock
from vppd.runtime.curtailer import Curtailer
from vppd.runtime.curtailer_story import chosen_view, measured_view
from vppd.runtime.cycle import Inbox
from vppd.runtime.health import Vitals
from vppd.runtime.metrics import Metrics
from vppd.runtime.told import Told
from vppd.snapshot import Plant

log = structlog.get_logger()


@dataclass(slots=True)
class Panel:
    """Implements the API's ``StateView`` and ``Operator``."""

    plant: Plant
    last: LastDecision
    inbox: Inbox
    vitals: Vitals
    counts: Metrics
    clock: Clock
    ledger: Ledger
    register: Register
    told: Told
    curtailers: Mapping[str, Curtailer]
    _shown: tuple[Decision | None, dict[str, Any]] = field(default=(None, {}))

    def pulse(self) -> Pulse:
        """Return how the daemon is now."""
        last = self.last.snapshot
        age_s = math.inf if last is None else self.clock.mono_s() - last.mono_s
        return Pulse(self.vitals.ready, age_s, self.plant.cycle_s)

    def state(self) -> dict[str, Any] | None:
        """Return the site after the last cycle, None before the first."""
        snapshot, decision = self.last.snapshot, self.last.decision
        if snapshot is None or decision is None:
            return None
        if self._shown[0] is not decision:
            self._shown = (decision, state_view(self.plant, snapshot, decision))
        return self._shown[1]

    def orders(self) -> list[dict[str, Any]]:
        """Return the open orders."""
        decision = self.last.decision
        return orders_view(tuple(self.inbox.orders), decision.state.progress if decision else {})

    def assets(self) -> tuple[str, ...]:
        """Return the names of all assets."""
        return self.plant.asset_ids

    def why(self, asset_id: str) -> dict[str, Any] | None:
        """Return why an asset does what it does, None before the first cycle. Raises KeyError."""
        snapshot, decision = self.last.snapshot, self.last.decision
        if asset_id not in self.plant.asset_ids:
            raise KeyError(asset_id)
        if snapshot is None or decision is None:
            return None
        found = why_view(self.plant.asset_ids.index(asset_id), self.plant, snapshot, decision)
        if (telling := self.told.newest.get(asset_id)) is not None:
            found["told"] = asdict(telling)
        curtailer, at, mono_s = self.curtailers.get(asset_id), self.clock.now(), self.clock.mono_s()
        if curtailer is not None and curtailer.story is not None:
            story = curtailer.story
            found["chosen"] = chosen_view(story, at, mono_s)
            found["measured"] = measured_view(story, curtailer.verification, curtailer.measured_w, at, mono_s)
        return found

    def metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return self.counts.render()

    async def wait_cycle(self) -> None:
        """Return after the next cycle."""
        await self.last.wait_cycle()

    async def release(self, by: str) -> None:
        """Take the plant back from the grid; on disk before it is answered. Raises DeviceError."""
        await self._operate("release", by)

    async def resume(self, by: str) -> None:
        """Hand the plant over again. Raises DeviceError."""
        await self._operate("resume", by)

    async def _operate(self, action: str, by: str) -> None:
        self.vitals.operator_release = action == "release"
        self.inbox.wake.set()
        log.warning("operator", action=action, by=by)
        await self.ledger.append(Event("plant", "operator", self.clock.now(), {"action": action, "by": by}))
        self.register.catch_up()

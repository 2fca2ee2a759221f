"""What follows from a decision: setpoints to actuators, entries in the ledger, news for the dispatcher, a record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import structlog

from vppd.core.aggregate import aggregate, perceive
from vppd.core.envelope import flexibility
from vppd.core.failsafe import Severity
from vppd.core.state import Command, Decision, Phase, Reason, State, Transition
from vppd.grid.envelope import Sender
from vppd.grid.reporter import Reporter
from vppd.grid.vpp_agent import Statement, statement
from vppd.model import Event, OrderKind, Outbound, Setpoint
from vppd.runtime.actuator import Actuator
from vppd.runtime.record import digest, pack
from vppd.snapshot import Plant, Snapshot

KEYFRAME_CYCLES = 600
"""A replay can begin at every so many cycles."""
FLEXIBILITY_S = 900.0
"""Flexibility is told for this long a time. [s]"""
TERMINAL = (Phase.COMPLETED, Phase.ABORTED)

log = structlog.get_logger()


@dataclass(slots=True)
class Consequences:
    """Hands a decision on; nothing in here waits."""

    plant: Plant
    actuators: Mapping[int, Actuator]
    write: Callable[..., None]
    """Puts events into the journal."""
    post: Callable[..., None]
    """Publishes news."""
    record: Callable[[str, float, datetime, bytes], None] | None
    reporter: Reporter | None
    sender: Sender | None
    after: list[Callable[[Snapshot, Decision], None]] = field(default_factory=list)
    """Told last: view, metrics, watchdog."""
    state: State | None = None
    """State before the decision, for keyframes."""
    _cycles: int = 0
    _said: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __call__(self, snapshot: Snapshot, decision: Decision) -> None:
        """Carry out one decision."""
        self._command(decision)
        self._book(snapshot, decision)
        self._report(snapshot, decision)
        self._record(snapshot, decision)
        self._explain(decision)
        for told in self.after:
            told(snapshot, decision)
        self.state = decision.state

    def _command(self, decision: Decision) -> None:
        for i, actuator in self.actuators.items():
            match decision.command[i]:
                case Command.SETPOINT:
                    cause, trace = _cause(i, decision, self.plant)
                    target_w = float(decision.target_w[i])
                    actuator.aim(Setpoint(self.plant.asset_ids[i], target_w, self.plant.lease_s, cause, trace))
                case Command.RELEASE:
                    actuator.let_go()
                case _:
                    actuator.hold_off()

    def _book(self, snapshot: Snapshot, decision: Decision) -> None:
        for moved in decision.transitions:
            log.info(
                "order_" + moved.progress.phase.value,
                order_id=moved.order.order_id,
                resource=moved.order.resource,
                reason=moved.reason,
                traceparent=moved.order.traceparent,
            )
            self.write(_order_state(moved, snapshot.at))
            if moved.progress.phase in TERMINAL and moved.progress.delivery.active_s > 0:
                self._settle(moved, snapshot.at)

    def _settle(self, moved: Transition, at: datetime) -> None:
        """Put the order's statement into the ledger, with the message that is owed for it."""
        account = _statement(moved, at)
        owed: list[dict[str, Any]] = []
        if self.sender is not None:
            message = statement(account, at, self.sender)
            owed = [
                {
                    "topic": message.topic,
                    "payload": message.payload.decode(),
                    "qos": message.qos,
                    "retain": message.retain,
                }
            ]
        body = {
            "statement_id": account.statement_id,
            "order_id": moved.order.order_id,
            "issuer": moved.order.issuer,
            "resource": moved.order.resource,
            "start": account.start.isoformat(),
            "end": account.end.isoformat(),
            "metered_wh": account.metered_wh,
            "baseline_wh": account.baseline_wh,
            "shed_wh": account.shed_wh,
            "added_wh": account.added_wh,
            "compliant_frac": account.compliant_frac,
            "receipts": owed,
        }
        self.write(
            Event("statements", "statement", at, body, key=f"statement/{moved.order.issuer}/{moved.order.order_id}")
        )

    def _report(self, snapshot: Snapshot, decision: Decision) -> None:
        if self.reporter is None:
            return
        for message in self.reporter.report(decision, snapshot, self.plant):
            self.post(message, latest_only=message.topic.endswith("/telemetry"))
        if self.reporter.wants_flexibility(snapshot.mono_s):
            self.post(self._flexibility(snapshot, decision), latest_only=True)

    def _flexibility(self, snapshot: Snapshot, decision: Decision) -> Outbound:
        assert self.reporter is not None
        senses = perceive(snapshot, decision.state, self.plant)
        image = aggregate(snapshot, decision.state, self.plant, senses, decision.severity >= Severity.ISOLATE)
        found = flexibility(snapshot.readings, image, self.plant, FLEXIBILITY_S)
        return self.reporter.flexibility(found, snapshot, self.plant)

    def _record(self, snapshot: Snapshot, decision: Decision) -> None:
        if self.record is None:
            return
        if self._cycles % KEYFRAME_CYCLES == 0 and self.state is not None:
            self.record("plant", snapshot.mono_s, snapshot.at, pack(self.plant))
            self.record("state", snapshot.mono_s, snapshot.at, pack(self.state))
        self.record("cycle", snapshot.mono_s, snapshot.at, pack(snapshot, digest(decision)))
        self._cycles += 1

    def _explain(self, decision: Decision) -> None:
        """Log an asset's failsafe when it changes, not every cycle."""
        for i in self.actuators:
            now = (int(decision.severity[i]), int(decision.cause[i]))
            if self._said.get(i, (0, -1)) != now:
                self._said[i] = now
                log.warning("asset_failsafe", asset=self.plant.asset_ids[i], severity=now[0], row=now[1])


def _cause(i: int, decision: Decision, plant: Plant) -> tuple[str, str]:
    """Return the order behind an asset's setpoint and its trace: the most important one that bears on it."""
    above = _above(int(plant.node[i]), plant)
    bearing = [d for d in decision.demands if d.asset == i or d.node in above]
    if decision.reason[i] == Reason.PLANNED or not bearing:
        return "plan" if decision.reason[i] == Reason.PLANNED else "limits", ""
    first = max(bearing, key=lambda d: d.order.priority).order
    return first.order_id, first.traceparent


def _above(node: int, plant: Plant) -> set[int]:
    found = set()
    while node >= 0:
        found.add(node)
        node = int(plant.parent[node])
    return found


def _order_state(moved: Transition, at: datetime) -> Event:
    progress = moved.progress
    body = {
        "order_id": moved.order.order_id,
        "state": progress.phase.value,
        "reason": moved.reason,
        "since": progress.since.isoformat(),
        "start_w": progress.start_w,
        "baseline_w": progress.baseline_w,
    }
    return Event("orders", "order_state", at, body)


def _statement(moved: Transition, at: datetime) -> Statement:
    order, delivery = moved.order, moved.progress.delivery
    name = str(uuid5(NAMESPACE_URL, f"vppd:statement:{order.issuer}:{order.order_id}"))
    began, adds = order.interval.start, order.kind is OrderKind.INCREASE
    return Statement(
        statement_id=name,
        order=order,
        start=began,
        end=at,
        metered_wh=round(delivery.energy_wh, 3),
        baseline_wh=round(delivery.baseline_wh, 3),
        shed_wh=None if adds else round(max(delivery.reduced_wh, 0.0), 3),
        added_wh=round(max(delivery.added_wh, 0.0), 3) if adds else None,
        compliant_frac=round(delivery.kept_frac, 6),
        complete_frac=min(delivery.active_s / max((at - began).total_seconds(), 1e-9), 1.0),
    )


class LastDecision:
    """The newest snapshot and decision, and a way to wait for the next."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self.decision: Decision | None = None
        self._next = asyncio.Event()

    def take(self, snapshot: Snapshot, decision: Decision) -> None:
        """Remember, and tell those who wait."""
        self.snapshot, self.decision = snapshot, decision
        self._next.set()
        self._next = asyncio.Event()

    async def wait_cycle(self) -> None:
        """Return after the next cycle."""
        await self._next.wait()

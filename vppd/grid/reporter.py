"""A decision as news for the dispatcher: power state, breaches, order status, flexibility, telemetry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np

from vppd.core.envelope import Flexibility as NodeFlexibility
from vppd.core.settle import Delivery
from vppd.core.state import Decision, Phase, Progress
from vppd.grid.breach import BreachRules, Sight, Target, Watch, watch_breach
from vppd.grid.dsx_agent import FeedState, FeedTarget, PowerEvent, ShedHint, breach_alert, power_state
from vppd.grid.envelope import Context, Sender
from vppd.grid.feed_events import FeedTrack, FeedView, is_compliant, track_feed
from vppd.grid.shortfalls import Short, Shortfalls
from vppd.grid.vpp_agent import Flexibility, Measured, OrderState, flexibility, order_status, telemetry
from vppd.model import Order, OrderKind, Outbound
from vppd.snapshot import KINDS, Plant, Snapshot

EARLY_FRAC = 0.1
"""News that is told at intervals may come early by this part of one. [0-1]"""

Quality = Literal["valid", "stale", "missing"]
Hints = Callable[[str], Sequence[tuple[str, float]]]
"""Feed tag -> (node, power [W]) that the infrastructure could throttle, the first to shed first."""


@dataclass(frozen=True, slots=True)
class FeedTerms:
    """What the power state says of a feed whatever happens. [W]"""

    tag: str
    minimum_w: float
    maximum_w: float


@dataclass(frozen=True, slots=True)
class Heard:
    """A DSX Flex command that the next status confirms."""

    feeds: tuple[str, ...]
    context: Context


class Reporter:
    """Remembers what has been told, so that only news and heartbeats go out."""

    def __init__(
        self, sender: Sender, terms: Iterable[FeedTerms], heartbeat_s: float, telemetry_s: float, hints: Hints
    ) -> None:
        self._sender, self._terms, self._hints = sender, tuple(terms), hints
        self._every_s = {"state": heartbeat_s, "telemetry": telemetry_s, "flexibility": heartbeat_s}
        self._due_s = dict.fromkeys(self._every_s, -np.inf)
        self._tracks = {t.tag: FeedTrack() for t in self._terms}
        self._watches = {t.tag: Watch() for t in self._terms}
        self._heard: list[Heard] = []
        self._shortfalls = Shortfalls()

    def heard(self, orders: Sequence[Order]) -> None:
        """Note an accepted DSX Flex command; the next report confirms it with its correlation id."""
        if orders and orders[0].protocol == "dsx_flex":
            context = Context(orders[0].correlation_id, orders[0].traceparent)
            self._heard.append(Heard(tuple(o.resource for o in orders), context))

    def report(self, decision: Decision, snapshot: Snapshot, plant: Plant) -> list[Outbound]:
        """Return what is to be published after this cycle, in order."""
        closed = {
            t.order.order_id for t in decision.transitions if t.progress.phase in (Phase.COMPLETED, Phase.ABORTED)
        }
        orders = [o for o in snapshot.orders if o.order_id not in closed and o.kind is OrderKind.LIMIT]
        told = [self._status(t.order, t.progress, t.reason, None, snapshot.at) for t in decision.transitions]
        told += [self._short(short, decision, snapshot) for short in self._shortfalls.news(decision, snapshot)]
        told += self._power_states(decision, snapshot, plant, orders)
        told += self._breaches(decision, snapshot, plant, orders)
        if self._is_due("telemetry", snapshot.mono_s):
            told.append(self._telemetry(decision, snapshot, plant))
        return told

    def wants_flexibility(self, mono_s: float) -> bool:
        """Say whether flexibility is to be told now; asking it counts as telling."""
        return self._is_due("flexibility", mono_s)

    def flexibility(self, found: NodeFlexibility, snapshot: Snapshot, plant: Plant) -> Outbound:
        """Return how low and how high the site and each feed could go, and for how long."""
        entries = [
            Flexibility(
                name,
                float(found.power_w[i]),
                float(found.lower_w[i]),
                float(found.upper_w[i]),
                plant.ramp_down_w_per_s,
                plant.ramp_up_w_per_s,
                found.sustain_s,
                found.sustain_s,
            )
            for i, name in enumerate(plant.nodes)
        ]
        return flexibility(entries, snapshot.at, self._sender)

    def _is_due(self, what: str, mono_s: float) -> bool:
        """Say whether it is time; a cycle that comes a little early counts, so that jitter never costs a whole cycle."""
        every_s, due_s = self._every_s[what], self._due_s[what]
        if mono_s < due_s - EARLY_FRAC * every_s:
            return False
        in_step = mono_s < due_s + every_s
        self._due_s[what] = (due_s if in_step else mono_s) + every_s
        return True

    def _status(self, order: Order, progress: Progress, detail: str, short_w: float | None, at: datetime) -> Outbound:
        hours = progress.delivery.active_s / 3600.0
        delivered_w = _flowed_wh(order, progress.delivery) / hours if hours > 0 else None
        return order_status(OrderState(order, progress.phase.value, detail, delivered_w, short_w), at, self._sender)

    def _short(self, short: Short, decision: Decision, snapshot: Snapshot) -> Outbound:
        detail = "less than ordered can be delivered" if short.missing_w else "can be delivered again as ordered"
        progress = decision.state.progress[short.order.order_id]
        return self._status(short.order, progress, detail, short.missing_w, snapshot.at)

    def _power_states(
        self, decision: Decision, snapshot: Snapshot, plant: Plant, orders: Sequence[Order]
    ) -> list[Outbound]:
        views = {t.tag: _view(t.tag, decision, snapshot, plant, orders) for t in self._terms}
        happened: dict[PowerEvent, set[str]] = {}
        for tag, view in views.items():
            self._tracks[tag], events = track_feed(self._tracks[tag], view)
            for event in events:
                happened.setdefault(event, set()).add(tag)
        happened.pop(PowerEvent.TARGET_SET, None)  # confirmed for each command, below, also when it changed nothing

        def state(event: PowerEvent, tags: Iterable[str], context: Context | None = None) -> Outbound:
            feeds = [
                self._feed(
                    t, views[t.tag], decision, snapshot, plant, orders, event if t.tag in tags else PowerEvent.PERIODIC
                )
                for t in self._terms
            ]
            return power_state(feeds, snapshot.at, self._sender, context)

        told = [state(PowerEvent.TARGET_SET, heard.feeds, heard.context) for heard in self._heard]
        self._heard.clear()
        told += [state(event, tags) for event, tags in happened.items()]
        if told:
            self._due_s["state"] = snapshot.mono_s + self._every_s["state"]
        elif self._is_due("state", snapshot.mono_s):
            told.append(state(PowerEvent.PERIODIC, ()))
        return told

    def _feed(
        self,
        terms: FeedTerms,
        view: FeedView,
        decision: Decision,
        snapshot: Snapshot,
        plant: Plant,
        orders: Sequence[Order],
        event: PowerEvent,
    ) -> FeedState:
        node, track = plant.nodes.index(terms.tag), self._tracks[terms.tag]
        bound = _is_bound(node, decision)
        load_w = float(decision.node_planned_w[node] if bound else decision.node_power_w[node])
        targets = tuple(_target(o, decision.state.progress.get(o.order_id)) for o in orders if o.resource == terms.tag)
        judged = FeedView(view.targets, view.limit_w, load_w, view.moving, view.at)
        return FeedState(
            terms.tag,
            terms.minimum_w,
            terms.maximum_w,
            terms.maximum_w,
            targets,
            load_w,
            track.in_flight,
            event,
            is_compliant(judged, 1e-6),
            track.event_start,
        )

    def _breaches(
        self, decision: Decision, snapshot: Snapshot, plant: Plant, orders: Sequence[Order]
    ) -> list[Outbound]:
        told: list[Outbound] = []
        for terms in self._terms:
            sight = _sight(terms.tag, decision, snapshot, plant, orders)
            self._watches[terms.tag], alerts = watch_breach(
                self._watches[terms.tag], sight, BreachRules(), self._sender.ids.uuid
            )
            hints = self._shed_hints(terms.tag) if alerts else ()
            told += [breach_alert(alert, hints, snapshot.at, self._sender) for alert in alerts]
        return told

    def _shed_hints(self, tag: str) -> tuple[ShedHint, ...]:
        return tuple(
            ShedHint(name, "node", "power_cap", i, power_w * 0.5)
            for i, (name, power_w) in enumerate(self._hints(tag), 1)
        )

    def _telemetry(self, decision: Decision, snapshot: Snapshot, plant: Plant) -> Outbound:
        r = snapshot.readings

        def node(i: int) -> Measured:
            upper_w = float(decision.node_upper_w[i])
            meter = int(plant.meter[i])
            stale = meter >= 0 and snapshot.mono_s - r.mono_s[meter] > plant.stale_after_s[meter]
            return Measured(
                plant.nodes[i],
                float(decision.node_power_w[i]),
                "stale" if stale else "valid",
                limit_w=upper_w if np.isfinite(upper_w) else None,
            )

        assets = [_asset(i, decision, snapshot, plant) for i in range(len(plant.asset_ids))]
        return telemetry(node(0), [node(i) for i in range(1, len(plant.nodes))], assets, snapshot.at, self._sender)


def _flowed_wh(order: Order, delivery: Delivery) -> float:
    """Return what the order has moved off its baseline the way it asked, of others the energy that flowed. [Wh]"""
    match order.kind:
        case OrderKind.REDUCE:
            return delivery.reduced_wh
        case OrderKind.INCREASE:
            return max(delivery.added_wh, 0.0)
        case _:
            return delivery.energy_wh


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _asset(i: int, decision: Decision, snapshot: Snapshot, plant: Plant) -> Measured:
    r, age_s = snapshot.readings, snapshot.mono_s - snapshot.readings.mono_s[i]
    quality: Quality = "missing" if not np.isfinite(age_s) else "stale" if age_s > plant.stale_after_s[i] else "valid"
    return Measured(
        plant.asset_ids[i],
        _known(r.power_w[i]),
        quality,
        kind=KINDS[plant.kind[i]].value,
        setpoint_w=_known(decision.target_w[i]),
        soc_frac=_known(r.soc_frac[i]),
        age_s=_known(age_s),
    )


def _target(order: Order, progress: Progress | None) -> FeedTarget:
    active = progress is not None and progress.phase is Phase.ACTIVE
    return FeedTarget(
        active, order.power_w or 0.0, order.interval, order.best_effort, order.correlation_id or order.order_id
    )


def _in_force(tag: str, orders: Sequence[Order], progress: Mapping[str, Progress]) -> Order | None:
    """Return the tightest limit that is active on the feed."""
    active = [
        o for o in orders if o.resource == tag and o.order_id in progress and progress[o.order_id].phase is Phase.ACTIVE
    ]
    return min(active, key=lambda o: o.power_w or 0.0, default=None)


def _is_bound(node: int, decision: Decision) -> bool:
    """Say whether the node is held from above or from below, or still being given back."""
    return bool(np.isfinite(decision.node_upper_w[node]) or np.isfinite(decision.state.lower_w[node]))


def _view(tag: str, decision: Decision, snapshot: Snapshot, plant: Plant, orders: Sequence[Order]) -> FeedView:
    node = plant.nodes.index(tag)
    tightest = _in_force(tag, orders, decision.state.progress)
    return FeedView(
        targets=tuple(o.order_id for o in orders if o.resource == tag),
        limit_w=tightest.power_w if tightest else None,
        load_w=_known(decision.node_power_w[node]),
        moving=_is_bound(node, decision) and tightest is None,
        at=snapshot.at,
    )


def _sight(tag: str, decision: Decision, snapshot: Snapshot, plant: Plant, orders: Sequence[Order]) -> Sight:
    node = plant.nodes.index(tag)
    tightest = _in_force(tag, orders, decision.state.progress)
    target = None
    if tightest is not None:
        limit_w = tightest.power_w or 0.0
        ramping = decision.node_upper_w[node] > limit_w
        due_s = snapshot.mono_s + plant.cycle_s if ramping else -np.inf
        target = Target(tightest.correlation_id or tightest.order_id, limit_w, due_s)
    return Sight(tag, target, _known(decision.node_power_w[node]), snapshot.at, snapshot.mono_s)

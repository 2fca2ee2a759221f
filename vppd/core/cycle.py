"""``decide``: the pure heart. One snapshot in, one decision out; the steps in order and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vppd.core import safety
from vppd.core.aggregate import Image, Senses, aggregate, is_storage, perceive
from vppd.core.dispatch import Dispatch, dispatch, horizon, overloaded
from vppd.core.economics import Preference, preference
from vppd.core.enforce import Enforced, enforce
from vppd.core.envelope import Envelope, barred, envelope
from vppd.core.failsafe import (
    FOLLOWS_WITHIN_FRAC,
    FOLLOWS_WITHIN_S,
    SOC_MARGIN_FRAC,
    SOC_WARN_FRAC,
    Severity,
    asset_conditions,
    judge,
    judge_site,
)
from vppd.core.merit import resting
from vppd.core.named import Named, named, narrowed
from vppd.core.obligations import Obligations, bound_in_force, obligations
from vppd.core.promised import promised_wh, spared
from vppd.core.settle import accrue
from vppd.core.state import Codes, Command, Decision, Demand, Progress, Reason, State
from vppd.model import OrderKind
from vppd.snapshot import Bools, Floats, Ints, Plant, Snapshot

LONGEST_STEP_S = 5.0
"""After a pause longer than this, ramps go on as if it had been this long: no jump. [s]"""


@dataclass(frozen=True, slots=True, eq=False)
class _Verdict:
    """Failsafe findings of this cycle."""

    severity: Ints
    cause: Ints
    tripped_s: Floats
    off_since_s: Floats
    site: Severity
    site_causes: tuple[str, ...]

    @property
    def calls_off(self) -> bool:
        """Say whether the failsafe or the operator ends all orders."""
        return self.site in (Severity.RELEASE, Severity.LOCKOUT)

    @property
    def excluded(self) -> Bools:
        return np.asarray(self.severity >= Severity.ISOLATE)

    @property
    def no_discharge(self) -> Bools:
        return np.asarray((self.severity >= Severity.PROTECT) | (self.site >= Severity.PROTECT))


def decide(snapshot: Snapshot, state: State, plant: Plant) -> Decision:
    """Return the setpoints of this cycle and the state for the next; same input, same output, bit for bit."""
    dt_s = _step_s(snapshot, state, plant)
    senses = perceive(snapshot, state, plant)
    verdict = _judge(snapshot, state, plant, senses)
    image = aggregate(snapshot, state, plant, senses, verdict.excluded)
    orders = obligations(snapshot, state, plant, image, released=verdict.calls_off)
    enforced = enforce(orders.demands, state, plant, image, dt_s)
    over = overloaded(image, plant, resting(image, plant, enforced.tight))
    bound, rest_w, held_w = enforced.bound | over, resting(image, plant, enforced.tight | over), None
    now, sustained = _envelopes(snapshot, image, plant, verdict, orders.demands)
    rest_w = spared(rest_w, snapshot, image, plant)
    wish_w = None if verdict.calls_off or not snapshot.health.clock_ok else snapshot.preferred_w
    liked = preference(wish_w, rest_w, state, image, plant, bound, enforced.raised, now, sustained, dt_s)
    if liked is not None:
        rest_w, held_w = liked.rest_w, liked.held_w
    own = named(orders.demands, state, plant, image, dt_s)
    split = dispatch(snapshot.readings, image, plant, state, enforced, now, sustained, rest_w, own, dt_s, held_w)
    target_w = safety.ramp(split.target_w, state, image, plant, dt_s)
    target_w = safety.clamp(target_w, image, plant, verdict.severity)
    held = bound[plant.node] | own.held | (liked.planned if liked is not None else False)
    command = _command(target_w, rest_w, held, image, plant, verdict)
    target_w = np.where(command == Command.SETPOINT, target_w, np.nan)
    progress = _accrue(orders, enforced, own, image, _counted_s(snapshot, state, plant))
    return Decision(
        state=_next(snapshot, senses, image, enforced, own, target_w, verdict, progress, state, liked),
        command=command,
        target_w=target_w,
        reason=_reason(split, rest_w, enforced, own, plant, verdict, liked),
        severity=verdict.severity.astype(np.int8),
        cause=verdict.cause.astype(np.int8),
        site_severity=int(verdict.site),
        site_causes=verdict.site_causes,
        node_power_w=image.node_power_w,
        node_wanted_upper_w=enforced.wanted_upper_w,
        node_upper_w=enforced.upper_w,
        node_planned_w=split.node_planned_w,
        shortfall_w=split.shortfall_w,
        demands=orders.demands,
        transitions=orders.transitions,
    )


def _step_s(snapshot: Snapshot, state: State, plant: Plant) -> float:
    """Return how much time ramps may take up: since the last cycle, within reason. [s]"""
    if not np.isfinite(state.mono_s):
        return plant.cycle_s
    return min(max(snapshot.mono_s - state.mono_s, 0.0), LONGEST_STEP_S)


def _counted_s(snapshot: Snapshot, state: State, plant: Plant) -> float:
    """Return how much time this cycle's readings stand for in accounts: all of it at a long beat, not that of a pause. [s]"""
    if not np.isfinite(state.mono_s):
        return plant.cycle_s
    return min(max(snapshot.mono_s - state.mono_s, 0.0), max(LONGEST_STEP_S, plant.cycle_s))


def _judge(snapshot: Snapshot, state: State, plant: Plant, senses: Senses) -> _Verdict:
    r, storage = snapshot.readings, is_storage(plant) & plant.controllable
    off_since_s = _off_since(snapshot, state, plant, senses)
    act_frac = plant.reserve_frac + SOC_MARGIN_FRAC
    facts = {
        "soc_warn": storage & (senses.soc_frac <= act_frac + SOC_WARN_FRAC),
        "soc_act": storage & (senses.soc_frac <= act_frac),
        "soc_stale": storage & senses.soc_stale,
        "on_battery": safety.frozen(r.on_battery, plant),
        "silent": plant.controllable & ~senses.fresh,
        "rejected": r.rejected,
        "not_following": snapshot.mono_s - off_since_s >= FOLLOWS_WITHIN_S,
        "faulty": r.faulty & plant.controllable,
    }
    severity, cause, tripped_s = judge(asset_conditions(facts), state.tripped_s, snapshot.mono_s)
    site, causes = judge_site(snapshot.health, _is_meter_stale(senses, plant), plant.cycle_s)
    return _Verdict(severity, cause, tripped_s, off_since_s, site, causes)


def _off_since(snapshot: Snapshot, state: State, plant: Plant, senses: Senses) -> Floats:
    """Return since when the power of each storage has been far from its setpoint, inf while it follows. [s]"""
    away_w = np.abs(senses.power_w - state.target_w)
    rating_w = np.maximum(plant.rated_upper_w, -plant.rated_lower_w)
    off = is_storage(plant) & (away_w > FOLLOWS_WITHIN_FRAC * rating_w)
    return np.where(off, np.minimum(state.off_since_s, snapshot.mono_s), np.inf)


def _is_meter_stale(senses: Senses, plant: Plant) -> bool:
    return bool(np.isnan(senses.power_w[plant.meter[plant.meter >= 0]]).any())


def _envelopes(
    snapshot: Snapshot, image: Image, plant: Plant, verdict: _Verdict, demands: Sequence[Demand]
) -> tuple[Envelope, Envelope]:
    """Return what every asset can do for one lease, and what it can hold until the orders end. [W]"""
    kept_wh = promised_wh(snapshot, image, plant, demands)
    both = ((plant.lease_s, None), (horizon(demands, snapshot.at.timestamp()), kept_wh if kept_wh.any() else None))
    now, sustained = (
        barred(narrowed(envelope(snapshot.readings, image, plant, s, wh), demands), verdict.no_discharge, ~image.usable)
        for s, wh in both
    )
    return now, sustained


def _command(target_w: Floats, rest_w: Floats, held: Bools, image: Image, plant: Plant, verdict: _Verdict) -> Codes:
    """Return what is done to each asset: nothing, a setpoint, or giving it back to itself; ``held`` by an obligation."""
    silent = not image.usable.any() or verdict.site in (Severity.PROTECT, Severity.LOCKOUT)
    if silent:
        return np.full(len(target_w), Command.NONE, dtype=np.int8)
    generates = image.available_w < 0
    needless = np.where(generates, target_w <= image.available_w, (np.abs(rest_w) <= 0) & ~held)
    return np.where(image.usable, np.where(needless, Command.RELEASE, Command.SETPOINT), Command.NONE).astype(np.int8)


def _reason(
    split: Dispatch,
    rest_w: Floats,
    enforced: Enforced,
    own: Named,
    plant: Plant,
    verdict: _Verdict,
    liked: Preference | None,
) -> Codes:
    """Return one Reason code per asset; later lines are stronger."""
    bound = enforced.bound[plant.node]
    reason = np.where(bound, Reason.ORDER, Reason.FREE)
    reason = np.where(
        bound & np.isinf(enforced.wanted_upper_w)[plant.node] & np.isinf(enforced.wanted_upper_w[0]),
        Reason.HANDED_BACK,
        reason,
    )
    bridging = (
        bound & plant.fast & (np.abs(split.target_w - split.steady_w) > 0.01 * np.maximum(plant.rated_upper_w, 1.0))
    )
    reason = np.where(bridging & is_storage(plant), Reason.BRIDGE, reason)
    reason = np.where(split.kept & bound, Reason.HELD_STEADY, reason)
    reason = np.where(~bound & (rest_w > 0), Reason.RECHARGE, reason)
    if liked is not None:
        reason = np.where(~bound & liked.planned, Reason.PLANNED, reason)
    reason = np.where(own.held, np.where(own.ordered, Reason.ORDER, Reason.HANDED_BACK), reason)
    reason = np.where(verdict.severity == Severity.PROTECT, Reason.PROTECTED, reason)
    reason = np.where(verdict.excluded, Reason.ISOLATED, reason)
    if verdict.site is Severity.PROTECT:
        reason = np.full(len(reason), Reason.NOT_READY)
    return np.where(plant.controllable, reason, Reason.WATCHED).astype(np.int8)


def _accrue(orders: Obligations, enforced: Enforced, own: Named, image: Image, dt_s: float) -> Mapping[str, Progress]:
    """Return the orders' progress with this cycle's delivery booked, each against what is left by those beside it."""
    booked = dict(orders.progress)
    for d in orders.demands:
        power_w = float(image.node_power_w[d.node] if d.asset < 0 else np.nan_to_num(image.power_w[d.asset]))
        known = booked[d.order.order_id]
        baseline_w = known.baseline_w - orders.beside_w.get(d.order.order_id, 0.0)
        bound_w = bound_in_force(d, baseline_w)
        over_w = _over_w(d, power_w, bound_w, enforced, own)
        booked[d.order.order_id] = replace(
            known, delivery=accrue(known.delivery, power_w, bound_w, baseline_w, over_w, dt_s)
        )
    return booked


def _over_w(demand: Demand, power_w: float, bound_w: float, enforced: Enforced, own: Named) -> float:
    """Return how far power is on the wrong side of what was ordered, as far as ramps have got. [W]"""
    kind, node, asset = demand.order.kind, demand.node, demand.asset
    if kind is OrderKind.INCREASE:
        # What a limit takes away from it is missing: only the ramp excuses, for as long as it takes.
        ramped_w = -np.inf if own.lower_w is None else float(own.lower_w[asset])
        if asset < 0:
            ramped_w = float(enforced.lower_w[node]) if enforced.rising[node] else bound_w
        return min(bound_w, ramped_w) - power_w
    ramped_w = float(enforced.upper_w[node]) if asset < 0 else bound_w
    if kind in (OrderKind.SETPOINT, OrderKind.REGULATION):
        return abs(power_w - ramped_w)
    return power_w - max(bound_w, ramped_w)


def _next(
    snapshot: Snapshot,
    senses: Senses,
    image: Image,
    enforced: Enforced,
    own: Named,
    target_w: Floats,
    verdict: _Verdict,
    progress: Mapping[str, Progress],
    before: State,
    liked: Preference | None,
) -> State:
    return State(
        mono_s=snapshot.mono_s,
        progress=progress,
        target_w=target_w,
        power_w=np.where(np.isfinite(senses.power_w), senses.power_w, before.power_w),
        counted=image.usable,
        soc_frac=senses.soc_good_frac,
        soc_mono_s=senses.soc_mono_s,
        base_w=image.measured_base_w,
        lower_w=enforced.lower_w,
        upper_w=enforced.upper_w,
        tripped_s=verdict.tripped_s,
        off_since_s=verdict.off_since_s,
        wished_w=None if liked is None else liked.wished_w,
        recent=image.recent,
        named_lower_w=own.lower_w,
        unheld_before_w=image.unheld_before_w,
    )

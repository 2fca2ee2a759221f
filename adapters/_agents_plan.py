"""From a budget to what each node is to hold: by tier, or as a planner says. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from adapters._agents_clock import ClockTable
from adapters._agents_config import GpuAgentsConfig
from adapters._agents_load import Load, View
from adapters._agents_wire import Wanted
from vppd.model import TIERS
from vppd.workload import Curtailment, Job, Knob, Workload

_TOLERATED_FRAC = (0.0, 0.10, 0.25, 0.50)
"""Slow-down by tier. [0-1]"""
_SLOW_A, _SLOW_B = 0.958, 1.358
"""Throughput at the part p of full power is 1 - A (1 - p)^B, for the class of work that suffers most."""
SAME_FRAC = 0.02
"""A cap that changes by less than this part of what the node may draw waits for the next renewal."""
TINY_W = 0.5
"""Less than this over a budget is nothing: no further tier is asked for it. [W]"""
Targets = dict[str, float]
"""Power each node's devices are to keep within, by node; those that are not named are free. [W]"""


def share(view: View, budget_w: float) -> Targets:
    """Return the nodes' targets without a planner: tier 3 first, nodes of one tier equally deep, none below its tier. [W]"""
    excess_w, targets = view.demand_w - budget_w, Targets()
    for tier in range(TIERS - 1, 0, -1):
        if excess_w <= TINY_W:
            break
        loads = [load for load in view.loads.values() if load.tier == tier]
        room_w = sum(load.demand_w - _lowest_w(load) for load in loads)
        depth_frac = min(1.0, excess_w / room_w) if room_w > 0.0 else 1.0
        for load in loads:
            targets[load.name] = _target_w(load, depth_frac)
        excess_w -= room_w * depth_frac
    return targets


def planned(view: View, wish: Curtailment) -> Targets:
    """Return the nodes' targets as a planner chose them. [W]"""
    return {
        name: max(level_frac * view.loads[name].demand_w, view.loads[name].deepest_w)
        for name, level_frac in wish.level_frac.items()
        if name in view.loads and level_frac < 1.0
    }


def workload(config: GpuAgentsConfig, view: View, targets: Mapping[str, float]) -> Workload:
    """Return the nodes as jobs, one each, for a planner; those that can give nothing are rest."""
    knob = Knob.CAP if config.knob == "cap" else Knob.CLOCK
    jobs = tuple(
        Job(
            id=load.name,
            tier=load.tier,
            full_w=load.demand_w,
            gpus=float(max(len(load.gpus), 1)),
            family=load.family,
            knob=knob,
            floor_frac=load.deepest_w / load.demand_w,
            level_frac=min(1.0, targets[load.name] / load.demand_w) if load.name in targets else 1.0,
            power_w=load.power_w,
        )
        for load in view.loads.values()
        if load.tier and load.deepest_w < load.demand_w
    )
    return Workload(jobs, view.demand_w - sum(job.full_w for job in jobs), view.power_w)


def shed_w(view: View) -> tuple[float, ...]:
    """Return what could be shed without a planner, by tier 0-3. [W, >= 0]"""
    found_w = [0.0] * TIERS
    for load in view.loads.values():
        found_w[load.tier] += max(load.demand_w - _lowest_w(load), 0.0) if load.tier else 0.0
    return tuple(found_w)


def shed_first(view: View, most: int = 16) -> tuple[tuple[str, float], ...]:
    """Return nodes with what they draw, those with the most tolerant work first. [W]"""
    loads = sorted((x for x in view.loads.values() if x.tier), key=lambda x: (-x.tier, -x.power_w, x.name))
    return tuple((load.name, load.power_w + load.rest_w) for load in loads[:most])


def wanted(config: GpuAgentsConfig, load: Load, target_w: float, table: ClockTable) -> Wanted:
    """Return the order that keeps a node's devices within a target. [W]"""
    cap_w = None if config.knob == "clock" else max(math.floor(target_w), load.cap_floor_w)
    if config.knob == "cap" or not load.gpus:
        return Wanted(cap_w)
    part = min(target_w / load.demand_w, 1.0) if load.demand_w > 0.0 else 1.0
    top_mhz = max(table.clock_mhz(part), config.clock_floor_mhz)
    if top_mhz >= table.highest_mhz:
        return Wanted(cap_w)
    return Wanted(cap_w, dict.fromkeys(load.gpus, (min(config.clock_min_mhz, top_mhz), top_mhz)))


def is_another(old: Wanted | None, new: Wanted | None, most_w: float) -> bool:
    """Say whether an order differs so much that it cannot wait for the next renewal."""
    if old is None or new is None or (old.cap_w is None) is not (new.cap_w is None):
        return old is not new
    if old.cap_w is not None and new.cap_w is not None and abs(old.cap_w - new.cap_w) > SAME_FRAC * most_w:
        return True
    tops = {name: span[1] for name, span in old.clock_mhz.items()}
    return tops.keys() != new.clock_mhz.keys() or any(
        abs(tops[name] - span[1]) > SAME_FRAC * span[1] for name, span in new.clock_mhz.items()
    )


def expected_w(load: Load, order: Wanted | None, cap_w: float | None, table: ClockTable) -> float:
    """Return what a node's devices will draw under an order whose cap came out as ``cap_w``. [W]"""
    draws_w = load.demand_w
    if order is not None and order.clock_mhz:
        top_mhz = max(top for _, top in order.clock_mhz.values())
        draws_w *= table.power_frac(top_mhz)
    return draws_w if cap_w is None else min(draws_w, cap_w)


def _target_w(load: Load, depth_frac: float) -> float:
    """Return a node's target; one with little to do may grow as far as the others are allowed. [W]"""
    lowest_w = _lowest_w(load)
    if lowest_w >= load.demand_w:
        low_w = min(load.cap_floor_w, load.most_w)
        return max(low_w + (1.0 - depth_frac) * (load.most_w - low_w), load.demand_w)
    return load.demand_w - depth_frac * (load.demand_w - lowest_w)


def _lowest_w(load: Load) -> float:
    """Return the least power at which a node's work keeps the promise of its tier. [W]"""
    promised_frac = 1.0 - math.pow(_TOLERATED_FRAC[load.tier] / _SLOW_A, 1.0 / _SLOW_B)
    return min(max(load.deepest_w, promised_frac * load.demand_w), load.demand_w)

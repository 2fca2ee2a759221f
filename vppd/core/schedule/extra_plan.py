"""What a plan costs beyond energy and wear, and by how much it breaks what is asked for beyond energy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vppd.core.schedule.extra import Extras, Feed, Green, Reserve
from vppd.core.schedule.problem import Problem
from vppd.snapshot import Floats

FURTHER = ("demand_charge", "delay", "curtailed_load", "reserve_shortfall", "green_shortfall")
"""What may cost something beyond energy, wear and carbon."""


@dataclass(frozen=True, slots=True)
class Powers:
    """What a plan does, shapes (step) and (asset, step). [W, Wh]"""

    import_w: Floats
    battery_w: Floats
    energy_wh: Floats
    renewable_w: Floats
    load_w: Floats


def further_costs(problem: Problem, extras: Extras, plan: Powers, held_w: Floats) -> dict[str, float]:
    """Return what the plan costs beyond energy (with its carbon) and wear, by cause, in the currency of the prices."""
    found = dict.fromkeys(FURTHER, 0.0)
    if extras.demand is not None:
        above_w = float(plan.import_w.max()) - extras.demand.billed_peak_w
        found["demand_charge"] = extras.demand.cost_per_w * max(above_w, 0.0)
    terms, step_h = extras.terms, problem.step_h
    late_h = np.maximum(np.arange(problem.steps) - problem.loads.first_step[:, None], 0) * step_h
    found["delay"] = float((terms.delay_cost_per_wh_h[:, None] * late_h * plan.load_w).sum() * step_h)
    found["curtailed_load"] = float(np.dot(terms.curtail_cost_per_wh, unserved_wh(problem, extras, plan.load_w)))
    short_wh = reserve_short_w(extras, held_w).sum(axis=1) * step_h
    for reserve, missing_wh in zip(extras.reserves, short_wh, strict=True):
        found["reserve_shortfall"] += (reserve.shortfall_cost_per_wh or 0.0) * float(missing_wh)
    green = extras.green
    if green is not None and green.shortfall_cost_per_wh is not None:
        missed_wh = sum(max(0.0, missing_wh) for _, missing_wh, _ in green_missing(problem, green, plan))
        found["green_shortfall"] = green.shortfall_cost_per_wh * missed_wh
    return found


def reserve_short_w(extras: Extras, held_w: Floats) -> Floats:
    """Return by how much less than asked is held of each reserve at each step, shape (reserve, step). [W]"""
    given_w = held_w.sum(axis=1)
    asked_w = np.array([reserve.power_w for reserve in extras.reserves]).reshape(given_w.shape)
    return np.asarray(np.maximum(asked_w - given_w, 0.0))


def carbon_g(problem: Problem, extras: Extras, import_w: Floats) -> float:
    """Return the CO2 in what the plan buys; 0 where nothing is known of it. [g]"""
    if extras.carbon is None:
        return 0.0
    return float(np.dot(extras.carbon.intensity_g_per_wh, np.maximum(import_w, 0.0))) * problem.step_h


def unserved_wh(problem: Problem, extras: Extras, load_w: Floats) -> Floats:
    """Return what each load with a soft need never gets, 0 for the others. [Wh]"""
    missing_wh = problem.loads.energy_wh - load_w.sum(axis=1) * problem.step_h
    return np.where(extras.terms.soft, np.maximum(missing_wh, 0.0), 0.0)


def green_missing(problem: Problem, green: Green, plan: Powers) -> Iterator[tuple[str, float, float]]:
    """Yield each rule in each window: its name, by how much it is missed (below 0: kept), and its size. [Wh]"""
    available_w = problem.renewables.available_w.sum(axis=0)
    used_w = plan.renewable_w.sum(axis=0) - np.maximum(-plan.import_w, 0.0)
    total_w = green.counted_w(problem.inflexible_load_w) + plan.load_w.sum(axis=0)
    covered_w = used_w + green.matched_w(plan.import_w)
    for key, frac in green.rules():
        of_w, by_w = (total_w, covered_w) if key == "share_of_load_frac" else (available_w, used_w)
        for window in green.windows(problem.steps):
            missing_wh = float((frac * of_w - by_w)[window].sum()) * problem.step_h
            missing_wh += green.before.missing_wh(key, frac) if not window.start else 0.0
            size_wh = (float(np.abs(of_w[window]).sum()) + float(available_w[window].sum())) * problem.step_h
            yield key, missing_wh, size_wh


def further_excess_frac(problem: Problem, extras: Extras, plan: Powers, held_w: Floats, site_w: float) -> float:
    """Return by how much the plan breaks what it breaks most of ``extras``, as part of the site's size. [0-1]"""
    worst = [0.0]
    worst += [over_w / site_w for over_w in _over_feeds(problem, extras, plan, held_w)]
    worst += [below_w / site_w for below_w in _below_rebound(problem, extras, plan.load_w)]
    if extras.reserves:
        worst += [over_w / site_w for over_w in _over_headroom(problem, extras, plan, held_w)]
        worst += list(_over_energy(problem, extras, plan, held_w))
    if extras.green is not None and extras.green.shortfall_cost_per_wh is None:
        worst += [by_wh / max(size_wh, 1.0) for _, by_wh, size_wh in green_missing(problem, extras.green, plan)]
    return max(worst)


def feed_w(feed: Feed, plan: Powers) -> Floats:
    """Return what a feed draws at each step. [W]"""
    drawn_w = plan.battery_w[feed.batteries].sum(axis=0) + plan.load_w[feed.loads].sum(axis=0)
    return np.asarray(feed.inflexible_w + drawn_w - plan.renewable_w[feed.renewables].sum(axis=0))


def _over_feeds(problem: Problem, extras: Extras, plan: Powers, held_w: Floats) -> Iterator[float]:
    up = np.array([reserve.up for reserve in extras.reserves], dtype=np.bool_)
    for feed in extras.feeds:
        able = np.concatenate((feed.batteries, feed.loads))
        more_w, less_w = (held_w[which][:, able].sum(axis=(0, 1)) for which in (~up, up))
        net_w = feed_w(feed, plan)
        yield float((net_w + more_w - feed.import_max_w).max())
        yield float((less_w - net_w - feed.export_max_w).max())


def _below_rebound(problem: Problem, extras: Extras, load_w: Floats) -> Iterator[float]:
    loads, terms = problem.loads, extras.terms
    for k in np.flatnonzero(terms.rebound_frac > 0.0):
        first, last, over = int(loads.first_step[k]), int(loads.last_step[k]), int(terms.rebound_steps[k])
        back = float(terms.rebound_frac[k]) / over
        held_back_w = loads.max_w[k] - load_w[k]
        for step in range(first + 1, last + 1):
            comes_w = back * float(held_back_w[max(first, step - over) : step].sum())
            yield float(loads.min_w[k]) + comes_w - float(load_w[k, step])


def _over_headroom(problem: Problem, extras: Extras, plan: Powers, held_w: Floats) -> Iterator[float]:
    least_w, most_w = _range_w(problem)
    now_w = np.vstack((plan.battery_w, plan.load_w))
    for reserve, given_w in zip(extras.reserves, held_w, strict=True):
        able = np.concatenate((reserve.batteries, reserve.loads))
        if reserve.shortfall_cost_per_wh is None:
            yield float((reserve.power_w - given_w[able].sum(axis=0)).max())
        yield float(given_w[~able].sum())
    up = _of(extras.reserves, held_w, up=True)
    down = _of(extras.reserves, held_w, up=False)
    held = up > 0.0
    if len(now_w):
        yield float(np.where(held, up - (now_w - least_w), 0.0).max())
        yield float(np.where(down > 0.0, down - (most_w - now_w), 0.0).max())
    for towards_up, limit_w, net_w in (
        (False, problem.import_max_w, plan.import_w),
        (True, problem.export_max_w, -plan.import_w),
    ):
        called_w = (up if towards_up else down).sum(axis=0)
        yield float(np.where(called_w > 0.0, net_w + called_w - limit_w, 0.0).max())


def _over_energy(problem: Problem, extras: Extras, plan: Powers, held_w: Floats) -> Iterator[float]:
    """Yield by how much energy for a call is missing, as part of the battery's or the load's size."""
    b, loads, count = problem.batteries, problem.loads, len(problem.batteries.names)
    up_wh = _of(extras.reserves, held_w, up=True, energy=True)
    down_wh = _of(extras.reserves, held_w, up=False, energy=True)
    if count:
        size_wh = np.maximum(np.maximum(b.energy_wh, b.initial_wh), 1.0)[:, None]
        before_wh = np.column_stack((b.initial_wh, plan.energy_wh[:, :-1]))
        for stored_wh in (before_wh, plan.energy_wh):
            short_wh = b.reserve_wh[:, None] + up_wh[:count] / b.efficiency_discharge[:, None] - stored_wh
            over_wh = stored_wh + down_wh[:count] * b.efficiency_charge[:, None] - b.energy_wh[:, None]
            yield float(np.where(up_wh[:count] > 0.0, short_wh / size_wh, 0.0).max())
            yield float(np.where(down_wh[:count] > 0.0, over_wh / size_wh, 0.0).max())
    served_wh = np.cumsum(plan.load_w, axis=1) * problem.step_h
    for k in np.flatnonzero(~extras.terms.soft):
        last = int(loads.last_step[k])
        end = np.minimum(np.arange(problem.steps) + call_steps(problem, extras) - 1, last)
        left_wh = loads.max_w[k] * (last - end) * problem.step_h
        short_wh = loads.energy_wh[k] + up_wh[count + k] - served_wh[k, end] - left_wh
        yield float(np.where(up_wh[count + k] > 0.0, short_wh, 0.0).max()) / max(float(loads.energy_wh[k]), 1.0)


def call_steps(problem: Problem, extras: Extras) -> int:
    """Return how many steps the longest call of a reserve towards less consumption may last, at least 1."""
    longest_h = max([reserve.sustain_h for reserve in extras.reserves if reserve.up], default=0.0)
    return max(1, int(np.ceil(longest_h / problem.step_h - 1e-9)))


def _range_w(problem: Problem) -> tuple[Floats, Floats]:
    b, (load_least_w, load_most_w) = problem.batteries, problem.load_range_w()
    wide = np.ones(problem.steps)
    least_w = np.vstack((-b.discharge_max_w[:, None] * wide, load_least_w))
    return least_w, np.vstack((b.charge_max_w[:, None] * wide, load_most_w))


def _of(reserves: tuple[Reserve, ...], held_w: Floats, *, up: bool, energy: bool = False) -> Floats:
    """Return what each asset holds ready in one direction, shape (asset, step): power, or energy for whole calls."""
    weight = np.array([(reserve.up is up) * (reserve.sustain_h if energy else 1.0) for reserve in reserves])
    return np.asarray(np.tensordot(weight, held_w, axes=1))


def allotted(problem: Problem, extras: Extras, plan: Powers) -> Floats:
    """Return reserves spread over those who can hold them, the choosiest first; less than asked where it does not fit. [W]"""
    least_w, most_w = _range_w(problem)
    now_w = np.vstack((plan.battery_w, plan.load_w))
    room_w = {True: now_w - least_w, False: most_w - now_w}
    energy_wh = {up: _energy_room_wh(problem, extras, plan, up=up) for up in (True, False)}
    held_w = np.zeros((len(extras.reserves), *now_w.shape))
    for k in sorted(
        range(len(held_w)), key=lambda k: int(extras.reserves[k].batteries.sum() + extras.reserves[k].loads.sum())
    ):
        reserve = extras.reserves[k]
        missing_w = reserve.power_w.copy()
        for asset in np.flatnonzero(np.concatenate((reserve.batteries, reserve.loads))):
            room, energy = room_w[reserve.up][asset], energy_wh[reserve.up][asset]
            most = np.minimum(room, energy / reserve.sustain_h) if reserve.sustain_h > 0.0 else room
            found_w = np.clip(most, 0.0, missing_w)
            held_w[k, asset] = found_w
            room -= found_w
            energy -= found_w * reserve.sustain_h
            missing_w -= found_w
    return held_w


def _energy_room_wh(problem: Problem, extras: Extras, plan: Powers, *, up: bool) -> Floats:
    """Return what a call may take from (or put into) each asset at each step, at its terminals. [Wh]"""
    b, loads = problem.batteries, problem.loads
    before_wh = np.column_stack((b.initial_wh, plan.energy_wh[:, :-1])) if len(b.names) else plan.energy_wh
    least_wh, most_wh = np.minimum(before_wh, plan.energy_wh), np.maximum(before_wh, plan.energy_wh)
    if not up:
        room_wh = (b.energy_wh[:, None] - most_wh) / b.efficiency_charge[:, None]
        return np.vstack((room_wh, np.full(plan.load_w.shape, np.inf)))
    room_wh = (least_wh - b.reserve_wh[:, None]) * b.efficiency_discharge[:, None]
    served_wh = np.cumsum(plan.load_w, axis=1) * problem.step_h
    last = loads.last_step[:, None]
    end = np.minimum(np.arange(problem.steps) + call_steps(problem, extras) - 1, last)
    left_wh = loads.max_w[:, None] * (last - end) * problem.step_h
    spare_wh = np.take_along_axis(served_wh, end, axis=1) + left_wh - loads.energy_wh[:, None]
    return np.vstack((room_wh, np.where(extras.terms.soft[:, None], np.inf, spare_wh)))

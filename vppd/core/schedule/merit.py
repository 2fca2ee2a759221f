"""The merit order over time: loads into the cheapest steps, batteries one by one against what is left of the site.

It needs no solver and a few milliseconds, gives the answer when there is no time for a better one, and finds better
modes around a plan that is there already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from vppd.core.schedule.extra import Extras
from vppd.core.schedule.problem import Problem
from vppd.core.schedule.program import Flows
from vppd.core.schedule.storage import Ladder, best_powers, ladders
from vppd.snapshot import Floats

HOME = 10.0
"""To keep power at home export costs this many times the largest price."""
OUTSIDE = 1e3
"""Power beyond a limit of the site costs this many times the largest price."""


def curtailed_w(problem: Problem, net_w: Floats) -> Floats:
    """Return what the curtailable sources should give at each step for site powers ``net_w`` without them. [W]"""
    return _cheapest(problem, net_w[:, None])[0][:, 0]


def site_cost(problem: Problem, net_w: Floats) -> Floats:
    """Return what the site pays per step, shape (step, choice), with its sources curtailed where that is cheaper."""
    return _cheapest(problem, net_w)[1]


def _cheapest(problem: Problem, net_w: Floats) -> tuple[Floats, Floats]:
    """Return the best generation and its cost; the cost is linear between these candidates, so one of them is best."""
    most_w = problem.curtailable_w()[:, None]
    corners = (net_w, net_w - problem.import_max_w, net_w + problem.export_max_w, np.inf)
    best_w = np.zeros_like(net_w)
    best = _grid_cost(problem, net_w)
    if not most_w.any():
        return best_w, best
    for corner in corners:
        given_w = np.clip(corner, 0.0, most_w) + np.zeros_like(net_w)
        cost = _grid_cost(problem, net_w - given_w)
        better = cost < best
        best_w, best = np.where(better, given_w, best_w), np.where(better, cost, best)
    return best_w, best


def _grid_cost(problem: Problem, import_w: Floats) -> Floats:
    into, out = problem.price_import_per_wh[:, None], problem.price_export_per_wh[:, None]
    dear = OUTSIDE * max(float(np.abs(into).max()), float(np.abs(out).max()), 1e-12)
    over_w = np.maximum(import_w - problem.import_max_w, 0.0) + np.maximum(-import_w - problem.export_max_w, 0.0)
    return np.asarray(problem.step_h * (np.where(import_w > 0.0, into, out) * import_w + dear * over_w))


def candidates(problem: Problem, rungs: Callable[[], list[Ladder]]) -> Iterator[Flows]:
    """Yield plans by merit order, the cheapest first; ``rungs`` gives the ladders of the problem's batteries.

    Where something beyond energy is asked for, a plan may break it, and plainer ones follow: with what reserves may take
    put aside, with the batteries at rest, and both again as if export cost more than anything.
    """
    extras = problem.extras
    if extras is None:
        yield merit_order(problem, rungs())
        return
    for aim in (problem, _kept_home(problem)) if extras.green is not None else (problem,):
        aside = narrowed(aim)
        yield merit_order(aside, rungs() if aside is problem else ladders(aside))
        yield _at_rest(aim)
    if extras.reserves:
        yield merit_order(problem, rungs())


def _kept_home(problem: Problem) -> Problem:
    dear = float(np.abs(problem.price_import_per_wh).max()) * HOME + 1e-9
    return replace(problem, price_export_per_wh=np.full(problem.steps, -dear))


def _at_rest(problem: Problem) -> Flows:
    load_w = _filled(problem)
    idle_w = np.zeros((len(problem.batteries.names), problem.steps))
    return Flows(idle_w, idle_w, load_w, curtailed_w(problem, problem.fixed_w() + load_w.sum(axis=0)))


def narrowed(problem: Problem) -> Problem:
    """Return the problem with what reserves ask for put aside at all times: shared by batteries as far as they can."""
    extras, b = problem.extras, problem.batteries
    if extras is None or not extras.reserves:
        return problem
    room_wh = np.maximum(b.energy_wh - b.reserve_wh, 0.0)
    low_wh, high_wh = b.reserve_wh.copy(), b.energy_wh.copy()
    rate_w = {True: b.discharge_max_w.copy(), False: b.charge_max_w.copy()}
    for reserve in extras.reserves:
        per_w_wh = reserve.sustain_h * (b.efficiency_charge if not reserve.up else 1.0 / b.efficiency_discharge)
        able_w = np.minimum(rate_w[reserve.up], room_wh / np.maximum(per_w_wh, 1e-9)) * reserve.batteries
        part_w = able_w * min(1.0, float(reserve.power_w.max()) / max(float(able_w.sum()), 1e-9))
        rate_w[reserve.up] -= part_w
        room_wh = room_wh - part_w * per_w_wh
        if reserve.up:
            low_wh += part_w * per_w_wh
        else:
            high_wh -= part_w * per_w_wh
    batteries = replace(
        b, reserve_wh=low_wh, energy_wh=high_wh, discharge_max_w=rate_w[True], charge_max_w=rate_w[False]
    )
    down_w, up_w = (float(extras.reserved_w(up=up, steps=problem.steps).max()) for up in (False, True))
    import_max_w, export_max_w = max(problem.import_max_w - down_w, 0.0), max(problem.export_max_w - up_w, 0.0)
    return replace(problem, batteries=batteries, import_max_w=import_max_w, export_max_w=export_max_w)


def merit_order(problem: Problem, rungs: list[Ladder]) -> Flows:
    """Return a plan by merit order; it may break a limit where the order of decisions matters."""
    load_w = _filled(problem)
    battery_w = np.zeros((len(rungs), problem.steps))
    battery_w = one_by_one(problem, rungs, battery_w, load_w)
    net_w = problem.fixed_w() + load_w.sum(axis=0) + battery_w.sum(axis=0)
    return Flows(np.maximum(battery_w, 0.0), np.maximum(-battery_w, 0.0), load_w, curtailed_w(problem, net_w))


def one_by_one(problem: Problem, rungs_of: list[Ladder], battery_w: Floats, load_w: Floats) -> Floats:
    """Return batteries' powers, each in turn the best answer to all the others. [W]"""
    battery_w = battery_w.copy()
    total_w = problem.fixed_w() + load_w.sum(axis=0) + battery_w.sum(axis=0)
    for k in np.argsort(-problem.batteries.charge_max_w, kind="stable"):
        rest_w = total_w - battery_w[k]
        cost = site_cost(problem, rest_w[:, None] + rungs_of[k].power_w) + rungs_of[k].wear
        found_w = best_powers(rungs_of[k], cost)
        if found_w is not None:
            battery_w[k] = found_w
        total_w = rest_w + battery_w[k]
    return battery_w


def one_by_one_at(rungs_of: list[Ladder], battery_w: Floats, price_per_w: Floats, stiffness_per_w2: float) -> Floats:
    """Return batteries' powers at a price per step, each in turn making up for where the others stray from the sum. [W]

    Where the price moves only slowly with power this is as good as the true cost, and it does not freeze the loads.
    """
    aim_w, battery_w = battery_w.sum(axis=0), battery_w.copy()
    total_w = aim_w.copy()
    for k, rungs in enumerate(rungs_of):
        rest_w = total_w - battery_w[k]
        off_w = (rest_w - aim_w)[:, None] + rungs.power_w
        cost = price_per_w[:, None] * rungs.power_w + stiffness_per_w2 * off_w**2 + rungs.wear
        found_w = best_powers(rungs, cost)
        if found_w is not None:
            battery_w[k] = found_w
        total_w = rest_w + battery_w[k]
    return battery_w


def _filled(problem: Problem) -> Floats:
    """Return loads at their least power, and what they need beyond it in their cheapest steps within the limits. [W]"""
    least_w, most_w = problem.load_range_w()
    load_w = least_w.copy()
    total_w = problem.fixed_w() + load_w.sum(axis=0)
    slack_wh = most_w.sum(axis=1) * problem.step_h - problem.loads.energy_wh
    for k in np.argsort(slack_wh, kind="stable"):
        missing_w = float(problem.loads.energy_wh[k]) / problem.step_h - float(load_w[k].sum())
        for most in (problem.import_max_w, np.inf):
            if missing_w <= 0.0:
                break
            room_w = np.minimum(most_w[k] - load_w[k], np.maximum(most + problem.curtailable_w() - total_w, 0.0))
            room_w = np.minimum(room_w, _room_at_feeds(problem, k, load_w))
            choices = np.column_stack((total_w, total_w + room_w))
            dearer = np.diff(site_cost(problem, choices), axis=1)[:, 0] / np.maximum(room_w, 1e-9)
            order = np.argsort(np.where(room_w > 0.0, dearer, np.inf), kind="stable")
            before_w = np.concatenate(([0.0], np.cumsum(room_w[order])[:-1]))
            more_w = np.zeros(problem.steps)
            more_w[order] = np.clip(missing_w - before_w, 0.0, room_w[order])
            load_w[k] += more_w
            total_w = total_w + more_w
            missing_w -= float(more_w.sum())
    return load_w if problem.extras is None else _come_back(problem, problem.extras, load_w)


def _room_at_feeds(problem: Problem, k: int, load_w: Floats) -> Floats:
    """Return what load ``k`` may draw more at each step for its feeds' sake, their batteries at rest. [W]"""
    room_w = np.full(problem.steps, np.inf)
    sources = problem.renewables
    for feed in () if problem.extras is None else problem.extras.feeds:
        if feed.loads[k]:
            must_w = sources.available_w[feed.renewables & ~sources.curtailable].sum(axis=0)
            drawn_w = feed.inflexible_w - must_w + load_w[feed.loads].sum(axis=0)
            room_w = np.minimum(room_w, np.maximum(feed.import_max_w - drawn_w, 0.0))
    return room_w


def _come_back(problem: Problem, extras: Extras, load_w: Floats) -> Floats:
    """Return loads' powers raised to what comes back of what the steps before held back. [W]"""
    loads, terms, load_w = problem.loads, extras.terms, load_w.copy()
    for k in np.flatnonzero(terms.rebound_frac > 0.0):
        first, over = int(loads.first_step[k]), int(terms.rebound_steps[k])
        back = float(terms.rebound_frac[k]) / over
        for step in range(first + 1, int(loads.last_step[k]) + 1):
            held_back_w = loads.max_w[k] - load_w[k, max(first, step - over) : step]
            load_w[k, step] = max(load_w[k, step], loads.min_w[k] + back * float(held_back_w.sum()))
    return load_w

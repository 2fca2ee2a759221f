"""A season of trading in virtual time, with the daemon's own functions from the forecast to the statement.

History -> forecast -> what can be sold -> bids -> clearing among others -> awards matched -> obligations and orders -> ``decide``
on a plant that draws what it is told, late and not quite -> settlement -> a statement per award. No clock, no socket, no chance
but the seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np

from tests.market.season_calls import CALL, Caller
from tests.market.season_check import sold_twice
from tests.market.season_plan import Plans, price_outlook
from tests.market.season_products import ISSUER, LINES, MARKET, due
from tests.market.season_report import Report
from tests.market.season_world import MINUTES, START, WARM_DAYS, Truth, World, truth_of
from vppd.core.bidding.bid import Bid, Offered
from vppd.core.bidding.offering import offering
from vppd.core.forecast.outlook import Outlook
from vppd.core.forecast.point import Grid
from vppd.core.forecast.quantiles import LEVELS, Forecast, Score, Trial, forecast
from vppd.core.state import Phase, Transition
from vppd.core.timetable import Timetable
from vppd.grid.awards import match, orders_of
from vppd.grid.envelope import Envelope
from vppd.grid.reasons import Defect
from vppd.grid.vpp_v1 import Award
from vppd.market.book import Book
from vppd.market.rivals import Crowd
from vppd.market.rounds import Deal, Demand, Rules, held
from vppd.model import Event, Interval, Obligation
from vppd.planning.trade.connection import nodes_of
from vppd.planning.trade.gates import Slot
from vppd.planning.trade.sales import directions, sale_of, standing, why_not
from vppd.planning.trade.settling import Settling
from vppd.planning.trade.shelf import shelf_of, steps_of
from vppd.products import ProductConfig, site_of
from vppd.snapshot import Floats

STEP_S = 900.0
REFRESH_MIN = 360
"""Forecasts are made anew so often. [min]"""
FORESEEN_H = 40.0
PLAN_MIN = 30
"""And planned anew so often, and on every award. [min]"""
FINE_S = (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0)
"""Beats of a minute in which an order begins. [s]"""
TRIAL = Trial(every_s=6 * 3600.0)


class Season:
    """One run. With ``foresight`` it knows what will come, sells by that, and nothing is carried out: a bound."""

    def __init__(self, days: int, seed: int = 1, *, foresight: bool = False) -> None:
        self.days, self.seed, self.foresight = days, seed, foresight
        self.truth: Truth = truth_of(days, seed)
        self.world, self.report = World(self.truth, seed, obligations=self.obligations_at), Report(days)
        self.book, self.site = Book(), site_of(self.world.config)
        self.offers: dict[str, Offered] = {}
        self.lines = tuple(line for line in LINES if not why_not(line.product, self.site))
        self.caller = Caller({line.product.name: line for line in self.lines}, seed)
        self.obligations: dict[str, Obligation] = {}
        """Those that are not over, or have no statement yet."""
        self.deals: dict[str, Deal] = {}
        self._coming: list[Deal] = []
        """Those whose slot is not over."""
        self.outlook: Mapping[str, Outlook] = {}
        self._series = {name: _means(values) for name, values in self.truth.series().items()}
        self.plans = Plans(self.world.plant, STEP_S, self.obligations_at)
        self._replan = True
        self._wishes_w: Floats | None = None
        self._settling = Settling(self, self.world.plant, None, self._written)
        self._seq = 0

    def obligations_at(self, at: datetime) -> tuple[Obligation, ...]:
        """Return what is not over."""
        return tuple(found for found in self.obligations.values() if not found.is_over(at))

    def unsettled_at(self, at: datetime) -> tuple[Obligation, ...]:
        """Return what is over and has no statement yet."""
        over = (found for found in self.obligations.values() if found.is_over(at))
        return tuple(found for found in over if found.award_id not in self.report.statements)

    def run(self) -> Report:
        """Let the season pass."""
        for minute in range(self.days * MINUTES + 2):
            at = START + timedelta(minutes=minute)
            if minute % REFRESH_MIN == 0:
                self._foresee(at)
            self._gates(at)
            if not self.foresight:
                self._call(at)
                self._live(minute)
        self._close()
        return self.report

    # what comes

    def _foresee(self, at: datetime) -> None:
        """Forecast every series anew, from what has been measured until now."""
        now = WARM_DAYS * 96 + round((at - START).total_seconds() / STEP_S)
        steps = round(FORESEEN_H * 3600.0 / STEP_S)
        make = _known if self.foresight else _foreseen
        self.outlook = {
            name: Outlook(name, "seasonal", at, at, make(values, now, steps)) for name, values in self._series.items()
        } | {"price/import": price_outlook(at, STEP_S, steps)}

    def _timetable(self, at: datetime) -> Timetable:
        """Return the plan of storage; with foresight, where nothing runs, it rests at its charge and comes back to it."""
        if self.plans.timetable is not None:
            return self.plans.timetable
        plant, steps = self.world.plant, round(FORESEEN_H * 3600.0 / STEP_S)
        n, start = len(plant.asset_ids), _floored(at)
        sold = [found.interval for found in self.obligations.values() if found.dispatch == "scheduled"]
        times = [start + timedelta(seconds=STEP_S * k) for k in range(steps)]
        idle = np.cumsum([not any(interval.contains(time) for interval in sold) for time in times])
        power_w, energy_wh = np.full((n, steps), np.nan), np.full((n, steps), np.nan)
        for i in map(int, np.flatnonzero(self.world.storage)):
            full_wh = plant.soc_target_frac[i] * plant.capacity_wh[i]
            grown_wh = self.world.soc_frac[i] * plant.capacity_wh[i]
            gain_wh = plant.rated_upper_w[i] * plant.efficiency_frac[i] * STEP_S / 3600.0
            power_w[i] = 0.0
            energy_wh[i] = np.minimum(grown_wh + gain_wh * idle, full_wh)
        none = np.zeros(steps)
        return Timetable(at, start, STEP_S, "optimal", plant.asset_ids, power_w, energy_wh, none, none, 0.0)

    # trade

    def _gates(self, at: datetime) -> None:
        """Offer in the slots whose gate closes, let the market clear them, and take what it awards."""
        found = due(self.lines, at, START + timedelta(days=self.days))
        if not found:
            return
        for bid, gate in self._bids(found, at):
            offered = Offered(bid, "offered", gate)
            assert not self.book.take("dc1", offered, at - timedelta(seconds=1))
            self.offers[bid.bid_id] = offered
            self.report.offers += 1
        for slot in self.book.close(at):
            _, deals = held(slot, self.book.offers(slot), self._rules(slot.product))
            for deal in deals:
                self._award(deal, at)
        self.book.forget(at)

    def _bids(self, due: Sequence[tuple[ProductConfig, Slot]], at: datetime) -> list[tuple[Bid, datetime]]:
        """Return what is offered in these slots beside all that is sold, and until when it stands."""
        sold = standing(self.obligations.values(), self.offers, at, frozenset(), _floored(at))
        steps = steps_of([*(slot.interval for _, slot in due), *(found.interval for found in sold)], at, STEP_S)
        config = self.world.config
        shelf = shelf_of(config.assets, self.site, self.outlook, self._timetable(at), steps, nodes=nodes_of(config))
        sales = [
            sale_of(product, slot, "dc1", MARKET, self.outlook, way)
            for product, slot in due
            for way in directions(product, self.site)
        ]
        found = offering(
            sales, shelf.stocks, sold, start=steps.start, step_s=steps.step_s, limit_s=20.0, rooms=shelf.rooms
        )
        self.report.sold_twice += sold_twice(found.bids, sold, shelf.stocks, steps)
        gates = {(slot.product, slot.start): slot.gate_closes_at for _, slot in due}
        return [(bid, gates[bid.product, bid.interval.start]) for bid in found.bids]

    def _rules(self, product: str) -> Rules:
        expect = MARKET.expected(product)
        assert expect is not None
        crowd = Crowd(4, self.seed, 120e3, expect.price_per_mwh)
        return Rules(ISSUER, Demand(Decimal("0.7"), is_part=True), crowd=crowd)

    def _award(self, deal: Deal, at: datetime) -> None:
        """Judge an award as the daemon does, and take on what it obliges to."""
        self.report.awards += 1
        self._seq += 1
        award = Award(
            deal.award_id, ISSUER, deal.bid_id, self._seq, deal.start, deal.resource, deal.product, deal.direction,
            float(deal.power_w), Interval(deal.start, deal.end), deal.price, deal.currency, deal.revision,
        )  # fmt: skip
        offered = self.offers[deal.bid_id]
        try:
            obligation = match(award, offered, None, at)
        except Defect as defect:
            deal.state, deal.reason = "rejected", str(defect)
            self.report.refused.append(str(defect))
            return
        deal.state = "accepted"
        self.deals[deal.award_id] = deal
        self._coming.append(deal)
        self.obligations[deal.award_id] = obligation
        self.offers[deal.bid_id] = replace(offered, awarded_w=offered.awarded_w + deal.power_w)
        self.report.obligations += 1
        self._replan = True
        self.world.orders += orders_of(obligation, award, _envelope(at), at)

    # deliver

    def _call(self, at: datetime) -> None:
        """Order what is kept ready, now and then."""
        self._coming = [deal for deal in self._coming if at < deal.end]
        for deal in self._coming:
            if self.caller.is_time(deal, at) and (order := self.caller.call(deal, at)) is not None:
                self.world.orders.append(order)

    def _live(self, minute: int) -> None:
        at = START + timedelta(minutes=minute)
        stated = self.report.statements
        self.obligations = {k: o for k, o in self.obligations.items() if not (o.is_over(at) and k in stated)}
        for second_s in self._beats(at):
            level_frac = self.caller.level_frac(at + timedelta(seconds=second_s))
            snapshot, decision = self.world.beat(60.0 * minute + second_s, self._wishes_w, level_frac)
            for moved in decision.transitions:
                self._moved(moved)
            self._settling.take(snapshot, decision)
        if self._replan or minute % PLAN_MIN == 0:
            self.plans.make(snapshot, decision, self.outlook)
            self._replan = False
        self._wishes_w = self.plans.preferred_w(snapshot, decision)

    def _beats(self, at: datetime) -> tuple[float, ...]:
        """Return the beats of a minute: often when an order begins, and just before and after a moment at which one moves."""
        soon = at + timedelta(minutes=1)
        begins = any(order.interval.start == at for order in self.world.orders)
        edges = {found for order in self.world.orders for found in (order.interval.start, order.interval.end)}
        moves_now, moves_soon = (self.caller.moves(when, self._running(when)) for when in (at, soon))
        first = FINE_S if begins else (0.0, 1.0) if moves_now else (0.0,)
        return first + ((59.0,) if soon in edges or moves_soon else ())

    def _running(self, at: datetime) -> list[Deal]:
        """Return the awards of the slots that run."""
        return [deal for deal in self._coming if deal.start <= at < deal.end]

    def _moved(self, moved: Transition) -> None:
        """Give account of an order that is over."""
        if moved.progress.phase not in (Phase.COMPLETED, Phase.ABORTED):
            return
        award_id, delivery = moved.order.order_id.removeprefix(CALL), moved.progress.delivery
        deal = self.deals[award_id]
        deal.statements["order"] = {
            "shed_wh": round(max(delivery.reduced_wh, 0.0), 3),
            "added_wh": round(max(delivery.added_wh, 0.0), 3),
            "compliant_frac": round(delivery.kept_frac, 6),
        }
        if deal.dispatch == "scheduled":
            self.report.statements[award_id] += 1

    def _written(self, event: Event) -> None:
        if event.stream == "statements":
            award_id, held_frac = event.body["award_id"], event.body["held_frac"]
            self.report.statements[award_id] += 1
            self.report.held_frac.append(held_frac)
            self.deals[award_id].statements["award"] = {"held_frac": held_frac}

    def _close(self) -> None:
        if self.foresight:  # what is known beforehand is delivered in full
            for deal in self.deals.values():
                everything = {"shed_wh": float("9e99"), "added_wh": float("9e99"), "compliant_frac": 1.0}
                deal.statements = {"order": everything, "award": {"held_frac": 1.0}}
        self.report.settle(self.deals.values())


def _foreseen(values: Floats, now: int, steps: int) -> Forecast:
    return forecast(values[:now], steps, Grid(STEP_S), method="seasonal", bounds=(0.0, np.inf), trial=TRIAL)


def _known(values: Floats, now: int, steps: int) -> Forecast:
    """Return what will come as if it were foreseen for sure."""
    real = values[now : now + steps]
    score = Score(0.0, np.ones(len(LEVELS)), len(real))
    return Forecast("known", STEP_S, LEVELS, np.repeat(real[None, :], len(LEVELS), axis=0), score, real[None, :])


def _means(values: Floats) -> Floats:
    whole = len(values) // 15 * 15
    return np.asarray(values[:whole].reshape(-1, 15).mean(axis=1))


def _floored(at: datetime) -> datetime:
    return at - timedelta(seconds=at.timestamp() % STEP_S)


def _envelope(at: datetime) -> Envelope:
    return Envelope("", "isv", ISSUER, "vpp.bid.award.v1", at, "bid", "", "", "")

"""A season of trading in virtual time, with the daemon's own functions from the forecast to the statement.

History -> forecast -> what can be sold -> bids -> clearing among others -> awards matched -> obligations and orders -> ``decide``
on a plant that draws what it is told, late and not quite -> settlement -> a statement per award. No clock, no socket, no chance
but the seed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np

from tests.market.season_plan import Plans, price_outlook
from tests.market.season_products import ISSUER, MARKET, PEAK, PEAK_HOURS, READY
from tests.market.season_report import Report
from tests.market.season_world import MINUTES, START, WARM_DAYS, Truth, World, truth_of
from vppd.core.bidding.bid import Bid, Offered
from vppd.core.bidding.offering import Stock, offering
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
from vppd.model import Event, Interval, Obligation, Order, OrderKind, Priority
from vppd.planning.gates import Slot, slots
from vppd.planning.sales import sale_of, standing
from vppd.planning.settling import Settling
from vppd.planning.shelf import Steps, shelf_of, steps_of
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
CALLED_FRAC = 0.15
"""How likely what is kept ready is called. [0-1]"""
TRIAL = Trial(every_s=6 * 3600.0)


class Season:
    """One run. With ``foresight`` it knows what will come, sells by that, and nothing is carried out: a bound."""

    def __init__(self, days: int, seed: int = 1, *, foresight: bool = False) -> None:
        self.days, self.seed, self.foresight = days, seed, foresight
        self.truth: Truth = truth_of(days, seed)
        self.world, self.report = World(self.truth, seed), Report(days)
        self.book, self.site = Book(), site_of(self.world.config)
        self.offers: dict[str, Offered] = {}
        self.obligations: dict[str, Obligation] = {}
        self.deals: dict[str, Deal] = {}
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
        for product in (PEAK, READY):
            horizon_s = 36 * 3600.0 if product is PEAK else 2 * 3600.0
            if not _is_gate(product, at):
                continue
            found = slots(product, at - timedelta(seconds=1), horizon_s, 3600.0)
            due = tuple(s for s in found if s.gate_closes_at == at and self._is_wanted(s))
            if due:
                self._trade(product, due, at)

    def _is_wanted(self, slot: Slot) -> bool:
        is_peak_hour = slot.product != "peak" or slot.start.hour in PEAK_HOURS
        return is_peak_hour and slot.end <= START + timedelta(days=self.days)

    def _trade(self, product: ProductConfig, due: Sequence[Slot], at: datetime) -> None:
        """Offer in these slots, let the market clear them, and take what it awards."""
        sold = standing(self.obligations.values(), self.offers, at, frozenset(), _floored(at))
        steps = steps_of([*(slot.interval for slot in due), *(found.interval for found in sold)], at, STEP_S)
        shelf = shelf_of(self.world.config.assets, self.site, self.outlook, self._timetable(at), steps)
        sales = [sale_of(product, slot, "dc1", MARKET, self.outlook) for slot in due]
        found = offering(sales, shelf.stocks, sold, start=steps.start, step_s=steps.step_s, limit_s=20.0)
        self._check(found.bids, sold, shelf.stocks, steps)
        for bid in found.bids:
            gate = next(slot.gate_closes_at for slot in due if slot.interval == bid.interval)
            offered = Offered(bid, "offered", gate)
            assert not self.book.take("dc1", offered, at - timedelta(seconds=1))
            self.offers[bid.bid_id] = offered
            self.report.offers += 1
        for slot in self.book.close(at):
            _, deals = held(slot, self.book.offers(slot), self._rules(product))
            for deal in deals:
                self._award(deal, at)
        self.book.forget(at)

    def _rules(self, product: ProductConfig) -> Rules:
        expect = MARKET.expected(product.name)
        assert expect is not None
        crowd = Crowd(4, self.seed, 120e3, expect.price_per_mwh)
        return Rules(ISSUER, Demand(Decimal("0.7"), is_part=True), crowd=crowd)

    def _check(self, bids: Sequence[Bid], sold: Sequence[Obligation], stocks: Sequence[Stock], steps: Steps) -> None:
        """Note where more is sold in a step than all stocks together give in nine of ten samples."""
        rows = max((len(stock.paths_w) for stock in stocks), default=0)
        paths_w = sum((np.broadcast_to(s.paths_w, (rows, steps.count)) for s in stocks), np.zeros((rows, steps.count)))
        for step in range(steps.count):
            at = steps.start + timedelta(seconds=step * steps.step_s)
            before_w = sum(found.power_w for found in sold if found.interval.contains(at))
            new_w = sum(bid.power_w for bid in bids if bid.interval.contains(at))
            known_w = paths_w[np.isfinite(paths_w[:, step]), step]
            there_w = float(np.quantile(known_w, 0.5)) if len(known_w) else 0.0
            if new_w > 0.0 and before_w + new_w > there_w + 1.0:
                self.report.sold_twice.append(f"{at}: {before_w:.0f} + {new_w:.0f} W of {there_w:.0f} W")

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
        self.obligations[deal.award_id] = obligation
        self.offers[deal.bid_id] = replace(offered, awarded_w=offered.awarded_w + deal.power_w)
        self.report.obligations += 1
        self._replan = True
        self.world.orders += orders_of(obligation, award, _envelope(at), at)

    # deliver

    def _call(self, at: datetime) -> None:
        """Order what is kept ready, now and then."""
        if at.minute:
            return
        for deal in self.deals.values():
            if deal.dispatch != "order" or deal.start != at or deal.order_id:
                continue
            if random.Random(f"{self.seed} {deal.award_id}").random() < CALLED_FRAC:
                end = at + timedelta(seconds=deal.sustain_s or 900.0)
                deal.order_id, deal.order_start, deal.order_end = f"call-{deal.award_id}", at, end
                self.world.orders.append(
                    Order(
                        deal.order_id,
                        ISSUER,
                        OrderKind.REDUCE,
                        deal.resource,
                        Interval(at, end),
                        float(deal.power_w),
                        priority=Priority.AWARD,
                        product=deal.product,
                        received_at=at,
                    )
                )

    def _live(self, minute: int) -> None:
        at = START + timedelta(minutes=minute)
        for second_s in self._beats(at):
            snapshot, decision = self.world.beat(60.0 * minute + second_s, self._wishes_w)
            for moved in decision.transitions:
                self._moved(moved)
            self._settling.take(snapshot, decision)
        if self._replan or minute % PLAN_MIN == 0:
            self.plans.make(snapshot, decision, self.outlook)
            self._replan = False
        self._wishes_w = self.plans.preferred_w(snapshot, decision)

    def _beats(self, at: datetime) -> tuple[float, ...]:
        """Return the beats of a minute: often when an order begins, and just before one begins or ends."""
        soon = at + timedelta(minutes=1)
        begins = any(order.interval.start == at for order in self.world.orders)
        edges = {found for order in self.world.orders for found in (order.interval.start, order.interval.end)}
        is_called = soon.minute == 0 and any(deal.start == soon for deal in self.deals.values())
        return (FINE_S if begins else (0.0,)) + ((59.0,) if soon in edges or is_called else ())

    def _moved(self, moved: Transition) -> None:
        """Give account of an order that is over."""
        if moved.progress.phase not in (Phase.COMPLETED, Phase.ABORTED):
            return
        award_id = moved.order.order_id.removeprefix("call-")
        deal = self.deals[award_id]
        deal.statements["order"] = {"shed_wh": round(max(moved.progress.delivery.reduced_wh, 0.0), 3)}
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
                deal.statements = {"order": {"shed_wh": float("9e99")}, "award": {"held_frac": 1.0}}
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


def _is_gate(product: ProductConfig, at: datetime) -> bool:
    return (at.hour, at.minute) == (12, 0) if product is PEAK else at.minute == 15


def _envelope(at: datetime) -> Envelope:
    return Envelope("", "isv", ISSUER, "vpp.bid.award.v1", at, "bid", "", "", "")

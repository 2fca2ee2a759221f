"""What is offered and sold as Prometheus reads it: looked up at the scrape, from what is there anyway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from vppd.core.bidding.bid import Offered
from vppd.model import Obligation
from vppd.planning.trade.gate_log import GateLog
from vppd.runtime.figures import Figure, Row

WHERE = ("product", "direction")


class Trading(Protocol):
    """The desk, as far as it is counted."""

    @property
    def gates(self) -> GateLog:
        """Which gates have closed."""
        ...

    @property
    def running(self) -> Sequence[Mapping[str, Any]]:
        """The accounts of running awards."""
        ...


class Sold(Protocol):
    """What has been offered and sold."""

    @property
    def offers(self) -> Mapping[str, Offered]:
        """What was told to the market last of each bid."""
        ...

    def obligations_at(self, at: datetime) -> Sequence[Obligation]:
        """Return what is not over."""
        ...


@dataclass(frozen=True, slots=True)
class _Trade:
    """Sums over offers and awards, by product and direction."""

    sold: Sold
    desk: Trading
    now: Callable[[], datetime]

    def offers(self) -> Iterator[Row]:
        at = self.now()
        states = ((o.bid, "awarded" if o.awarded_w > 0.0 else o.state) for o in self.sold.offers.values())
        counted = Counter((bid.product, bid.direction, state) for bid, state in states if bid.end > at)
        return ((key, float(number)) for key, number in counted.items())

    def ahead(self) -> Iterator[Row]:
        at = self.now()
        found = self.sold.obligations_at(at)
        return self._sums((o, o.power_w) for o in found if o.interval.start > at)

    def obliged(self) -> Iterator[Row]:
        return self._sums((o, o.power_w) for o in self._running())

    def missing(self) -> Iterator[Row]:
        there = {entry["award_id"]: entry["there_w"] for entry in self.desk.running}
        known = [(o, there[o.award_id]) for o in self._running() if there.get(o.award_id) is not None]
        return self._sums((o, max(o.power_w - there_w, 0.0)) for o, there_w in known)

    def held(self) -> Iterator[Row]:
        """Yield the worst of each product and direction: awards come and go, and their names would never end."""
        accounts = {entry["award_id"]: entry for entry in self.desk.running}
        worst: dict[tuple[str, ...], float] = {}
        for sold in self._running():
            entry = accounts.get(sold.award_id)
            if entry is not None and entry["known_s"] > 0.0:
                key = (sold.product, sold.direction)
                worst[key] = min(worst.get(key, 1.0), entry["held_s"] / entry["known_s"])
        return iter(worst.items())

    def _running(self) -> list[Obligation]:
        at = self.now()
        return [sold for sold in self.sold.obligations_at(at) if sold.interval.start <= at]

    @staticmethod
    def _sums(parts: Iterator[tuple[Obligation, float]]) -> Iterator[Row]:
        found: dict[tuple[str, ...], float] = {}
        for sold, power_w in parts:
            key = (sold.product, sold.direction)
            found[key] = found.get(key, 0.0) + power_w
        return iter(found.items())


def trade_figures(sold: Sold, desk: Trading, now: Callable[[], datetime]) -> tuple[Figure, ...]:
    """Return what is offered and owed, whether it is there, and which gates were missed."""
    trade = _Trade(sold, desk, now)

    def by_product(read: Callable[[], Mapping[str, int]]) -> Callable[[], Iterator[Row]]:
        return lambda: (((product,), float(number)) for product, number in read().items())

    closed, missed = by_product(lambda: desk.gates.closed), by_product(lambda: desk.gates.missed)
    return (
        Figure("vppd_offers", "Offers that are not over: offered, awarded or withdrawn.", (*WHERE, "state"), trade.offers),
        Figure("vppd_obliged_watts", "Sold power that is owed now.", WHERE, trade.obliged),
        Figure("vppd_obliged_ahead_watts", "Sold power of awards that are to come, all added up.", WHERE, trade.ahead),
        Figure("vppd_sold_missing_watts", "Sold power that is neither there nor delivered.", WHERE, trade.missing),
        Figure("vppd_award_held_ratio", "Part of the time that the worst of the running awards was there.", WHERE, trade.held),
        Figure("vppd_gates_closed", "Gates that have closed.", ("product",), closed, "counter"),
        Figure("vppd_gates_missed", "Gates that closed before the offers had been computed.", ("product",), missed, "counter"),
    )  # fmt: skip

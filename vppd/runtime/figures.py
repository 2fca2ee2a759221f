"""Figures that are read when Prometheus asks, and cost nothing in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from vppd.runtime.health import Vitals

Row = tuple[tuple[str, ...], float]
"""Values of the labels, and the figure; NaN is left out, never 0."""
Family = CounterMetricFamily | GaugeMetricFamily


@dataclass(frozen=True, slots=True, eq=False)
class Figure(Collector):
    """One metric; a name without its unit at the end is a number or a fraction of what it says."""

    name: str
    text: str
    labels: tuple[str, ...]
    rows: Callable[[], Iterable[Row]]
    kind: Literal["gauge", "counter"] = "gauge"

    def collect(self) -> Iterable[Family]:
        """Yield the metric with what is known now."""
        make = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = make(self.name, self.text, labels=self.labels)
        for values, figure in self.rows():
            if not math.isnan(figure):
                family.add_metric(values, figure)
        yield family

    def describe(self) -> Iterable[Family]:
        """Yield nothing: a registry that asked would read the figures before there are any."""
        return ()


def one(name: str, text: str, read: Callable[[], float | None]) -> Figure:
    """Return a gauge without labels; None is left out."""

    def rows() -> Iterable[Row]:
        found = read()
        return () if found is None else (((), float(found)),)

    return Figure(name, text, (), rows)


def health_figures(vitals: Vitals) -> tuple[Figure, ...]:
    """Return what the daemon knows about itself."""
    return (
        one("vppd_ready", "Whether the ledger is replayed and every device was tried.", lambda: vitals.ready),
        one("vppd_ledger_faulty", "Whether the newest commits to the ledger failed.", lambda: vitals.ledger_faulty),
        one("vppd_clock_synchronised", "Whether the machine's clock can be relied on.", lambda: vitals.clock_ok),
        one("vppd_operator_release", "Whether the operator has taken the plant.", lambda: vitals.operator_release),
    )

"""Figures for Prometheus, in a registry of their own; the assets' columns are read at the scrape, not every cycle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

from vppd.model import Outcome
from vppd.runtime.figures import Figure, Row
from vppd.snapshot import Floats, Readings

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FAST_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_IO_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Everything that is counted, and the registry it is in."""

    registry: CollectorRegistry = field(default_factory=lambda: CollectorRegistry(auto_describe=True))
    cycle: Histogram = field(init=False)
    late: Histogram = field(init=False)
    orders: Counter = field(init=False)
    writes: Histogram = field(init=False)
    commits: Counter = field(init=False)
    shortfall: Gauge = field(init=False)
    severity: Gauge = field(init=False)

    def __post_init__(self) -> None:
        r = self.registry
        made: dict[str, Histogram | Counter | Gauge] = {
            "cycle": Histogram("vppd_cycle_seconds", "Duration of a control cycle.", buckets=_FAST_S, registry=r),
            "late": Histogram("vppd_cycle_late_seconds", "Lateness against the beat.", buckets=_FAST_S, registry=r),
            "orders": Counter("vppd_orders", "Dispatch commands by verdict.", ("verdict",), registry=r),
            "writes": Histogram(
                "vppd_write_seconds", "Write to a device with its read-back.", ("outcome",), buckets=_IO_S, registry=r
            ),
            "commits": Counter("vppd_ledger_commits", "Ledger commits by result.", ("result",), registry=r),
            "shortfall": Gauge("vppd_shortfall_watts", "Ordered power not delivered.", ("node",), registry=r),
            "severity": Gauge("vppd_site_severity", "Failsafe severity of the site, 0 none to 6 lockout.", registry=r),
        }
        for name, metric in made.items():
            object.__setattr__(self, name, metric)

    def cycled(self, took_s: float, late_s: float) -> None:
        """Note a completed cycle. [s]"""
        self.cycle.observe(took_s)
        self.late.observe(late_s)

    def judged(self, verdict: str) -> None:
        """Note what became of an inbound command."""
        self.orders.labels(verdict).inc()

    def wrote(self, outcome: Outcome, latency_s: float) -> None:
        """Note a write to a device. [s]"""
        self.writes.labels(outcome.value).observe(latency_s)

    def committed(self, succeeded: bool) -> None:
        """Note a ledger commit."""
        self.commits.labels("ok" if succeeded else "failed").inc()

    def watch(self, asset_ids: Sequence[str], frame: Callable[[], Readings]) -> None:
        """Export the assets' columns, read when somebody scrapes."""
        self.add(*asset_figures(tuple(asset_ids), frame))

    def add(self, *figures: Collector) -> None:
        """Export what is read when somebody scrapes."""
        for figure in figures:
            self.registry.register(figure)

    def render(self) -> bytes:
        """Return the text that Prometheus reads, of type CONTENT_TYPE."""
        return generate_latest(self.registry)


def asset_figures(asset_ids: tuple[str, ...], frame: Callable[[], Readings]) -> tuple[Figure, ...]:
    """Return gauges of all assets."""

    def column(read: Callable[[Readings], Floats]) -> Callable[[], Iterator[Row]]:
        def rows() -> Iterator[Row]:
            found = read(frame())
            return (((asset_ids[i],), float(found[i])) for i in np.flatnonzero(np.isfinite(found)))

        return rows

    columns: Mapping[str, tuple[str, Callable[[Readings], Floats]]] = {
        "power_watts": ("Measured power, + = consumption.", lambda r: r.power_w),
        "soc_ratio": ("State of charge.", lambda r: r.soc_frac),
        "setpoint_watts": ("Setpoint the device says it follows.", lambda r: r.setpoint_w),
        "online": ("Whether the device's link is up.", lambda r: r.online.astype(np.float64)),
    }
    return tuple(Figure(f"vppd_asset_{name}", text, ("asset",), column(read)) for name, (text, read) in columns.items())

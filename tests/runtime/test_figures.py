"""What the daemon tells Prometheus of itself."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.scrape import Scrape, scrape
from vppd.model import Outcome
from vppd.runtime.figures import Figure, health_figures, one
from vppd.runtime.health import COMMITS_TO_CLEAR, Vitals
from vppd.runtime.intents import Intent, Report
from vppd.runtime.metrics import Metrics
from vppd.runtime.told import Told


def values(metrics: Metrics) -> Scrape:
    """Return every sample by its name and label values."""
    return scrape(metrics.render().decode())


def test_what_is_not_known_is_left_out() -> None:
    """NaN and None are no figures; 0 is."""
    metrics = Metrics()
    metrics.add(
        Figure("a_watts", "A.", ("x",), lambda: ((("p",), float("nan")), (("q",), 0.0))),
        one("b", "B.", lambda: None),
        Figure("c", "C.", ("x",), lambda: ((("p",), 3.0),), "counter"),
    )
    found = values(metrics)
    assert {name for name, *_ in found if name.startswith(("a_", "b", "c_"))} == {"a_watts", "c_total"}
    assert found["a_watts", "q"] == 0.0


def test_a_ledger_that_fails_is_told_until_it_has_proved_itself() -> None:
    """Every commit is counted by its result."""
    metrics = Metrics()
    vitals = Vitals(lambda: 0.0, 60.0, ready=True, committed=metrics.committed)
    metrics.add(*health_figures(vitals))
    assert values(metrics)["vppd_ledger_faulty",] == 0.0
    vitals.ledger(faulty=True)
    found = values(metrics)
    assert (found["vppd_ready",], found["vppd_ledger_faulty",]) == (1.0, 1.0)
    for _ in range(COMMITS_TO_CLEAR):
        vitals.ledger(faulty=False)
    found = values(metrics)
    assert found["vppd_ledger_faulty",] == 0.0
    assert found["vppd_ledger_commits_total", "failed"] == 1
    assert found["vppd_ledger_commits_total", "ok"] == COMMITS_TO_CLEAR


class Book:
    """An intent book that keeps nothing."""

    async def intent(self, intent: Intent) -> None:
        """Forget."""

    def outcome(self, report: Report) -> None:
        """Forget."""


def test_every_write_to_a_device_is_timed() -> None:
    """Renewals too: a device that gets slow shows at once. What a reading settles later is no write."""
    metrics = Metrics()
    told = Told(Book(), lambda: datetime.now(UTC), metrics.wrote)
    intent = Intent("i", "ups-a", -5e3, "order")
    told.outcome(Report(intent, Outcome.CONFIRMED, -5e3, "", 0.02, True))
    told.outcome(Report(intent, Outcome.UNKNOWN, None, "", 0.5, False))
    told.outcome(Report(intent, Outcome.CONFIRMED, -5e3, "shown by a reading", 0.0, True))
    found = values(metrics)
    assert found["vppd_write_seconds_sum", "confirmed"] == 0.02
    assert found["vppd_write_seconds_count", "confirmed"] == 1
    assert found["vppd_write_seconds_count", "unknown"] == 1

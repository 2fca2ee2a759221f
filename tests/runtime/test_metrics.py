"""Figures as Prometheus reads them."""

from __future__ import annotations

from tests.scrape import Scrape, scrape
from vppd.model import Outcome, Sample
from vppd.runtime.metrics import Metrics
from vppd.runtime.table import LatestValues


def values(metrics: Metrics) -> Scrape:
    """Return every sample by its name and label values."""
    return scrape(metrics.render().decode())


def test_what_is_counted_comes_out() -> None:
    """Cycle, orders, writes, commits."""
    metrics = Metrics()
    metrics.cycled(0.003, 0.0)
    metrics.judged("accepted")
    metrics.judged("accepted")
    metrics.judged("rejected")
    metrics.wrote(Outcome.CONFIRMED, 0.02)
    metrics.committed(True)
    metrics.shortfall.labels("main-a").set(5.0)
    metrics.severity.set(2)
    found = values(metrics)
    assert found["vppd_cycle_seconds_count",] == 1
    assert found["vppd_orders_total", "accepted"] == 2
    assert found["vppd_orders_total", "rejected"] == 1
    assert found["vppd_write_seconds_sum", "confirmed"] == 0.02
    assert found["vppd_ledger_commits_total", "ok"] == 1
    assert found["vppd_shortfall_watts", "main-a"] == 5.0
    assert found["vppd_site_severity",] == 2


def test_assets_are_read_at_the_scrape_and_missing_values_are_left_out() -> None:
    """A missing state of charge is not 0 %."""
    metrics, table = Metrics(), LatestValues(["ups-1", "poi-a"])
    metrics.watch(table.asset_ids, table.frame)
    table.store(0, Sample(power_w=-5.0, soc_frac=0.5, setpoint_w=-6.0), 1.0)
    found = values(metrics)
    assert found["vppd_asset_power_watts", "ups-1"] == -5.0
    assert found["vppd_asset_soc_ratio", "ups-1"] == 0.5
    assert found["vppd_asset_setpoint_watts", "ups-1"] == -6.0
    assert found["vppd_asset_online", "ups-1"] == 1.0
    assert found["vppd_asset_online", "poi-a"] == 0.0
    assert ("vppd_asset_power_watts", "poi-a") not in found
    table.store(1, Sample(power_w=9.0), 2.0)
    assert values(metrics)["vppd_asset_power_watts", "poi-a"] == 9.0


def test_two_daemons_in_one_process_do_not_share_figures() -> None:
    """There is no global registry."""
    first, second = Metrics(), Metrics()
    first.judged("accepted")
    assert ("vppd_orders_total", "accepted") not in values(second)

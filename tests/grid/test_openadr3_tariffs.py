"""Prices and carbon intensities of a server as series."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from vppd.grid.openadr3.orders import Tariff
from vppd.grid.openadr3.tariffs import tariff_series
from vppd.model import Interval

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)


def tariff(begin_min: float, end_min: float | None, value: float, **more: str) -> Tariff:
    """Return a price in EUR/kWh, so many minutes from the beginning."""
    end = None if end_min is None else AT + timedelta(minutes=end_min)
    said = {"payload_type": "PRICE", "units": "KWH", "currency": "EUR", "event_id": "e"} | more
    return Tariff(
        said["payload_type"], Interval(AT + timedelta(minutes=begin_min), end), value, said["units"], said["currency"],
        said["event_id"],
    )  # fmt: skip


def series(*tariffs: Tariff, name: str = "price/import") -> list[float]:
    """Return four steps of a quarter of an hour."""
    return list(tariff_series(tariffs, AT, 900.0, 4, "EUR")[name])


def test_prices_per_wh_on_the_grid() -> None:
    """Steps are means of what is told; one that began before counts from now, one without an end goes on."""
    found = series(tariff(-60, 20, 0.3), tariff(20, None, 0.12, event_id="f"))
    assert found == pytest.approx([0.3e-3, (0.3e-3 + 2 * 0.12e-3) / 3, 0.12e-3, 0.12e-3])


def test_what_is_not_told_is_not_known() -> None:
    """A step that is told for less than half is NaN, not cheap."""
    found = series(tariff(0, 20, 0.3), tariff(39, 60, 0.1))
    assert np.isnan(found[1])
    assert found[2:] == pytest.approx([np.nan, 0.1e-3], nan_ok=True)


def test_the_same_said_for_two_resources_counts_once() -> None:
    """An event with two targets tells one price."""
    assert series(tariff(0, 60, 0.3), tariff(0, 60, 0.3)) == pytest.approx([0.3e-3] * 4)


def test_carbon() -> None:
    """A carbon intensity is told in g/kWh, whose unit is called GHG."""
    entry = tariff(0, 60, 350.0, payload_type="GHG", units="GHG", currency="")
    assert series(entry, name="carbon") == pytest.approx([0.35] * 4)


@pytest.mark.parametrize("more", [{"units": "KW"}, {"units": ""}, {"currency": "USD"}, {"payload_type": "CURVE"}])
def test_what_cannot_be_read_is_left_out(more: dict[str, str]) -> None:
    """Another currency, no units or units of something else give no series."""
    assert tariff_series([tariff(0, 60, 0.3, **more)], AT, 900.0, 4, "EUR") == {}

"""The plan as people see it in a terminal."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from vppd.api.console_plan import plan_table


def printed(found: dict[str, Any]) -> str:
    """Return what is printed."""
    file = StringIO()
    plan_table(found, Console(file=file, width=160))
    return file.getvalue()


def a_plan(**more: Any) -> dict[str, Any]:
    """Return a plan of two hours, the first of which is over."""
    steps = [
        {
            "start": f"2026-03-01T{6 + k // 4:02}:{k % 4 * 15:02}:00+00:00",
            "price_per_mwh": 80.0,
            "import_w": 400e3,
            "renewable_w": 50e3 * (1 + k // 4),
            "measured_import_w": 410e3 if k < 4 else None,
            "measured_renewable_w": 48e3 if k < 4 else None,
            "planned_w": {"hall": 250e3, "bess": -40e3},
            "measured_w": {"hall": 251e3} if k < 4 else {},
        }
        for k in range(8)
    ]
    known = {
        "made_at": "2026-03-01T07:00:00+00:00", "status": "optimal", "cost": 12.5, "in_force": True, "economics": True,
        "reason": "", "missing": ["carbon: no forecast"], "conflicts": [], "steps": steps, "deferred_wh": 5e3,
        "late_wh": 0.0, "assets": [{"id": "hall", "kind": "cluster"}, {"id": "bess", "kind": "battery"}],
        "waiting": [{"asset": "hall", "tier": 3, "until": "2026-03-01T18:00:00+00:00", "energy_wh": 2500.0}],
    }  # fmt: skip
    return known | more


def test_a_plan_has_a_row_per_hour() -> None:
    """Planned beside measured, storage before clusters, a bar for the sun, and what waits."""
    text = printed(a_plan())
    assert "optimal, costs 12.50, followed" in text
    assert "carbon: no forecast" in text
    rows = [line for line in text.splitlines() if "250 kW" in line]
    assert len(rows) == 2
    assert "250 kW (251 kW)" in rows[0]
    assert "410 kW" in rows[0]
    assert "(251 kW)" not in rows[1]
    assert rows[1].count("█") > rows[0].count("█") > 0
    assert "2.5 kWh of compute wait, the first until 01 18:00; 5.0 kWh have waited so far." in text
    assert text.index("bess") < text.index("hall")


def test_without_a_plan_the_reason_is_told() -> None:
    """Nobody has to look into the log for why there is no plan."""
    text = printed(a_plan(made_at=None, reason="waits for the first forecasts", steps=[], missing=[]))
    assert text.strip() == "There is no plan: waits for the first forecasts."


def test_an_old_plan_says_so() -> None:
    """A plan that nobody could renew is out of date, and what stood in the way is told."""
    text = printed(a_plan(in_force=False, reason="no answer within 50 s", conflicts=["award a1"], late_wh=1e3))
    assert "out of date; no newer one: no answer within 50 s" in text
    assert "could not be had: award a1" in text
    assert "1.0 kWh missed their deadline" in text


def test_green_rules_are_told_as_they_stand() -> None:
    """Of each rule that is asked for: what the period has so far, and what is asked."""
    green = {
        "period": "year",
        "of": "compute",
        "so_far": {"share_of_load_frac": 0.412, "self_use_frac": None},
        "asked": {"share_of_load_frac": 0.3, "self_use_frac": 0.6},
    }
    text = printed(a_plan(green=green))
    assert "Green, this year so far: 41% of the compute from renewables, 30% asked for" in text
    assert "nothing measured of PV and wind used on site, 60% asked for" in text
    assert "Green" not in printed(a_plan(green=None))

"""Lease and reserve, as adapters share them."""

from __future__ import annotations

import pytest

from adapters._lease import SOC_MAX_AGE_S, Lease, Reserve


async def test_a_lease_runs_until_it_ends() -> None:
    """Running, expired, forgotten."""
    lease = Lease()
    assert (lease.is_running, lease.has_expired) == (False, False)
    lease.renew(60.0)
    assert (lease.is_running, lease.has_expired) == (True, False)
    lease.renew(0.0)
    assert (lease.is_running, lease.has_expired) == (False, True)
    lease.end()
    assert (lease.is_running, lease.has_expired) == (False, False)


@pytest.mark.parametrize(
    ("soc_frac", "age_s", "held_w"),
    [(0.5, 0.0, -7.0), (0.3, 0.0, 0.0), (0.1, 0.0, 0.0), (None, 0.0, 0.0), (0.9, SOC_MAX_AGE_S + 1.0, 0.0)],
)
async def test_a_reserve_is_held(soc_frac: float | None, age_s: float, held_w: float) -> None:
    """At the reserve, with an unknown charge or one seen too long ago, nothing is discharged; charging always may."""
    reserve = Reserve(0.3)
    reserve.saw(soc_frac)
    reserve._seen_s -= age_s
    power_w, why = reserve.hold(-7.0)
    assert power_w == held_w
    assert bool(why) == (held_w == 0.0)
    assert reserve.hold(7.0) == (7.0, "")


async def test_a_charge_never_read_is_unknown() -> None:
    """Before the first reading nothing is discharged."""
    reserve = Reserve(0.0)
    assert reserve.needs_reading
    assert reserve.hold(-1.0)[0] == 0.0

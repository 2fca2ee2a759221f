"""A node cap is shared out within every device's limits and never exceeded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vppd.agent.sharing import Need, need, share

WATTS = st.integers(0, 1000).map(float)


@st.composite
def needs(draw: st.DrawFn) -> dict[str, Need]:
    """Return devices with any limits and demands."""
    found = {}
    for index in range(draw(st.integers(1, 10))):
        low_w, high_w = sorted((draw(WATTS), draw(WATTS)))
        found[f"d{index}"] = Need(low_w, high_w, draw(WATTS))
    return found


@given(needs(), st.floats(0.0, 12_000.0))
def test_limits_and_sum_hold(devices: dict[str, Need], cap_w: float) -> None:
    """Each share is within its limits; together they are the cap, less a tenth of a watt each, or the nearest there is."""
    shares = share(cap_w, devices)
    for name, n in devices.items():
        assert n.min_w <= shares[name] <= n.max_w
    least_w, most_w = sum(n.min_w for n in devices.values()), sum(n.max_w for n in devices.values())
    meant_w = min(max(cap_w, least_w), most_w)
    assert meant_w - 0.1 * len(devices) - 1e-3 <= sum(shares.values()) <= meant_w + 1e-3


@given(needs(), st.floats(0.0, 12_000.0), st.randoms())
def test_the_order_does_not_matter(devices: dict[str, Need], cap_w: float, random: object) -> None:
    """The same devices in another order get the same."""
    names = sorted(devices, reverse=True)
    assert share(cap_w, {name: devices[name] for name in names}) == share(cap_w, devices)


@given(needs(), st.floats(0.0, 12_000.0), st.floats(0.0, 500.0))
def test_more_for_the_node_is_less_for_nobody(devices: dict[str, Need], cap_w: float, more_w: float) -> None:
    """A higher cap lowers no share."""
    before, after = share(cap_w, devices), share(cap_w + more_w, devices)
    assert all(after[name] >= before[name] - 1e-9 for name in devices)


def test_idle_devices_leave_their_power_to_busy_ones() -> None:
    """Under 2000 W two idle GPUs keep their least, and two busy ones get the rest in equal parts."""
    idle, busy = need(350.0, 700.0, 70.0, 700.0), need(350.0, 700.0, 690.0, 700.0)
    shares = share(2000.0, {"a": idle, "b": busy, "c": idle, "d": busy})
    assert shares == {"a": 350.0, "b": 650.0, "c": 350.0, "d": 650.0}


def test_a_device_that_fills_its_cap_may_want_everything() -> None:
    """What a device at its cap would draw is not known, so it counts as all it may; one well below as what it draws."""
    assert need(200.0, 700.0, 396.0, 400.0).demand_w == 700.0
    assert need(200.0, 700.0, None, None).demand_w == 700.0
    assert need(200.0, 700.0, 300.0, 400.0).demand_w == 330.0

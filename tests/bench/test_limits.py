"""The limits the benches are held to, on short runs: the whole daemon on real sockets, and the decision by itself.

A machine that does other work at the same time is allowed for by a measure taken in the same run, never by a wider limit.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench import bench_agents, bench_beat_daemon, bench_decide, bench_dispatch_latency, bench_p90, bench_redfish
from tests.bench.__main__ import judged
from tests.bench.p90_profiles import SYNTHETIC
from tests.support import require

ORDERS = 30
AGENT_ORDERS = 10
BEATS_S = 15.0
BUSY_FACTOR = 2.0
BUSY_BMCS = 4.0
BUSY_RATIO = 6.0
"""Where the bare writes take long too, an order may take this many times as long; 3 to 4 were measured."""

BUSY_STRETCH = 1.5
"""From here on a machine counts as busy: then the median order to all agents is held to the limit, stretched as the process was."""


@pytest.mark.parametrize("assets", sorted(bench_decide.ALLOWED_MS))
@pytest.mark.timeout(300)
def test_a_decision_is_quick(assets: int) -> None:
    """The median decision keeps to its limit, by processor time: it is one thread."""
    found = bench_decide.measure(assets, runs=9)
    bench_decide.say(found)
    assert found["median_cpu_ms"] <= bench_decide.ALLOWED_MS[assets]


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_order_is_at_twenty_devices_within_a_tenth_of_a_second() -> None:
    """Published to last Modbus write acknowledged: p99 within 100 ms, or the bare writes are as slow in the same run."""
    require("mosquitto", "the order comes through a real broker")
    found = bench_dispatch_latency.measure(ORDERS)
    bench_dispatch_latency.say(found)
    assert found["order_p99_ms"] <= bench_dispatch_latency.ALLOWED_MS or found["ratio_p99"] <= BUSY_RATIO


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_beat_is_held_with_a_thousand_points() -> None:
    """No beat is missed and p99 is within 100 ms of the grid, twice that at most where the machine is seen to be busy."""
    require("mosquitto", "the daemon publishes to a real broker")
    found = bench_beat_daemon.measure(BEATS_S)
    bench_beat_daemon.say(found)
    assert found["missed"] == 0
    assert found["off_p99_ms"] <= bench_beat_daemon.ALLOWED_MS * min(found["machine_stretch"], BUSY_FACTOR)


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_healthy_of_five_hundred_bmcs_are_capped_within_five_seconds() -> None:
    """A tenth is dead and a tenth slow; longer only as far as the machine is seen to be busy in the same run."""
    found = bench_redfish.measure(slow_too=False)
    bench_redfish.say(found)
    assert found["capped_s"] <= bench_redfish.ALLOWED_S * min(found["machine_stretch"], BUSY_BMCS)


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_order_is_at_a_thousand_agents_within_a_second() -> None:
    """Setpoint to last acknowledgement: p99 within a second; on a busy machine the median, as far as it was held up."""
    require("mosquitto", "the agents are behind a real broker")
    found = bench_agents.measure(AGENT_ORDERS)
    bench_agents.say(found)
    stretch, allowed_ms = found["machine_stretch"], bench_agents.ALLOWED_MS
    is_kept_busy = stretch > BUSY_STRETCH and found["order_p50_ms"] <= allowed_ms * stretch
    assert found["order_p99_ms"] <= allowed_ms or is_kept_busy


@pytest.mark.parametrize(("name", "days"), [("batch jobs", 27), ("regime change", 40)])
@pytest.mark.timeout(300)
def test_what_is_sold_is_there_nine_times_in_ten(name: str, days: int) -> None:
    """On weeks held back at most a tenth of what was sold is missing, and at least half of that: nothing is left in the drawer."""
    found = bench_p90.measure(SYNTHETIC[name](np.random.default_rng(1)), days=days, method="seasonal")
    assert bench_p90.AT_LEAST_FRAC <= found["missed_frac"] <= bench_p90.ALLOWED_FRAC
    assert found["revenue_of_bound_frac"] >= 0.6


def test_a_figure_is_judged_by_the_limit_beside_it() -> None:
    """What names the case is no figure; a figure without a limit has none."""
    line = {"bench": "x", "assets": 5, "p99_ms": 7.0, "limit_p99_ms": 6.0, "rss_mb": 3.0}
    assert list(judged(line)) == [("p99_ms", 7.0, 6.0), ("rss_mb", 3.0, None)]

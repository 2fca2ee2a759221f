"""The planner of a cluster in a closed loop: targets, accounts, learning, jobs that come and go, and the way back."""

from __future__ import annotations

from tests.runtime.plannable_cluster import Cluster, mixed
from vppd.runtime.curtailer import Curtailer, Terms

WINDOW_S = 1_200
TERMS = Terms(window_s=WINDOW_S)


def curtailer(cluster: Cluster, ends_s: float = 1e9, terms: Terms = TERMS) -> Curtailer:
    """Return a planner that knows when the order ends."""
    return Curtailer("hall", terms, cluster.now, lambda: min(max(ends_s - cluster.now_s, 0.0), 3600.0))


def begun(cluster: Cluster, planner: Curtailer) -> None:
    """Let the planner see a cluster at full speed first."""
    planner.shed_w(cluster.look())


def test_the_target_is_kept_after_the_ramp_and_no_tier_is_overdrawn() -> None:
    """Near the most that the accounts bear, for an hour: the meter stays below, and independent books find every tier within its tolerance."""
    cluster = Cluster(*mixed())
    planner = curtailer(cluster, ends_s=cluster.now_s + 3_600.0)
    begun(cluster, planner)
    target_w = 0.76 * cluster.full_w
    cluster.live(planner, target_w, 3_600)
    assert max(cluster.power_w[30:]) <= target_w
    assert cluster.overdrawn(WINDOW_S) == {}
    cluster.live(planner, 1e6, 900)
    assert cluster.power_w[-1] == cluster.full_w
    assert cluster.overdrawn(WINDOW_S) == {}

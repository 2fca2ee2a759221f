"""Which jobs are stopped and which nodes capped for a budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters._caps import Cap
from adapters._slurm_config import SlurmConfig
from adapters._slurm_jobs import Job, Node
from adapters._slurm_journal import Credit, Held, Touch
from adapters._slurm_plan import Plan, plan, power_floor_frac, shed_first, sheddable, slow_down_frac
from adapters._slurm_power import Picture, picture

CONFIG = SlurmConfig(
    command_line=True, node_idle_w=2000.0, node_max_w=8400.0, max_pause_s={1: 0.0, 2: 600.0, 3: 1800.0}
)
NODE_W = 8000.0


def job(number: int, tier: int, node: str = "", **more: object) -> Job:
    """Return a running job that has the 8 GPUs of a node."""
    gpu_job = Job(number, "RUNNING", "flex", comment=f"vpp:tier={tier}", nodes=(node or f"n{number}",), cpus=64, gpus=8)
    return replace(gpu_job, **more)  # type: ignore[arg-type]


def node(name: str, power_w: float | None = NODE_W) -> Node:
    """Return a node of 8 GPUs."""
    return Node(name, ("flex",), cpus=64, gpus=8, power_w=power_w)


def look(jobs: Iterable[Job], held: Held | None = None, caps: Mapping[str, Cap] | None = None) -> Picture:
    """Return the picture of jobs and the nodes they are on."""
    jobs = list(jobs)
    names = {name: node(name) for one in jobs for name in one.nodes}
    return picture(CONFIG, jobs, names.values(), held or Held(), caps or {}, now_s=0.0)


def one_of_each() -> list[Job]:
    """Return a job of every tier, each on a node of its own."""
    return [job(tier + 1, tier) for tier in range(4)]


def test_enough_budget_changes_nothing() -> None:
    """A budget above what is drawn stops, caps and freezes nothing."""
    assert plan(look(one_of_each()), 32_000.0) == Plan(frozenset(), expected_w=32_000.0)


@pytest.mark.parametrize(
    ("budget_w", "stopped"),
    [
        pytest.param(31_900.0, {4}, id="tier 3 first"),
        pytest.param(26_300.0, {4}, id="one is enough"),
        pytest.param(26_100.0, {3, 4}, id="then tier 2"),
        pytest.param(0.0, {3, 4}, id="never tier 1 or 0"),
    ],
)
def test_stops_by_tier(budget_w: float, stopped: set[int]) -> None:
    """Without caps the most tolerant jobs are stopped, and none above its tier."""
    wanted = plan(look(one_of_each()), budget_w)
    assert wanted.stop == stopped
    assert wanted.freeze


def test_a_stopped_gpu_keeps_drawing() -> None:
    """A stop saves what the job drew, less what its GPUs keep drawing, never the whole node."""
    shed_w = sheddable(look([job(1, 3)]))
    assert shed_w[:3] == (0.0, 0.0, 0.0)
    assert shed_w[3] == pytest.approx(NODE_W - 2000.0 - 8 * 25.0)


def test_caps_come_before_stops() -> None:
    """What caps can give is taken before any job is stopped, and tier 0 gets no cap."""
    caps = {f"n{i}": Cap(None) for i in range(1, 5)}
    wanted = plan(look(one_of_each(), caps=caps), 31_000.0)
    assert not wanted.stop
    assert set(wanted.cap_w) == {"n4"}
    assert wanted.expected_w == pytest.approx(31_000.0, abs=10.0)
    assert wanted.expected_w <= 31_000.0
    deep = plan(look(one_of_each(), caps=caps), 10_000.0)
    assert set(deep.cap_w) == {"n2"}
    assert deep.stop == {3, 4}


@pytest.mark.parametrize("tier", [1, 2, 3])
def test_caps_keep_within_the_tier(tier: int) -> None:
    """The deepest cap of a tier slows the worst class of work by no more than the tier tolerates."""
    tolerance_frac = (0.0, 0.10, 0.25, 0.50)[tier]
    assert slow_down_frac(power_floor_frac(tier)) == pytest.approx(tolerance_frac)
    unstoppable = job(1, tier, nodes=("n1", "n2"))
    wanted = plan(look([unstoppable], caps={"n1": Cap(None), "n2": Cap(None)}), 0.0)
    assert not wanted.stop
    assert wanted.slow_frac[1] <= tolerance_frac + 1e-9
    assert min(wanted.cap_w.values()) >= CONFIG.node_max_w - 8 * 350.0


def test_a_node_shared_with_tier_0_is_not_capped() -> None:
    """A cap slows everything on a node, so the strictest tier on it decides."""
    jobs = [job(1, 3, "n1", gpus=4), job(2, 0, "n1", gpus=4)]
    wanted = plan(look(jobs, caps={"n1": Cap(None)}), 7_900.0)
    assert not wanted.cap_w
    assert wanted.stop == {1}


def test_several_nodes_only_when_tagged() -> None:
    """A job on several nodes is stopped only when its comment says that it may."""
    both = job(1, 3, nodes=("n1", "n2"))
    assert not plan(look([both]), 0.0).stop
    assert plan(look([replace(both, comment="vpp:tier=3 vpp:stopsafe")]), 0.0).stop == {1}


def test_an_empty_account_lets_another_take_the_turn() -> None:
    """A stopped job whose account is empty goes on, and another of its tier is stopped instead."""
    jobs = [job(1, 3, state="STOPPED", comment="vpp:tier=3 vpp:held=stop"), job(2, 3)]
    held = Held(touched={1: Touch("stop", 0.0)}, credits={1: Credit(1.0, 0.0, 1.0)}, full_w={"n1": {1: 6000.0}})
    nodes = [node("n1", 2200.0), node("n2")]
    now = picture(CONFIG, jobs, nodes, held, {}, 0.0)
    assert now.available_w == pytest.approx(16_000.0)
    assert plan(now, 12_000.0).stop == {2}


def test_accounts_hold_the_average_within_the_tier() -> None:
    """However a job is stopped whenever its account allows it, it is slowed by no more than its tier, beyond one account."""
    for tier, tolerance_frac in ((2, 0.25), (3, 0.5)):
        full_s = CONFIG.max_pause_s[tier] * (1.0 - tolerance_frac)
        account, stopped_s = Credit(full_s, 0.0, 0.0), 0.0
        for second in range(100_000):
            left_s = account.at(float(second), tier, full_s)
            stop = left_s > 3.0
            account = Credit(left_s, float(second), 1.0 if stop else 0.0)
            stopped_s += stop
        assert stopped_s <= 100_000 * tolerance_frac + full_s + 1.0


def test_shed_hints_name_the_most_tolerant_nodes_first() -> None:
    """Hints for an emergency name nodes of tolerant work first and never one with tier 0."""
    assert [name for name, _ in shed_first(look(one_of_each()))] == ["n4", "n3", "n2"]


def test_nodes_without_a_meter_follow_the_model() -> None:
    """A node that reports no power draws idle power plus its jobs' part of the span."""
    half = job(1, 3, gpus=4)
    now = picture(CONFIG, [half], [node("n1", None)], Held(), {}, 0.0)
    assert now.power_w == pytest.approx(2000.0 + 6400.0 / 2)


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[Job], dict[str, Cap]]:
    """Draw nodes with two jobs each, of any tier, some of them capped."""
    tiers = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8))
    jobs = [
        job(2 * n + k + 1, tier, f"n{n}", gpus=4, cpus=32)
        for n, pair in enumerate(tiers)
        for k, tier in enumerate(pair)
    ]
    capped = draw(st.sets(st.integers(0, len(tiers) - 1)))
    return jobs, {f"n{n}": Cap(None) for n in capped}


@settings(max_examples=150, deadline=None)
@given(clusters(), st.floats(0.0, 1.0))
def test_any_plan_meets_the_budget_or_gives_all(cluster: tuple[list[Job], dict[str, Cap]], part_frac: float) -> None:
    """The draw is within the budget whenever what may be shed reaches so far; tiers 0 and 1 are never stopped."""
    jobs, caps = cluster
    now = look(jobs, caps=caps)
    shed_w = sheddable(now)
    assert shed_w[0] == 0.0
    budget_w = part_frac * now.available_w
    wanted = plan(now, budget_w)
    least_w = now.available_w - sum(shed_w)
    assert wanted.expected_w <= max(budget_w, least_w) + 1.0
    assert all(now.loads[i].tier >= 2 for i in wanted.stop)
    assert all(now.loads[i].tier > 0 for name in wanted.cap_w for i in now.spots[name].full_w if i not in wanted.stop)


@settings(max_examples=150, deadline=None)
@given(clusters(), st.floats(0.0, 1.0))
def test_a_plan_in_force_is_its_own_plan(cluster: tuple[list[Job], dict[str, Cap]], part_frac: float) -> None:
    """Once carried out, the same budget asks for the same stops: applying twice is applying once."""
    jobs, caps = cluster
    now = look(jobs, caps=caps)
    budget_w = part_frac * now.available_w
    wanted = plan(now, budget_w)
    held = Held(
        touched={i: Touch("stop", 0.0) for i in wanted.stop},
        full_w={name: dict(spot.full_w) for name, spot in now.spots.items()},
        cap_w=dict(wanted.cap_w),
    )
    after = [replace(one, state="STOPPED") if one.id in wanted.stop else one for one in jobs]
    nodes = [node(name, wanted.cap_w.get(name, spot.draw_w(wanted.stop))) for name, spot in now.spots.items()]
    again = plan(picture(CONFIG, after, nodes, held, caps, 0.0), budget_w)
    assert again.stop == wanted.stop
    assert again.cap_w == pytest.approx(wanted.cap_w)

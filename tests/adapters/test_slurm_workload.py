"""A Slurm cluster in the planner's words, and a planner's wishes as stops and caps, within what the adapter guards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from adapters._caps import Cap
from adapters._slurm_config import SlurmConfig
from adapters._slurm_jobs import Job, Node
from adapters._slurm_journal import Credit, Held, Touch
from adapters._slurm_plan import power_floor_frac, sheddable
from adapters._slurm_power import Picture, picture
from adapters._slurm_workload import as_plan, workload
from vppd import workload as words
from vppd.workload import Curtailment, Knob

CONFIG = SlurmConfig(
    command_line=True, node_idle_w=2000.0, node_max_w=8400.0, max_pause_s={1: 0.0, 2: 600.0, 3: 1800.0}
)
NODE_W = 8000.0


def job(number: int, tier: int, *nodes: str, **more: object) -> Job:
    """Return a running job that has all GPUs of its nodes."""
    where = nodes or (f"n{number}",)
    size = {"nodes": where, "cpus": 64 * len(where), "gpus": 8 * len(where)}
    return replace(Job(number, "RUNNING", "flex", "ann", comment=f"vpp:tier={tier}"), **{**size, **more})  # type: ignore[arg-type]


def look(jobs: Iterable[Job], capped: Iterable[str] = (), held: Held | None = None, now_s: float = 0.0) -> Picture:
    """Return the picture of jobs on metered nodes, some of which have cap agents."""
    jobs = list(jobs)
    nodes = {name: Node(name, ("flex",), 64, 8, NODE_W) for one in jobs for name in one.nodes}
    caps = {name: Cap(None) for name in capped}
    return picture(CONFIG, jobs, nodes.values(), Held() if held is None else held, caps, now_s)


def told(now: Picture, cap_w: Mapping[str, float] | None = None) -> dict[str, words.Job]:
    """Return the planner's jobs by id."""
    return {one.id: one for one in workload(now, cap_w or {}).jobs}


def test_power_adds_up() -> None:
    """Rest and jobs add up to what is drawn, and to what would be drawn at full speed."""
    now = look([job(1, 3), job(2, 0), job(3, 2, "n3", "n4")])
    load = workload(now, {})
    assert load.power_w == load.full_w == pytest.approx(4 * NODE_W)
    assert load.rest_w == pytest.approx(4 * 2000.0)
    one = told(now)["3"]
    assert (one.full_w, one.power_w, one.tier, one.gpus) == (12_000.0, 12_000.0, 2, 16.0)
    assert one.kept_w == pytest.approx(16 * 25.0)
    assert one.family == "flex/ann"


def test_knobs() -> None:
    """A job has the knob CAP where all of its nodes have agents and nothing of tier 0 is beside it; without caps it has none."""
    halves = [job(1, 3, "a", gpus=4, cpus=32), job(2, 0, "a", gpus=4, cpus=32)]
    now = look([*halves, job(3, 2, "b", "c"), job(4, 1, "d"), job(5, 3, "e")], capped="abde")
    assert {i: one.knob for i, one in told(now).items() if one.knob != Knob.NONE} == {"4": Knob.CAP, "5": Knob.CAP}


def test_jobs_that_share_nodes_are_one_group() -> None:
    """Jobs linked by nodes with agents, over several of them, are one group; the others are alone."""
    half = {"gpus": 4, "cpus": 32}
    jobs = [job(1, 3, "a", **half), job(2, 2, "a", "b", gpus=8, cpus=64), job(3, 1, "b", **half), job(4, 3, "c")]
    groups = {i: one.group for i, one in told(look(jobs, capped="abc")).items()}
    assert groups == {"1": "a", "2": "a", "3": "a", "4": ""}
    assert {one.group for one in told(look(jobs)).values()} == {""}


def test_several_nodes_are_pausable_only_when_tagged() -> None:
    """What the adapter may not stop is not offered as pausable."""
    jobs = [job(1, 3, "a", "b"), job(2, 3, "c", "d", comment="vpp:tier=3 vpp:stopsafe"), job(3, 0), job(4, 1)]
    assert {i: one.pausable for i, one in told(look(jobs)).items()} == {"1": False, "2": True, "3": False, "4": False}


def test_floor_and_curve_count_the_gpus_alone() -> None:
    """The floor is that of the GPUs' limits, and the curve is the worst class's over the part that follows a cap."""
    one = told(look([job(1, 3)], capped=["n1"]))["1"]
    floor_w = CONFIG.node_max_w - 8 * 700.0 * 0.5
    assert one.floor_frac == pytest.approx(1.0 - (NODE_W - floor_w) / 6000.0)
    assert one.curve[0][0] == pytest.approx(one.floor_frac)
    assert one.curve[-1] == (1.0, 1.0)
    assert [p for p, _ in one.curve] == sorted(p for p, _ in one.curve)
    assert one.curve[0][1] < one.curve[0][0] + 0.25


def test_an_empty_account_bounds_the_floor() -> None:
    """A job whose account is empty is capped no deeper than its tier tolerates at any moment; tier 1 never is."""
    held = Held(credits={1: Credit(-1.0, 0.0, 0.0)})
    jobs = told(look([job(1, 2), job(2, 2), job(3, 1)], capped=["n1", "n2", "n3"], held=held))
    assert jobs["1"].floor_frac > jobs["2"].floor_frac
    assert jobs["1"].curve[0][1] == pytest.approx(0.75)
    assert jobs["3"].curve[0][1] == pytest.approx(0.9)


def test_a_stopped_job_is_paused_and_what_is_left_of_its_pause_is_told() -> None:
    """What we stopped is paused at its remembered power, and its longest pause is what its account says."""
    stopped = job(1, 3, state="STOPPED", comment="vpp:tier=3 vpp:held=stop")
    held = Held(
        touched={1: Touch("stop", 0.0)}, credits={1: Credit(900.0, 0.0, 1.0)}, full_w={"n1": {1: NODE_W - 2000.0}}
    )
    one = told(look([stopped], held=held, now_s=100.0))["1"]
    assert (one.paused, one.pausable, one.power_w, one.full_w) == (True, True, None, 6000.0)
    assert one.most_pause_s == pytest.approx(100.0 + (900.0 - 50.0) / 0.5 - 3.0)


def test_somebody_elses_stopped_job_is_rest() -> None:
    """A job that its user has stopped gives nothing and is not told of."""
    users = job(1, 3, state="STOPPED")
    now = picture(CONFIG, [users], [Node("n1", ("flex",), 64, 8, 2200.0)], Held(), {}, 0.0)
    assert not workload(now, {}).jobs
    assert workload(now, {}).full_w == pytest.approx(2200.0)


def test_levels_become_caps_and_read_back_as_levels() -> None:
    """A level is the node's rest plus that part of its jobs, and the cap in force is told as that level again."""
    now = look([job(1, 3), job(2, 2, "b", "c")], capped=["n1", "b", "c"])
    plan = as_plan(now, Curtailment({"1": 0.8, "2": 0.9}), 3 * NODE_W - 2400.0, {})
    assert plan.cap_w == {"n1": 6800.0, "b": 7400.0, "c": 7400.0}
    assert plan.freeze
    assert not plan.refused
    assert plan.expected_w == pytest.approx(6800.0 + 2 * 7400.0)
    levels = {i: one.level_frac for i, one in told(now, plan.cap_w).items()}
    assert levels == pytest.approx({"1": 0.8, "2": 0.9})


def test_a_paused_job_beside_a_slowed_one() -> None:
    """The cap of a node counts what its stopped jobs keep, and the level is that of those that run."""
    halves = [job(1, 3, "a", gpus=4, cpus=32), job(2, 3, "a", gpus=4, cpus=32)]
    now = look(halves, capped=["a"])
    plan = as_plan(now, Curtailment({"1": 0.5, "2": 0.9}, frozenset({"1"})), 4000.0, {})
    assert plan.stop == {1}
    assert plan.cap_w == {"a": max(2000.0 + 100.0 + 2700.0, CONFIG.node_max_w - 2800.0)} or not plan.cap_w


def test_unequal_levels_on_one_node_take_the_mildest() -> None:
    """A planner that wants two levels on one node gets the one that slows nobody more than wished."""
    halves = [job(1, 3, "a", gpus=4, cpus=32), job(2, 3, "a", gpus=4, cpus=32)]
    plan = as_plan(look(halves, capped=["a"]), Curtailment({"1": 0.5, "2": 0.9}), 0.0, {})
    assert plan.cap_w == {"a": NODE_W - 600.0}


def test_a_cap_in_force_stays_for_a_small_rise() -> None:
    """A cap is lowered at once, and raised only for what is worth a write."""
    now = look([job(1, 3)], capped=["n1"])
    for level_frac, expected_w in ((0.79, 6740.0), (0.80, 6800.0), (0.81, 6800.0), (0.9, 7400.0)):
        assert as_plan(now, Curtailment({"1": level_frac}), 0.0, {"n1": 6800.0}).cap_w == {"n1": expected_w}


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Curtailment(paused=frozenset("1")), "job 1: not stopped: it is of tier 0"),
        (Curtailment(paused=frozenset("2")), "job 2: not stopped: its account"),
        (Curtailment(paused=frozenset("3")), "job 3: not stopped: its account"),
        (Curtailment({"1": 0.5}), "job 1: not slowed"),
        (Curtailment({"3": 0.5}), "job 3: not slowed"),
    ],
)
def test_wishes_that_break_a_guard_are_refused(wish: Curtailment, said: str) -> None:
    """Tier 0, an empty account and a job on nodes that cannot all be stopped or capped are left alone, and named."""
    held = Held(credits={2: Credit(1.0, 0.0, 0.0)})
    now = look([job(1, 0, "a"), job(2, 2, "b"), job(3, 3, "c", "d")], capped="ab", held=held)
    plan = as_plan(now, wish, 10_000.0, {})
    assert (plan.stop, plan.cap_w) == (frozenset(), {})
    assert any(text.startswith(said) for text in plan.refused)
    assert plan.expected_w == pytest.approx(now.available_w)


def test_no_wish_goes_below_the_floor() -> None:
    """However deep the level wished, a node is not capped below its floor, nor below what its tier tolerates when the account is empty."""
    now = look([job(1, 3), job(2, 1)], capped=["n1", "n2"])
    plan = as_plan(now, Curtailment({"1": 0.0, "2": 0.0}), 0.0, {})
    assert plan.cap_w["n1"] == CONFIG.node_max_w - 2800.0
    assert plan.slow_frac[2] == pytest.approx(0.10)
    gpu_w = 6000.0 * 8 * 635.0 / 6400.0 + 8 * 65.0
    assert plan.cap_w["n2"] == pytest.approx(NODE_W - gpu_w * (1.0 - power_floor_frac(1)))


def test_jobs_that_have_ended_are_nobodys_trouble() -> None:
    """A wish for a job that is gone says nothing and does nothing."""
    plan = as_plan(look([job(1, 3)]), Curtailment({"9": 0.5}, frozenset({"8"})), 0.0, {})
    assert (plan.stop, plan.cap_w, plan.refused) == (frozenset(), {}, ())


def test_a_planner_that_takes_all_gets_what_the_tiers_offer() -> None:
    """All pauses offered together save what the adapter says that its tiers can shed by stops."""
    now = look([job(tier + 1, tier) for tier in range(4)])
    load = workload(now, {})
    wish = Curtailment(paused=frozenset(one.id for one in load.jobs if one.pausable))
    plan = as_plan(now, wish, 0.0, {})
    assert plan.stop == {3, 4}
    assert plan.expected_w == pytest.approx(now.available_w - sum(sheddable(now)))

"""The pure parts of the Kubernetes adapter: notes on objects, quantities, selectors, and the order of tiers."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapters._k8s_config import KubernetesConfig
from adapters._k8s_held import HELD, hold, is_overridden, restore
from adapters._k8s_kinds import BY_NAME, Resource, Thing, at, merged
from adapters._k8s_pick import Picker
from adapters._k8s_power import Pod, pod_of, quantity
from adapters._k8s_time import parsed_s, text
from adapters._tier_order import TOLERANCE_FRAC, TierOrder
from adapters.kubernetes import connect
from tests.adapters.kubernetes_stub import Body, merge
from vppd.errors import Garbled, Refused
from vppd.ports import Planner
from vppd.workload import Job, Knob, Workload

VALUES = st.one_of(st.none(), st.booleans(), st.integers(0, 20))
SPECS = st.fixed_dictionaries({}, optional={"replicas": st.integers(0, 20), "suspend": st.booleans(), "x": VALUES})
NOW_S = 1_800_000_000.0


def thing(spec: Body, kind: str = "Deployment") -> Thing:
    """Return an object."""
    meta = {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "1", "annotations": {"theirs": "1"}}
    return Thing(Resource(BY_NAME[kind], "v1"), {"metadata": meta, "spec": spec})


def patched(before: Thing, patch: Body | None) -> Thing:
    """Return an object as a server would store it."""
    assert patch is not None
    patch = copy.deepcopy(patch)
    patch["metadata"].pop("resourceVersion", None)
    return Thing(before.resource, merge(copy.deepcopy(dict(before.body)), patch))


@given(spec=SPECS, first=st.integers(0, 20), second=st.integers(0, 20), suspended=st.booleans())
def test_what_is_held_comes_back(spec: Body, first: int, second: int, suspended: bool) -> None:
    """However an object was, holding it once or twice and restoring it leaves it as it was, with nothing of ours on it."""
    spec = {key: value for key, value in spec.items() if value is not None}  # servers store no nulls
    before = thing(spec)
    held = before
    for fields in ({"/spec/replicas": first}, {"/spec/replicas": second, "/spec/suspend": suspended}):
        patch = hold(held, fields, NOW_S, "vppd", {"gpus": 1})
        if patch is not None:
            held = patched(held, patch)
        assert all(at(held.body, pointer) == value for pointer, value in fields.items())
        assert hold(held, fields, NOW_S, "vppd", {}) is None
    after = patched(held, restore(held))
    assert (after.body["spec"], after.annotations, after.labels) == (spec, {"theirs": "1"}, {})


@given(was=st.integers(0, 20), wrote=st.integers(0, 20), theirs=st.integers(0, 20))
def test_somebody_elses_value_stays(was: int, wrote: int, theirs: int) -> None:
    """A value that is not what we wrote is not touched when the note goes."""
    held = patched(
        thing({"replicas": was}), hold(thing({"replicas": was}), {"/spec/replicas": wrote}, NOW_S, "vppd", {})
    )
    changed = patched(held, {"metadata": {}, "spec": {"replicas": theirs}})
    assert is_overridden(changed) == (theirs != wrote)
    assert patched(changed, restore(changed)).body["spec"]["replicas"] == (was if theirs == wrote else theirs)


@pytest.mark.parametrize("note", ["", "{", "[]", '{"was": {}}', '{"was":1,"set":{},"since":"x","by":"","load":{}}'])
def test_a_spoilt_note_is_garbled(note: str) -> None:
    """What cannot be read is not guessed."""
    spoilt = patched(thing({}), {"metadata": {"annotations": {HELD: note}}})
    with pytest.raises(Garbled, match=HELD):
        restore(spoilt)


def test_notes_are_json_patches_by_hand() -> None:
    """The pointers in a note are those of RFC 6902: an annotation with a slash in its name is one of them."""
    fields = {"/metadata/annotations/autoscaling.keda.sh~1paused-replicas": "2"}
    assert merged(fields) == {"metadata": {"annotations": {"autoscaling.keda.sh/paused-replicas": "2"}}}
    held = patched(thing({}), hold(thing({}), fields, NOW_S, "vppd", {"gpus": 2, "millicpus": 500, "pods": 1}))
    assert json.loads(held.annotations[HELD]) == {
        "was": dict.fromkeys(fields),
        "set": fields,
        "since": "2027-01-15T08:00:00Z",
        "by": "vppd",
        "load": {"gpus": 2, "millicpus": 500, "pods": 1},
    }


def test_times() -> None:
    """Times are RFC 3339; what is none is long past."""
    assert parsed_s(text(NOW_S)) == NOW_S
    assert parsed_s("soon") == float("-inf")


@pytest.mark.parametrize(
    ("written", "amount"), [("2", 2), ("500m", 0.5), ("1.5", 1.5), (4, 4), ("2k", 2000), ("1Ki", 1024), ("100n", 1e-7)]
)
def test_quantities(written: object, amount: float) -> None:
    """CPUs and GPUs as Kubernetes writes them."""
    assert float(quantity(written)) == pytest.approx(amount)


@pytest.mark.parametrize("written", ["", "two", "1x", None, "--1"])
def test_nonsense_is_no_quantity(written: object) -> None:
    """What is no number is Garbled."""
    with pytest.raises(Garbled):
        quantity(written)


def test_a_pod_counts_while_it_runs() -> None:
    """GPUs by limits, CPUs by requests, all containers; one that does not run draws nothing, one that ends still does."""
    asked = {"limits": {"nvidia.com/gpu": "2", "cpu": "4"}, "requests": {"cpu": "250m"}}
    body = {
        "metadata": {"uid": "u", "namespace": "n", "name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"resources": asked}, {"resources": asked}, {}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    config = KubernetesConfig(in_cluster=True)
    pod = pod_of(config, body)
    assert pod == Pod("u", "n", "p", {}, "10.0.0.1", 4, 500, ending=True, ready=True)
    assert pod_of(config, {**body, "status": {"phase": "Succeeded"}}) is None


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        ({"key": "x", "operator": "In", "values": ["1", "2"]}, {"one", "two"}),
        ({"key": "x", "operator": "NotIn", "values": ["1"]}, {"two", "none"}),
        ({"key": "x", "operator": "Exists"}, {"one", "two"}),
        ({"key": "x", "operator": "DoesNotExist"}, {"none"}),
    ],
)
def test_selectors(rule: Body, names: set[str]) -> None:
    """All four operators of label selectors, beside labels, in the object's own namespace."""
    labels = {"one": {"x": "1"}, "two": {"x": "2"}, "none": {}}
    pods = [Pod(k, "n", k, {"app": "a", **v}, "", 0, 0, ending=False, ready=True) for k, v in labels.items()]
    pods.append(Pod("z", "other", "z", {"app": "a", "x": "1"}, "", 0, 0, ending=False, ready=True))
    selector = {"matchLabels": {"app": "a"}, "matchExpressions": [rule]}
    assert {pod.name for pod in Picker(pods).pods(thing({"selector": selector}))} == names


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"in_cluster": True, "kubeconfig": "x"},
        {"in_cluster": True, "context": "c"},
        {"in_cluster": True, "gpu_w": 1.0},
    ],
)
def test_connections_that_cannot_be_meant(wrong: Body) -> None:
    """One way to the cluster, kinds that there are, and powers in order."""
    with pytest.raises(ValidationError):
        KubernetesConfig.model_validate(wrong)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the client library the configuration is refused, with what to install."""
    monkeypatch.setattr("adapters._k8s_config.find_spec", lambda name: None)
    with pytest.raises(ValidationError, match=r"vppd\[kubernetes\]"):
        KubernetesConfig(in_cluster=True)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "clusters: []"])
async def test_credentials_that_cannot_be_used_are_refused(tmp_path: Path, text: str) -> None:
    """A kubeconfig that is missing, no YAML or not complete leaves the asset down, with a reason, and nothing else."""
    path = tmp_path / "kubeconfig"
    if text:
        path.write_text(text)
    with pytest.raises(Refused):
        async with connect(KubernetesConfig(kubeconfig=path)):
            pass


JOBS = st.builds(
    lambda number, tier, full_w, pausable, floor_frac, paused: Job(
        str(number),
        tier,
        full_w,
        knob=Knob.NONE if pausable else Knob.REPLICAS,
        floor_frac=1.0 if pausable else floor_frac,
        pausable=pausable,
        paused=pausable and paused,
    ),
    st.integers(0, 10**9),
    st.integers(0, 3),
    st.floats(1.0, 1e5),
    st.booleans(),
    st.floats(0.0, 1.0),
    st.booleans(),
)
WORKLOADS = st.builds(
    lambda jobs: Workload(tuple(jobs), 1000.0, 1000.0), st.lists(JOBS, max_size=12, unique_by=lambda job: job.id)
)


@given(workload=WORKLOADS, part=st.floats(0.0, 1.2))
def test_the_order_of_tiers(workload: Workload, part: float) -> None:
    """The budget is kept or the shortfall told; nobody is slowed beyond its tier or its floor; a less tolerant tier gives last."""
    order: Planner = TierOrder()
    budget_w = part * workload.full_w
    plan = order.plan(workload, budget_w, 0.0)
    by_id = {job.id: job for job in workload.jobs}
    drawn_w = workload.rest_w + sum(
        0.0 if job.id in plan.paused else job.full_w * plan.level_frac.get(job.id, 1.0) for job in workload.jobs
    )
    assert plan.expected_w == pytest.approx(drawn_w)
    assert drawn_w <= budget_w + plan.short_w + 1e-6 * workload.full_w
    for key, level_frac in plan.level_frac.items():
        job = by_id[key]
        assert job.tier > 0
        assert level_frac >= max(job.floor_frac, 1.0 - TOLERANCE_FRAC[job.tier]) - 1e-9
    assert all(by_id[key].pausable and by_id[key].tier > 0 for key in plan.paused)
    touched = {by_id[key].tier for key in (*plan.level_frac, *plan.paused)}
    shed_w = order.shed_w(workload)
    for tier in touched - {3}:
        more_w = sum(shed_w[higher] for higher in range(tier + 1, 4))
        assert workload.full_w - budget_w > more_w - 1e-6 * workload.full_w - 1.0
    if plan.short_w > 1e-6 * workload.full_w:
        assert workload.full_w - plan.expected_w == pytest.approx(sum(shed_w))

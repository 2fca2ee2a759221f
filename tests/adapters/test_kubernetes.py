"""The Kubernetes adapter against a small API server: what it touches, what it reads back, and that all of it comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.kubernetes import connect
from tests.adapters.kubernetes_rig import GPU_W, IDLE_W, cluster, config, limit, replicas, until
from tests.adapters.kubernetes_stub import HPAS, Stub, stub_server
from vppd.errors import Refused, Unreachable


async def test_a_reading_counts_running_pods_and_idle_nodes(tmp_path: Path) -> None:
    """Power is idle nodes plus running pods; what each tier could shed is told; nothing is written by reading."""

    def prepare(stub: Stub) -> None:
        stub.deployment("chat", 3, 4)
        stub.job("train", 2, 2)
        stub.deployment("firm", None, 1)

    async with cluster(tmp_path, prepare) as (stub, device):
        sample = await device.read()
        assert sample.power_w == sample.available_w == pytest.approx(IDLE_W + 7 * GPU_W)
        assert sample.tier_shed_w == pytest.approx((0.0, 0.0, 2 * GPU_W, 2 * GPU_W))
        assert (sample.setpoint_w, sample.fault) == (None, "")
        assert not [path for method, path in stub.requests if method != "GET"]


async def test_tiers_give_in_order_and_all_comes_back(tmp_path: Path) -> None:
    """Tier 3 loses replicas before tier 2 is paused; a released cluster is as it was, with no mark left but the rest of a job."""

    def prepare(stub: Stub) -> None:
        stub.deployment("chat", 3, 4)
        stub.job("train", 2, 2)

    async with cluster(tmp_path, prepare) as (stub, device):
        chat, train = (next(p for p in stub.objects if p.endswith(name)) for name in ("/chat", "/train"))
        full_w = IDLE_W + 6 * GPU_W
        assert (await limit(device, full_w - 1.5 * GPU_W)).power_w == full_w - 1.5 * GPU_W
        assert (replicas(stub, chat), stub.objects[train]["spec"].get("suspend")) == (2, None)
        assert (await limit(device, full_w - 4 * GPU_W)).power_w == full_w - 4 * GPU_W
        assert (replicas(stub, chat), stub.objects[train]["spec"].get("suspend")) == (2, True)
        sample = await device.read()
        assert sample.power_w == pytest.approx(full_w - 4 * GPU_W)
        assert sample.available_w == pytest.approx(full_w)
        assert sample.setpoint_w == full_w - 4 * GPU_W
        await device.release()
        assert (replicas(stub, chat), stub.objects[train]["spec"].get("suspend")) == (4, None)
        assert stub.held() == []
        assert "vpp.held" not in stub.objects[chat]["metadata"]["labels"]


async def test_whole_replicas_stay_within_the_tier(tmp_path: Path) -> None:
    """One of three replicas is more than the quarter that tier 2 accepts: without a planner's accounts none goes."""
    async with cluster(tmp_path, lambda stub: stub.deployment("chat", 2, 3)) as (stub, device):
        assert sum((await device.read()).tier_shed_w) == 0.0
        assert (await limit(device, IDLE_W)).power_w == pytest.approx(IDLE_W + 3 * GPU_W)
        assert len(stub.pods("chat")) == 3


async def test_only_opted_in_objects_are_touched(tmp_path: Path) -> None:
    """Whatever the budget, an object without the label, or with tier 0 or nonsense in it, is never written."""

    def prepare(stub: Stub) -> None:
        stub.deployment("flexible", 3, 4)
        for name, tier in (("bare", None), ("zero", 0), ("four", 4)):
            stub.deployment(name, tier, 2)

    async with cluster(tmp_path, prepare) as (stub, device):
        applied = await limit(device, 0.0)
        assert applied.power_w is not None
        assert applied.power_w > 1.0
        assert "short by" in applied.detail
        written = {path.rsplit("/", 1)[1] for method, path in stub.requests if method == "PATCH"}
        assert written == {"flexible"}


async def test_what_a_server_drops_is_no_success(tmp_path: Path) -> None:
    """A server that drops ``suspend`` gets ``parallelism`` 0; the note tells the old value, which comes back."""

    def prepare(stub: Stub) -> None:
        stub.drops.add("jobs")
        stub.job("train", 3, 3)

    async with cluster(tmp_path, prepare) as (stub, device):
        (train,) = (p for p in stub.objects if p.endswith("/train"))
        await limit(device, IDLE_W)
        assert stub.objects[train]["spec"]["parallelism"] == 0
        assert json.loads(stub.objects[train]["metadata"]["annotations"]["vpp.held"])["was"] == {"/spec/parallelism": 3}
        assert stub.pods("train") == []
        await device.release()
        assert (stub.objects[train]["spec"]["parallelism"], stub.held()) == (3, [])


async def test_a_dropped_field_without_another_way_is_reported(tmp_path: Path) -> None:
    """A RayCluster whose server drops ``suspend`` counts as running, is named in the detail, and carries no note afterwards."""

    def prepare(stub: Stub) -> None:
        stub.drops.add("rayclusters")
        ray(stub, "llm")

    async with cluster(tmp_path, prepare) as (stub, device):
        applied = await limit(device, IDLE_W)
        assert applied.power_w == pytest.approx(IDLE_W + GPU_W)
        assert "RayCluster/default/llm" in applied.detail
        assert "spec.suspend reads back null" in applied.detail
        assert stub.held() == []


async def test_a_refused_object_is_named_and_others_give_instead(tmp_path: Path) -> None:
    """What may not be written is left out of the next plan, in the same call; the detail says what was refused."""

    def prepare(stub: Stub) -> None:
        stub.refuses["PATCH", stub.job("locked", 3, 2)] = 403
        stub.job("open", 2, 2)

    async with cluster(tmp_path, prepare) as (stub, device):
        full_w = IDLE_W + 4 * GPU_W
        applied = await limit(device, full_w - GPU_W)
        assert applied.power_w == full_w - GPU_W
        assert "Job/default/locked: HTTP 403" in applied.detail
        assert (len(stub.pods("locked")), len(stub.pods("open"))) == (2, 0)


async def test_a_stale_write_is_read_again(tmp_path: Path) -> None:
    """Somebody who changes the object between our reading and our writing loses nothing, and neither do we."""
    async with cluster(tmp_path, lambda stub: stub.deployment("chat", 3, 4)) as (stub, device):
        (chat,) = (p for p in stub.objects if p.endswith("/chat"))
        once = iter((True,))

        def meddle(path: str) -> None:
            if next(once, False):
                stub.change(chat, {"metadata": {"annotations": {"theirs": "1"}}})

        stub.before_patch = meddle
        await limit(device, IDLE_W + 2 * GPU_W)
        assert replicas(stub, chat) == 2
        assert stub.objects[chat]["metadata"]["annotations"]["theirs"] == "1"
        assert [method for method, path in stub.requests if path == chat].count("PATCH") == 2


async def test_users_own_changes_win(tmp_path: Path) -> None:
    """Replicas that somebody sets while we hold them stay as set, during the event and after it; only our note goes."""
    async with cluster(tmp_path, lambda stub: stub.deployment("chat", 3, 4)) as (stub, device):
        (chat,) = (p for p in stub.objects if p.endswith("/chat"))
        await limit(device, IDLE_W + 2 * GPU_W)
        stub.change(chat, {"spec": {"replicas": 3}})
        applied = await limit(device, IDLE_W + 2 * GPU_W)
        assert replicas(stub, chat) == 3
        assert applied.power_w == pytest.approx(IDLE_W + 3 * GPU_W) or applied.detail
        assert "left alone" in applied.detail
        assert (await device.read()).fault == ""  # one object is no reason to give up the whole cluster
        await device.release()
        assert (replicas(stub, chat), stub.held()) == (3, [])


async def test_an_object_that_loses_its_label_is_given_back(tmp_path: Path) -> None:
    """Whoever opts out in the middle of an event has their replicas back within a round."""
    async with cluster(tmp_path, lambda stub: stub.deployment("chat", 3, 4)) as (stub, device):
        (chat,) = (p for p in stub.objects if p.endswith("/chat"))
        await limit(device, IDLE_W + 2 * GPU_W)
        stub.change(chat, {"metadata": {"labels": {"vpp.flex-tier": None}}})
        await until(lambda: replicas(stub, chat) == 4)
        assert stub.held() == []


async def test_an_ended_lease_gives_everything_back(tmp_path: Path) -> None:
    """Without renewal the cluster is as it was, though nobody asks."""
    async with cluster(tmp_path, lambda stub: stub.deployment("chat", 3, 4)) as (stub, device):
        await limit(device, IDLE_W, lease_s=0.5)
        assert stub.held()
        await until(lambda: not stub.held())
        assert len(stub.pods("chat")) == 4
        assert (await device.read()).setpoint_w is None


async def test_new_work_is_held_while_the_budget_binds(tmp_path: Path) -> None:
    """A job that starts in the middle of an event is paused with the next round."""
    async with cluster(tmp_path, lambda stub: stub.job("first", 3, 2)) as (stub, device):
        await limit(device, IDLE_W)
        stub.job("second", 3, 2)
        await until(lambda: not stub.pods("second"))
        await device.release()
        assert (len(stub.pods("first")), len(stub.pods("second"))) == (2, 2)


async def test_a_pause_has_an_end_and_then_a_rest(tmp_path: Path) -> None:
    """A pause longer than its tier allows is ended though the budget still binds, and is not begun again at once."""
    async with cluster(tmp_path, lambda stub: stub.job("train", 3, 2), max_pause_s={3: 30.0}) as (stub, device):
        (train,) = (p for p in stub.objects if p.endswith("/train"))
        await limit(device, IDLE_W)
        note = json.loads(stub.objects[train]["metadata"]["annotations"]["vpp.held"])
        note["since"] = "2020-01-01T00:00:00Z"  # as if it had been paused for long
        stub.change(train, {"metadata": {"annotations": {"vpp.held": json.dumps(note)}}})
        await until(lambda: len(stub.pods("train")) == 2)
        applied = await limit(device, IDLE_W)
        assert "short by" in applied.detail or applied.power_w == IDLE_W
        assert len(stub.pods("train")) == 2
        assert stub.objects[train]["metadata"]["annotations"]["vpp.rests-until"] > note["since"]


async def test_the_autoscaler_is_held_too(tmp_path: Path) -> None:
    """An HPA gets a lower ceiling with the workload and its own back with it; its floor is the workload's."""

    def prepare(stub: Stub) -> None:
        stub.deployment("chat", 3, 4)
        ref = {"kind": "Deployment", "name": "chat", "apiVersion": "apps/v1"}
        spec = {"scaleTargetRef": ref, "minReplicas": 3, "maxReplicas": 10}
        stub.put(f"{HPAS}/namespaces/default/horizontalpodautoscalers/chat", {"spec": spec})

    async with cluster(tmp_path, prepare) as (stub, device):
        chat = next(p for p in stub.objects if "/deployments/" in p)
        hpa = next(p for p in stub.objects if "/horizontalpod" in p)
        await limit(device, IDLE_W)
        assert (replicas(stub, chat), stub.objects[hpa]["spec"]["maxReplicas"]) == (3, 3)
        await device.release()
        assert (replicas(stub, chat), stub.objects[hpa]["spec"]["maxReplicas"], stub.held()) == (4, 10, [])


async def test_kueue_is_asked_instead_of_its_jobs(tmp_path: Path) -> None:
    """A queued job is paused by its Workload: what others do to the job itself, Kueue undoes."""

    def prepare(stub: Stub) -> None:
        job = stub.objects[stub.job("train", 3, 2, {"kueue.x-k8s.io/queue-name": "q"})]
        meta = {"name": "train-w", "ownerReferences": [{"uid": job["metadata"]["uid"]}]}
        stub.put("/apis/kueue.x-k8s.io/v1beta1/namespaces/default/workloads/train-w", {"metadata": meta, "spec": {}})

    async with cluster(tmp_path, prepare) as (stub, device):
        work = next(p for p in stub.objects if "/workloads/" in p)
        train = next(p for p in stub.objects if "/jobs/" in p)
        version = stub.objects[train]["metadata"]["resourceVersion"]
        await limit(device, IDLE_W)
        assert stub.objects[work]["spec"] == {"active": False}
        assert stub.objects[train]["metadata"]["resourceVersion"] == version
        await device.release()
        assert stub.objects[work]["spec"] == {}


async def test_a_queue_label_without_kueue_means_nothing(tmp_path: Path) -> None:
    """Where Kueue is not installed a job is paused by itself."""
    labels = {"kueue.x-k8s.io/queue-name": "q"}
    async with cluster(tmp_path, lambda stub: stub.job("train", 3, 2, labels), kueue=False) as (stub, device):
        await limit(device, IDLE_W)
        assert stub.pods("train") == []


async def test_a_whole_queue_is_drained(tmp_path: Path) -> None:
    """An opted-in LocalQueue gives what its status says it uses; its jobs then give nothing of their own."""

    def prepare(stub: Stub) -> None:
        usage = [
            {"name": "gpu", "resources": [{"name": "nvidia.com/gpu", "total": "2"}, {"name": "cpu", "total": "4"}]}
        ]
        meta = {"name": "q", "labels": {"vpp.flex-tier": "3"}}
        body = {
            "metadata": meta,
            "spec": {"clusterQueue": "all", "stopPolicy": "None"},
            "status": {"flavorsUsage": usage},
        }
        stub.put("/apis/kueue.x-k8s.io/v1beta1/namespaces/default/localqueues/q", body)
        job = stub.objects[stub.job("train", 3, 2, {"kueue.x-k8s.io/queue-name": "q"})]
        owned = {"name": "train-w", "ownerReferences": [{"uid": job["metadata"]["uid"]}]}
        stub.put("/apis/kueue.x-k8s.io/v1beta1/namespaces/default/workloads/train-w", {"metadata": owned, "spec": {}})

    async with cluster(tmp_path, prepare) as (stub, device):
        queue = next(p for p in stub.objects if "/localqueues/" in p)
        assert (await device.read()).tier_shed_w == pytest.approx((0.0, 0.0, 0.0, 2 * GPU_W))
        await limit(device, IDLE_W)
        assert stub.objects[queue]["spec"]["stopPolicy"] == "HoldAndDrain"
        assert stub.held() == [queue]
        await device.release()
        assert stub.objects[queue]["spec"]["stopPolicy"] == "None"


async def test_a_note_that_cannot_be_read_is_left_alone_and_told(tmp_path: Path) -> None:
    """A note that somebody has spoilt: the object is not touched, and the detail says which."""
    async with cluster(tmp_path, lambda stub: stub.deployment("chat", 3, 4)) as (stub, device):
        (chat,) = (p for p in stub.objects if p.endswith("/chat"))
        stub.change(chat, {"metadata": {"annotations": {"vpp.held": "{"}}})
        applied = await limit(device, IDLE_W)
        assert replicas(stub, chat) == 4
        assert "annotation vpp.held cannot be read" in applied.detail


async def test_a_successor_restores_what_it_finds(tmp_path: Path) -> None:
    """After a lost link everything stays held; the next connection finds it, and gives it back when nobody claims it."""
    async with stub_server(tmp_path) as (stub, path):
        stub.deployment("chat", 3, 4)
        with pytest.raises(Unreachable, match="lost"):
            await lose(path)
        assert len(stub.held()) == 1
        async with connect(config(path)) as device:
            sample = await device.read()
            assert sample.available_w == pytest.approx(IDLE_W + 4 * GPU_W)
            await until(lambda: not stub.held())
        assert len(stub.pods("chat")) == 4


async def test_a_kind_that_may_not_be_listed_is_told(tmp_path: Path) -> None:
    """Missing rights for one kind leave the others working, and are named."""

    def prepare(stub: Stub) -> None:
        stub.deployment("chat", 3, 4)
        stub.refuses["GET", "/apis/ray.io/v1/rayjobs"] = 403

    async with cluster(tmp_path, prepare) as (stub, device):
        assert "RayJob cannot be listed" in (await limit(device, IDLE_W + 2 * GPU_W)).detail
        assert len(stub.pods("chat")) == 2


async def test_a_renewed_token_is_read_again(tmp_path: Path) -> None:
    """A token that the server no longer takes is read from its file once more; one that stays wrong is Refused."""
    async with cluster(tmp_path, lambda stub: stub.deployment("chat", 3, 4)) as (stub, device):
        stub.token = "second"
        with pytest.raises(Refused, match="401"):
            await device.read()
        (tmp_path / "token").write_text("second")
        assert (await limit(device, IDLE_W + 2 * GPU_W)).power_w == IDLE_W + 2 * GPU_W


async def test_nodes_that_may_not_be_listed_count_for_nothing(tmp_path: Path) -> None:
    """Without the right to see nodes only pods are counted, and the detail says so."""
    async with cluster(tmp_path, lambda s: s.refuses.update({("GET", "/api/v1/nodes"): 403})) as (stub, device):
        stub.deployment("chat", 3, 4)
        await until(lambda: bool(stub.requests))
        sample = await device.read()
        assert sample.power_w is not None
        assert sample.power_w <= 4 * GPU_W
        assert "Node cannot be listed" in (await limit(device, 0.0)).detail


async def test_what_cannot_be_restored_is_refused(tmp_path: Path) -> None:
    """A release that leaves something held says so."""
    async with cluster(tmp_path, lambda stub: stub.deployment("chat", 3, 4)) as (stub, device):
        (chat,) = (p for p in stub.objects if p.endswith("/chat"))
        await limit(device, IDLE_W)
        stub.refuses["PATCH", chat] = 403
        with pytest.raises(Refused, match="chat"):
            await device.release()
        assert "chat is not restored" in (await device.read()).fault
        stub.refuses.clear()
        await device.release()


async def lose(path: Path) -> None:
    """Hold a cluster down and lose it."""
    async with connect(config(path)) as device:
        await limit(device, IDLE_W)
        raise Unreachable("lost")


def ray(stub: Stub, name: str) -> None:
    """Make a RayCluster with one pod."""
    stub.put(
        f"/apis/ray.io/v1/namespaces/default/rayclusters/{name}",
        {"metadata": {"labels": {"vpp.flex-tier": "3"}}, "spec": {}},
    )
    resources = {"limits": {"nvidia.com/gpu": "1"}, "requests": {"cpu": "2"}}
    stub.put(
        f"/api/v1/namespaces/default/pods/{name}-head",
        {
            "metadata": {"labels": {"ray.io/cluster": name}},
            "spec": {"containers": [{"name": "c", "resources": resources}]},
            "status": {"phase": "Running"},
        },
    )

"""Custom resources on a real API server, which prunes what their definitions do not know."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.kubernetes.room import GPU_W, Body, Room, limit
from tests.servers.kubernetes import KubernetesServer, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
KUEUE, RAY, KUBEFLOW, JOB_SET = "kueue.x-k8s.io/v1beta1", "ray.io/v1", "kubeflow.org/v1", "jobset.x-k8s.io/v1alpha2"
QUEUE = "kueue.x-k8s.io/queue-name"


@pytest.fixture(scope="module", autouse=True)
def _definitions(kubernetes: KubernetesServer) -> Iterator[None]:
    """The definitions, known to the server."""
    kubernetes.apply(Path(__file__).with_name("crds.yaml"))
    served = [f"/apis/{RAY}/rayjobs", f"/apis/{KUEUE}/clusterqueues", "/apis/keda.sh/v1alpha1/scaledobjects"]
    served += [f"/apis/{JOB_SET}/jobsets", f"/apis/{KUBEFLOW}/pytorchjobs"]
    until(lambda: all(kubernetes.call("GET", path).status_code == httpx.codes.OK for path in served), "they are served")
    yield
    for queue in kubernetes.items(f"/apis/{KUEUE}/clusterqueues"):
        kubernetes.call("DELETE", f"/apis/{KUEUE}/clusterqueues/{queue['metadata']['name']}")


@pytest.mark.parametrize(
    ("group", "plural", "kind", "label", "paused"),
    [
        (RAY, "rayclusters", "RayCluster", "ray.io/cluster", {"suspend": True}),
        (KUBEFLOW, "pytorchjobs", "PyTorchJob", "training.kubeflow.org/job-name", {"runPolicy": {"suspend": True}}),
    ],
)
async def test_suspend_fields(room: Room, group: str, plural: str, kind: str, label: str, paused: Body) -> None:
    """Its own suspend field is set, noted and taken away again; pods that nobody ends are told."""
    path = await asyncio.to_thread(room.custom, group, plural, kind, "llm", 3)
    await asyncio.to_thread(room.pod, "llm-head", {label: "llm"})
    async with room.connect() as device:
        assert (await device.read()).tier_shed_w == pytest.approx((0.0, 0.0, 0.0, GPU_W))
        applied = await limit(device, 0.0)
        assert room.spec(path) == paused
        assert "1 pods of paused work still run" in applied.detail  # there is no operator here that would end them
        assert (await device.read()).power_w == pytest.approx(GPU_W)
        await device.release()
    assert not room.spec(path).get("suspend")
    assert not room.spec(path).get("runPolicy", {}).get("suspend")
    assert room.note(path) is None


async def test_a_ray_job_is_known_by_its_cluster(room: Room) -> None:
    """The pods of a RayJob are those of the cluster that it has made."""
    path = await asyncio.to_thread(room.custom, RAY, "rayjobs", "RayJob", "tune", 3)
    await asyncio.to_thread(room.server.patch, path, {"status": {"rayClusterName": "tune-raycluster-x"}})
    await asyncio.to_thread(room.pod, "tune-head", {"ray.io/cluster": "tune-raycluster-x"})
    async with room.connect() as device:
        await limit(device, 0.0)
        assert room.spec(path) == {"suspend": True}


async def test_a_field_that_the_server_prunes_is_a_failure(room: Room) -> None:
    """A JobSet whose definition knows no suspend is named as not in force, counts in full, and keeps no note."""
    path = await asyncio.to_thread(room.custom, JOB_SET, "jobsets", "JobSet", "old", 3, {"replicatedJobs": ["a"]})
    await asyncio.to_thread(room.pod, "old-0", {"jobset.sigs.k8s.io/jobset-name": "old"})
    async with room.connect() as device:
        applied = await limit(device, 0.0)
        assert applied.power_w == pytest.approx(GPU_W)
        assert f"JobSet/{room.name}/old: the server did not keep it: spec.suspend reads back null" in applied.detail
    assert room.note(path) is None


async def test_a_queued_job_is_stopped_by_kueue(room: Room) -> None:
    """Its Workload is made inactive; the job itself, which Kueue would set right again, is not written."""
    job = await asyncio.to_thread(room.job, "train", 3, 2, {QUEUE: "team"})
    uid = room.server.get(job)["metadata"]["uid"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "train", "uid": uid}
    meta = {"name": "job-train", "ownerReferences": [owner]}
    work = room.path(f"/apis/{KUEUE}", "workloads", "job-train")
    body = {"apiVersion": KUEUE, "kind": "Workload", "metadata": meta, "spec": {"queueName": "team"}}
    room.server.make(room.path(f"/apis/{KUEUE}", "workloads"), body)
    async with room.connect() as device:
        await limit(device, 0.0)
        assert room.spec(work)["active"] is False
        assert "vppd" not in room.writers(job)
        await device.release()
    assert (room.spec(work)["active"], room.note(work)) == (True, None)


async def test_queues_are_drained_as_a_whole(room: Room) -> None:
    """A LocalQueue and a ClusterQueue give what they say is in use; the policy they had comes back."""
    usage = [{"name": "h100", "resources": [{"name": "nvidia.com/gpu", "total": "4"}, {"name": "cpu", "total": "2"}]}]
    meta = {"name": room.name, "labels": {"vpp.flex-tier": "2"}}
    whole = {
        "apiVersion": KUEUE,
        "kind": "ClusterQueue",
        "metadata": meta,
        "spec": {},
        "status": {"flavorsUsage": usage},
    }
    room.server.make(f"/apis/{KUEUE}/clusterqueues", whole)
    local = room.custom(KUEUE, "localqueues", "LocalQueue", "team", 3, {"clusterQueue": "other", "stopPolicy": "Hold"})
    room.server.patch(local, {"status": {"flavorUsage": usage}})
    queue = f"/apis/{KUEUE}/clusterqueues/{room.name}"
    async with room.connect(kinds=("LocalQueue", "ClusterQueue")) as device:
        assert (await device.read()).tier_shed_w == pytest.approx((0.0, 0.0, 4 * GPU_W, 4 * GPU_W))
        await limit(device, 0.0)
        assert [room.spec(path)["stopPolicy"] for path in (local, queue)] == ["HoldAndDrain", "HoldAndDrain"]
        await device.release()
    assert [room.spec(path)["stopPolicy"] for path in (local, queue)] == ["Hold", "None"]


async def test_keda_is_paused_at_the_lower_count(room: Room) -> None:
    """A ScaledObject is told to stay at the count we set, so that it does not scale against us, and is freed again."""
    chat = await asyncio.to_thread(room.deployment, "chat", 3, 4)
    spec = {"scaleTargetRef": {"name": "chat"}, "minReplicaCount": 1}
    body = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "chat"}, "spec": spec}
    room.server.make(room.path("/apis/keda.sh/v1alpha1", "scaledobjects"), body)
    scaler = room.path("/apis/keda.sh/v1alpha1", "scaledobjects", "chat")
    paused = "autoscaling.keda.sh/paused-replicas"
    async with room.connect() as device:
        await limit(device, 2 * GPU_W)
        assert room.server.get(scaler)["metadata"]["annotations"][paused] == "2"
        assert room.spec(chat)["replicas"] == 2
        await device.release()
    assert paused not in (room.server.get(scaler)["metadata"].get("annotations") or {})
    assert room.spec(chat)["replicas"] == 4

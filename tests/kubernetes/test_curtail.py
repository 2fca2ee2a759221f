"""Replicas and jobs of a real cluster: curtailed, seen to end by their pods, and restored."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.kubernetes.room import APPS, GPU_W, Room, draws, limit, within

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
HPAS = "/apis/autoscaling/v1"


async def test_deployments_statefulsets_and_jobs_are_curtailed_and_restored(room: Room) -> None:
    """Each gives what its tier allows, pods are seen to end, one that is not opted in is left alone, and all comes back."""
    chat = await asyncio.to_thread(room.deployment, "chat", 3, 4)
    store = await asyncio.to_thread(room.deployment, "store", 2, 4, "statefulsets")
    train = await asyncio.to_thread(room.job, "train", 3, 2)
    firm = await asyncio.to_thread(room.deployment, "firm", None, 1)
    async with room.connect() as device:
        free = await device.read()
        assert free.power_w == free.available_w == pytest.approx(11 * GPU_W)
        assert free.tier_shed_w == pytest.approx((0.0, 0.0, GPU_W, 4 * GPU_W))
        assert (await limit(device, 6 * GPU_W)).power_w == 6 * GPU_W
        await draws(device, 6 * GPU_W)
        assert [room.running(name) for name in ("chat", "store", "train", "firm")] == [2, 3, 0, 1]
        assert (await device.read()).available_w == pytest.approx(11 * GPU_W)
        # this server knows no suspend: it is dropped without a word, and parallelism tells instead
        assert (room.spec(train)["parallelism"], "suspend" in room.spec(train)) == (0, False)
        assert (room.note(train) or {})["was"] == {"/spec/parallelism": 2}
        await device.release()
        await draws(device, 11 * GPU_W)
        assert [room.running(name) for name in ("chat", "store", "train", "firm")] == [4, 4, 2, 1]
    assert [room.note(path) for path in (chat, store, train)] == [None, None, None]
    assert "vppd" in room.writers(chat)
    assert "vppd" not in room.writers(firm)
    assert "failed" not in room.server.get(train).get("status", {})


async def test_the_autoscaler_follows_and_gets_its_own_back(room: Room) -> None:
    """The controllers' own HPA does not undo the curtailment, and has its old ceiling afterwards."""
    chat = await asyncio.to_thread(room.deployment, "chat", 3, 4)
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat"}
    spec = {"scaleTargetRef": ref, "minReplicas": 2, "maxReplicas": 10, "targetCPUUtilizationPercentage": 50}
    room.server.make(room.path(HPAS, "horizontalpodautoscalers"), {"metadata": {"name": "chat"}, "spec": spec})
    hpa = room.path(HPAS, "horizontalpodautoscalers", "chat")
    async with room.connect() as device:
        await limit(device, 2 * GPU_W)
        await draws(device, 2 * GPU_W)
        assert (room.spec(chat)["replicas"], room.spec(hpa)["maxReplicas"]) == (2, 2)
        await asyncio.sleep(2.5)  # the autoscaler looks every second
        assert room.running("chat") == 2
        await device.release()
        await within(30.0, "the replicas are back", lambda: room.running("chat") == 4)
    assert (room.spec(hpa)["minReplicas"], room.spec(hpa)["maxReplicas"], room.note(hpa)) == (2, 10, None)


async def test_a_deployment_that_changes_all_the_time_is_written_nevertheless(room: Room) -> None:
    """Stale writes are refused by the server and done again with what there is then; nobody's change is lost."""
    chat = await asyncio.to_thread(room.deployment, "chat", 3, 4)
    stop = threading.Event()
    count = 0

    def meddle() -> None:
        nonlocal count
        while not stop.wait(0.02):
            count += 1
            room.server.patch(chat, {"metadata": {"annotations": {"theirs": str(count)}}})

    meddling = asyncio.create_task(asyncio.to_thread(meddle))
    try:
        async with room.connect() as device:
            await limit(device, 2 * GPU_W)
            assert room.spec(chat)["replicas"] == 2
            await device.release()
    finally:
        stop.set()
        await meddling
    annotations = room.server.get(chat)["metadata"]["annotations"]
    assert (room.spec(chat)["replicas"], annotations["theirs"]) == (4, str(count))


async def test_users_own_changes_win(room: Room) -> None:
    """Replicas set by an administrator in the middle of an event stay as set."""
    chat = await asyncio.to_thread(room.deployment, "chat", 3, 4)
    async with room.connect() as device:
        await limit(device, 2 * GPU_W)
        room.server.patch(f"{APPS}/namespaces/{room.name}/deployments/chat/scale", {"spec": {"replicas": 5}})
        applied = await limit(device, 2 * GPU_W)
        assert "short by" in applied.detail
        assert room.spec(chat)["replicas"] == 5
        await device.release()
    assert (room.spec(chat)["replicas"], room.note(chat)) == (5, None)


async def test_a_lease_that_ends_gives_everything_back(room: Room) -> None:
    """Without renewal the pods come back, though nobody asks."""
    await asyncio.to_thread(room.deployment, "chat", 3, 4)
    async with room.connect() as device:
        await limit(device, 2 * GPU_W, lease_s=1.0)
        await draws(device, 2 * GPU_W)
        await draws(device, 4 * GPU_W)
        assert (await device.read()).setpoint_w is None

"""Kills and restarts in the middle of an event: of the process that holds a cluster, and of the API server itself."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.kubernetes import KubernetesCluster
from tests.kubernetes.room import GPU_W, Room, draws, limit, within
from tests.support import ROOT
from vppd.errors import Unreachable

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def held_by_a_process_that_is_killed(room: Room, folder: Path, budget_w: float) -> None:
    """Hold the cluster down from another process, and kill that."""
    file = folder / "connection.json"
    file.write_text(json.dumps(room.connection()))
    command = [sys.executable, "-m", "tests.kubernetes.holder", str(file), str(budget_w)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        line = holder.stdout.readline()
        holder.kill()
    assert float(line) == budget_w


async def test_a_successor_finds_what_a_killed_process_held(room: Room, tmp_path: Path) -> None:
    """It knows what the cluster would draw, takes over without a second cut, and gives everything back."""
    chat = await asyncio.to_thread(room.deployment, "chat", 3, 4)
    train = await asyncio.to_thread(room.job, "train", 3, 2)
    await asyncio.to_thread(held_by_a_process_that_is_killed, room, tmp_path, 2 * GPU_W)
    await within(20.0, "pods are gone", lambda: (room.running("chat"), room.running("train")) == (2, 0))
    before = room.note(chat), room.note(train)
    async with room.connect() as device:
        sample = await device.read()
        assert sample.available_w == pytest.approx(6 * GPU_W)
        assert sample.setpoint_w is None
        assert (await limit(device, 2 * GPU_W)).power_w == 2 * GPU_W
        assert (room.note(chat), room.note(train)) == before
        assert room.spec(chat)["replicas"] == 2
        await device.release()
        await draws(device, 6 * GPU_W)
    assert (room.note(chat), room.note(train)) == (None, None)


async def test_what_nobody_claims_is_given_back(room: Room, tmp_path: Path) -> None:
    """When nobody tells the successor what is to become of it, the work goes on after the orphans' lease."""
    await asyncio.to_thread(room.deployment, "chat", 3, 4)
    await asyncio.to_thread(held_by_a_process_that_is_killed, room, tmp_path, 2 * GPU_W)
    async with room.connect(orphan_lease_s=1.0) as device:
        await draws(device, 4 * GPU_W)


async def test_the_api_server_restarts_in_the_middle_of_an_event(room: Room) -> None:
    """While it is away the cluster is Unreachable; then it is as it was, is not shed a second time, and is restored."""
    chat = await asyncio.to_thread(room.deployment, "chat", 3, 4)
    train = await asyncio.to_thread(room.job, "train", 3, 2)
    async with room.connect() as device:
        await limit(device, 2 * GPU_W, 300.0)
        await draws(device, 2 * GPU_W)
        before = room.note(chat), room.note(train)
        await asyncio.to_thread(room.server.end, "api")
        with pytest.raises(Unreachable):
            await device.read()
        with pytest.raises(Unreachable):
            await limit(device, 2 * GPU_W, 300.0)
        await asyncio.to_thread(room.server.start_api)
        await answers(device)
        assert (await limit(device, 2 * GPU_W, 300.0)).power_w == 2 * GPU_W
        assert (room.note(chat), room.note(train)) == before
        await device.release()
        await draws(device, 6 * GPU_W)
    assert (room.spec(chat)["replicas"], room.spec(train)["parallelism"]) == (4, 2)


async def test_a_lease_that_ends_while_the_server_hangs_is_kept_afterwards(room: Room) -> None:
    """What could not be given back in time is given back as soon as the server answers, though nobody asks."""
    await asyncio.to_thread(room.deployment, "chat", 3, 4)
    async with room.connect(timeout_s=1.0) as device:
        await limit(device, 2 * GPU_W, 1.0)
        room.server.freeze("api")
        try:
            with pytest.raises(Unreachable):
                await device.read()
            await asyncio.sleep(0.5)
        finally:
            room.server.thaw("api")
        await within(60.0, "the replicas are back", lambda: room.running("chat") == 4)


async def answers(device: KubernetesCluster) -> None:
    """Wait until the cluster can be read again."""
    async with asyncio.timeout(30.0):
        while True:
            try:
                await device.read()
            except Unreachable:
                await asyncio.sleep(0.1)
            else:
                return

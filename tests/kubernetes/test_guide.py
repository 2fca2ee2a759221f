"""The commands of docs/kubernetes.md do what they say."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kubernetes.room import GPU_W, Room, draws, limit
from tests.servers.kubernetes import ADMIN
from tests.support import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8"), re.DOTALL)


def run(room: Room, folder: Path, script: str) -> str:
    """Run a script as an administrator whose kubectl goes to the server and the namespace; return what it printed."""
    for program in ("kubectl", "jq", "bash"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: the guide's commands need it")
    home = {**os.environ, "KUBECONFIG": str(room.server.kubeconfig(ADMIN, room.name)), "HOME": str(folder)}
    own = f"set -euo pipefail\ncd {folder}\n"
    script = script.replace("deploy/kubernetes/rbac.yaml", str(ROOT / "deploy/kubernetes/rbac.yaml"))
    command = ["bash", "-c", own + script]
    done = subprocess.run(command, env=home, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_set_up_gives_a_token_that_works(room: Room, tmp_path: Path) -> None:
    """Its service account may list pods, and no secrets."""
    script = next(block for block in BLOCKS if "rbac.yaml" in block)
    wait = "until kubectl -n vppd get secret vppd-token -o jsonpath='{.data.token}' | grep -q .; do sleep 0.2; done\n"
    script = script.replace("kubectl -n vppd get secret", wait + "kubectl -n vppd get secret", 1)
    run(room, tmp_path, script)
    token = (tmp_path / "vppd.token").read_text(encoding="utf-8")
    assert room.server.call("GET", "/api/v1/pods?limit=1", token=token).is_success
    assert room.server.call("GET", "/api/v1/secrets", token=token).status_code == 403


async def test_opting_in_and_restoring_by_hand(room: Room, tmp_path: Path) -> None:
    """The labels of the guide make a Deployment and a Job flexible; what a dead vppd held is given back by its script."""
    chat = await asyncio.to_thread(room.deployment, "chat", None, 8)
    train = await asyncio.to_thread(room.job, "train", 3, 2)
    labels, restoring = (next(b for b in BLOCKS if word in b) for word in ("vpp.least-replicas", "to_entries"))
    await asyncio.to_thread(run, room, tmp_path, labels)
    async with room.connect() as device:
        await limit(device, 6 * GPU_W)
        await draws(device, 6 * GPU_W)
        assert (room.spec(chat)["replicas"], room.spec(train)["parallelism"]) == (6, 0)
        for task in (device._tending, *device._following):  # as good as dead
            assert task is not None
            task.cancel()
        await asyncio.to_thread(run, room, tmp_path, restoring)
        assert (room.spec(chat)["replicas"], room.spec(train)["parallelism"]) == (8, 2)
        assert (room.note(chat), room.note(train)) == (None, None)

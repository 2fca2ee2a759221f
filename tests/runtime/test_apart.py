"""Sums in a process of their own: answers, refusals, time limits, and nothing left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from vppd.errors import Refused, Unreachable
from vppd.runtime.apart import apart

LIMIT_S = 60.0


@pytest.fixture(autouse=True)
def _on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def running(name: str) -> list[psutil.Process]:
    """The processes that run a module: no other test's servers."""
    return [one for one in psutil.Process().children() if name in one.cmdline()]


def module(folder: Path, name: str, body: str) -> str:
    """Write a module that answers a document."""
    (folder / f"{name}.py").write_text("import json, os, sys, time\n" + body, encoding="utf-8")
    return name


async def test_the_answer_is_what_the_module_prints(tmp_path: Path) -> None:
    """A document goes in, a document comes out."""
    name = module(tmp_path, "doubles", "json.dump({'x': 2 * json.load(sys.stdin)['x']}, sys.stdout)\n")
    assert await apart(name, {"x": 21}, LIMIT_S) == {"x": 42}


async def test_a_refusal_has_the_modules_words(tmp_path: Path) -> None:
    """A status that is not 0 is Refused, with what was said on standard error."""
    name = module(tmp_path, "refuses", "sys.exit('the reserve is above the capacity')\n")
    with pytest.raises(Refused, match="the reserve is above the capacity"):
        await apart(name, {}, LIMIT_S)


async def test_what_is_not_json_is_refused(tmp_path: Path) -> None:
    """Prose is no answer."""
    with pytest.raises(Refused, match="did not answer in JSON"):
        await apart(module(tmp_path, "prose", "print('forty-two')\n"), {}, LIMIT_S)


async def test_a_process_that_dies_can_be_tried_again(tmp_path: Path) -> None:
    """Killed from outside is Unreachable, not Refused."""
    with pytest.raises(Unreachable, match="signal 9"):
        await apart(module(tmp_path, "dies", "os.kill(os.getpid(), 9)\n"), {}, LIMIT_S)


async def test_a_hanging_process_is_ended_at_the_limit(tmp_path: Path) -> None:
    """After the limit there is an error, and no process."""
    name = module(tmp_path, "hangs", "time.sleep(600)\n")
    with pytest.raises(Unreachable, match="no answer within 1 s"):
        await apart(name, {}, 1.0)
    assert not running(name)


async def test_a_cancelled_wait_leaves_no_process(tmp_path: Path) -> None:
    """Cancellation gets through, and takes the process along."""
    (started := tmp_path / "started").unlink(missing_ok=True)
    name = module(tmp_path, "waits", f"open({str(started)!r}, 'w').close()\ntime.sleep(600)\n")
    waiting = asyncio.create_task(apart(name, {}, LIMIT_S))
    async with asyncio.timeout(30.0):
        while not await asyncio.to_thread(started.exists):
            await asyncio.sleep(0.01)
    assert running(name)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not running(name)

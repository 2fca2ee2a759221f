"""The guards in conftest.py bite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import support
from tests.support import ROOT

LEAK = '''
import asyncio
async def test_leaks():
    """Leaves a task behind."""
    asyncio.get_running_loop().create_task(asyncio.sleep(60))
'''
CLEAN = '''
import asyncio
async def test_cleans():
    """Cancels what it started."""
    task = asyncio.get_running_loop().create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    task.cancel()
'''
WARNS = '''
import warnings
def test_warns():
    """Warns."""
    warnings.warn("old", DeprecationWarning)
'''


def pytest_in(folder: Path, source: str) -> tuple[int, str]:
    """Run one test file under a copy of our conftest and settings; return exit status and output."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "test_one.py").write_text(source, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(folder / "test_one.py")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr


def test_a_pending_task_fails_the_test(tmp_path: Path) -> None:
    """A test that leaves a task running fails and the task is named."""
    status, output = pytest_in(tmp_path, LEAK)
    assert status == 1
    assert "left pending" in output
    assert "sleep" in output


def test_a_cancelled_task_is_no_leak(tmp_path: Path) -> None:
    """A test may cancel its task without waiting for the end of it."""
    status, output = pytest_in(tmp_path, CLEAN)
    assert status == 0, output


def test_warnings_are_errors(tmp_path: Path) -> None:
    """A warning fails the test that raised it."""
    status, output = pytest_in(tmp_path, WARNS)
    assert status == 1, output


def test_a_missing_binary_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed skips with the reason, and fails where CI=true."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-server is not installed: for the test"):
        support.require("no-such-server", "for the test")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-server is not installed"):
        support.require("no-such-server", "for the test")

"""For every test: no pending task is left behind, and the machine is asked through ``tests.support``."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests import support

pytest_plugins = ["tests.servers.mosquitto"]
"""Fixtures for everybody: real servers, started only where a test asks for one."""


def pytest_configure() -> None:
    """Begin without an event loop: looptime makes one for synchronous tests, which nobody would close."""
    asyncio.set_event_loop(None)


@pytest.fixture
async def no_pending_tasks() -> AsyncIterator[None]:
    """Fail an asynchronous test that leaves a task running; it closes after all other fixtures of the test."""
    before = asyncio.all_tasks()
    yield
    for _ in range(10):  # a cancelled task needs a few rounds of the loop to finish
        left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0)
    pytest.fail("left pending: " + ", ".join(sorted(repr(task.get_coro()) for task in left)), pytrace=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put ``no_pending_tasks`` first on every asynchronous test, so that it closes last."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            item.fixturenames.insert(0, "no_pending_tasks")


@pytest.fixture
def require() -> Callable[[str, str], str]:
    """``require(binary, why)``: its path, or skip (fail where CI=true)."""
    return support.require


@pytest.fixture
def shared() -> Callable[..., Path]:
    """``shared("specs", "x.yaml")``: a path in the shared folder, or skip."""
    return support.shared


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that is free."""
    return support.free_port()

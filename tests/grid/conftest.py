"""For the tests of the dispatch interface."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_loop_by_accident() -> None:
    """Say that there is no current loop: asking for one would make a loop that nobody closes (looptime asks)."""
    asyncio.set_event_loop(None)

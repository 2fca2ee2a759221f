"""Gates that close are counted, and those that close too soon are told apart."""

from __future__ import annotations

import pytest

from tests.planning.desk_rig import Room
from vppd.errors import Unreachable

pytestmark = pytest.mark.looptime


async def test_gates_that_are_served_in_time_are_not_missed() -> None:
    """An hour of quarters: four gates close, and each was looked at before."""
    room = Room()
    async with room.trading():
        await room.until(52)
    assert room.desk.gates.closed == {"quick": 4}
    assert room.desk.gates.missed == {"quick": 0}


async def test_a_gate_behind_which_nothing_could_be_computed_is_missed() -> None:
    """The worker fails from before a gate is in play until after it has closed; the gates around it are served."""
    room = Room()
    async with room.trading():
        await room.until(6)
        room.fault = Unreachable("too slow")
        await room.until(21)
        room.fault = None
        await room.until(52)
    assert room.desk.gates.closed == {"quick": 4}
    assert room.desk.gates.missed == {"quick": 1}


async def test_a_gate_before_which_nothing_could_be_recorded_is_missed() -> None:
    """What is not on disk is not on the market."""
    room = Room()
    room.ledger.fault = Unreachable("the disk is full")
    async with room.trading():
        await room.until(8)
    assert room.desk.gates.missed == {"quick": 1}

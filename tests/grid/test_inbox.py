"""The queue between socket and judgement."""

from __future__ import annotations

import asyncio

from vppd.grid.inbox import Inbox
from vppd.model import Inbound


def message(name: str, qos: int) -> Inbound:
    """Return a message of that topic."""
    return Inbound(name, b"", qos, False)


async def test_a_flood_of_samples_pushes_out_the_oldest_samples_only() -> None:
    """Commands stay, the newest samples stay, memory is bounded."""
    inbox = Inbox(most_samples=3)
    assert inbox.put(message("order", 1))
    assert all(inbox.put(message(f"signal-{i}", 0)) for i in range(10))
    assert [(await inbox.get()).topic for _ in range(len(inbox))] == ["order", "signal-7", "signal-8", "signal-9"]
    assert inbox.dropped == 7


async def test_too_many_commands_are_refused_to_the_link() -> None:
    """A command is never dropped silently: the link must go, and the broker sends it again."""
    inbox = Inbox(most_commands=2)
    assert [inbox.put(message("order", 1)) for _ in range(3)] == [True, True, False]


async def test_a_lost_link_takes_its_unjudged_commands_with_it() -> None:
    """The broker will deliver them again; samples are kept."""
    inbox = Inbox()
    inbox.put(message("order", 1))
    inbox.put(message("signal", 0))
    inbox.forget_commands()
    assert (await inbox.get()).topic == "signal"
    assert len(inbox) == 0


async def test_waiting_ends_with_a_message() -> None:
    """Whoever waits is woken, and a wait can be cancelled."""
    inbox = Inbox()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(inbox.get())
        await asyncio.sleep(0)
        inbox.put(message("order", 1))
    assert waiting.result().topic == "order"

"""Signals as an event of the running loop."""

from __future__ import annotations

import asyncio
import signal


def stop_event(*numbers: signal.Signals) -> asyncio.Event:
    """Return an event that is set when one of the signals comes."""
    event, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in numbers:
        loop.add_signal_handler(number, event.set)
    return event

"""What the service manager asks for: to end, or to read the configuration again."""

from __future__ import annotations

import asyncio
import signal


class Signals:
    """SIGTERM and SIGINT ask for the end, SIGHUP for a reload."""

    def __init__(self) -> None:
        """Listen from now on; to be made inside the running loop."""
        self.stop, self.reload = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    async def wants_reload(self) -> bool:
        """Wait for the next wish; False when it is to end, which goes before a reload."""
        told = [asyncio.ensure_future(event.wait()) for event in (self.stop, self.reload)]
        try:
            await asyncio.wait(told, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in told:
                waiting.cancel()
        if self.stop.is_set():
            return False
        self.reload.clear()
        return True

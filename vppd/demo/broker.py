"""The embedded broker as a process of its own: ``python -m vppd.demo.broker --port N --ready FILE``. Loopback, anonymous, MQTT 3.1.1."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from pathlib import Path

from amqtt.broker import Broker

from vppd.demo.signals import stop_event


async def serve(port: int, ready: Path) -> None:
    """Run the broker on 127.0.0.1 until SIGTERM or SIGINT; the file ``ready`` appears when it listens."""
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    stop = stop_event(signal.SIGTERM, signal.SIGINT)
    await broker.start()
    await asyncio.to_thread(ready.touch)
    try:
        await stop.wait()
    finally:
        await broker.shutdown()


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="vppd.demo.broker")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ready", type=Path, required=True)
    logging.basicConfig(level=logging.WARNING)
    given = parser.parse_args()
    asyncio.run(serve(given.port, given.ready))


if __name__ == "__main__":
    main()

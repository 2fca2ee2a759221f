"""A daemon that takes messages, acknowledges some of them, says so, and then waits to be killed.

Arguments: port, protocol, how many to take, how many to acknowledge.
"""

from __future__ import annotations

import asyncio
import sys

import structlog

from tests.grid.plant import SITE
from vppd.grid.broker import BrokerSettings
from vppd.grid.routes import subscriptions
from vppd.grid.transport import MqttChannel


async def main(port: int, protocol: str, take: int, acknowledge: int) -> None:
    """Take and acknowledge, print ``taken``, and hang."""
    how = BrokerSettings("127.0.0.1", port, "vppd-dc1", protocol="5" if protocol == "5" else "3.1.1")
    channel = MqttChannel(how, "dc1", subscriptions(SITE), asyncio.get_running_loop().time)
    async with asyncio.TaskGroup() as group:
        group.create_task(channel.run())
        await channel.wait_connected()
        sys.stdout.write("up\n")
        sys.stdout.flush()
        messages = channel.messages()
        for count in range(take):
            message = await anext(messages)
            if count < acknowledge:
                await channel.ack(message)
        await asyncio.sleep(0.2)  # let the acknowledgements leave the socket
        sys.stdout.write("taken\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))

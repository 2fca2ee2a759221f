"""The beginning and the end of an MQTT session of ours, cancelled or not: what aiomqtt does not do by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

import aiomqtt
import paho.mqtt.client as paho

from vppd.errors import Unreachable

T = TypeVar("T")


async def enter(client: aiomqtt.Client) -> None:
    """Connect. Raises MqttError; then, and when cancelled, no socket is left behind.

    aiomqtt connects in a thread that cannot be cancelled: who gives up waits for it and hangs up.
    """
    connecting = asyncio.ensure_future(client.__aenter__())
    try:
        await asyncio.shield(connecting)
    except asyncio.CancelledError:
        with suppress(aiomqtt.MqttError):
            await connecting
            await client.__aexit__(None, None, None)
        paho_of(client).disconnect()
        raise
    except aiomqtt.MqttError:
        paho_of(client).disconnect()
        raise


async def leave(client: aiomqtt.Client, within_s: float) -> None:
    """Disconnect, as far as it can be done in time. [s]"""
    with suppress(aiomqtt.MqttError, TimeoutError):
        async with asyncio.timeout(within_s):
            await client.__aexit__(None, None, None)


async def answered(work: Awaitable[T], within_s: float, to_what: str) -> T:
    """Return what the broker answers [s]. Raises Unreachable when it does not in time.

    The library's own limit is ``asyncio.wait_for``, which on Python 3.11 may swallow a cancellation: it is to be off (``math.inf``).
    """
    try:
        async with asyncio.timeout(within_s):
            return await work
    except TimeoutError as error:
        raise Unreachable(f"no answer {to_what} within {within_s:g} s") from error


def paho_of(client: aiomqtt.Client) -> paho.Client:
    """Return the client inside: it alone acknowledges by hand, limits connecting, and tells why a publish was refused."""
    return client._client  # noqa: SLF001 - pinned below aiomqtt 3

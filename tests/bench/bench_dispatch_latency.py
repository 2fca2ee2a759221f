"""From the publication of an order to the last of its Modbus writes acknowledged, through a real broker and the daemon.

Twenty storage units follow each order at once. Beside it, in the same run: the same writes by bare pymodbus to twenty twins.
Run: ``python -m tests.bench.bench_dispatch_latency [ORDERS]``; it prints one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import paho.mqtt.client as mqtt
import uvloop
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.client import AsyncModbusTcpClient

from tests.bench.plant import LOAD_W, Ack
from tests.bench.rig import FEED, ISSUER, Rig, rig
from tests.grid.dispatcher import event, targets, watts
from vppd.ledger.reader import read_ledger

POINTS = 20
ORDERS = 200
ALLOWED_MS = 100.0
"""p99. [ms]"""
STEPS_W = (5e3, 15e3, 25e3, 35e3, 45e3)
"""What one unit gives under an order; two orders that follow each other differ by at least 10 kW. [W]"""
SAME_W = 2_000.0
"""An intent covers setpoints that differ by less: 2 % of the rating. [W]"""
POLL_S = 0.25
SPACING_S = (0.6, 1.0)
"""Units and meter are read between two orders, or the daemon takes what the units did for load. [s]"""


@dataclass(frozen=True, slots=True)
class Sent:
    """An order on its way."""

    order_id: str
    at_s: float
    """Monotonic time just before it was published. [s]"""


def order(given: Rig, unit_w: float) -> tuple[str, bytes]:
    """Return (order id, message) of a load target that makes every unit give ``unit_w``."""
    target = {"interval": {}, "feed_tags": [FEED], "load_constraint": watts(LOAD_W - POINTS * unit_w)}
    message = event("grid.loadtarget.set.v1", given.key.jws(targets(target)), time=datetime.now(UTC).isoformat())
    return str(uuid5(UUID(message["id"]), f"0/{FEED}")), json.dumps(message).encode()


async def dispatch(given: Rig, orders: int, raw: Raw) -> tuple[list[Sent], list[float]]:
    """Publish orders at random moments; return them, and how long the same writes took without vppd in between. [s]"""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.connect(given.broker.host, given.broker.port)
    client.loop_start()
    chance, sent, raw_s, unit_w = random.Random(1), list[Sent](), list[float](), 0.0
    try:
        for _ in range(orders):
            unit_w = chance.choice([step_w for step_w in STEPS_W if step_w != unit_w])
            order_id, message = order(given, unit_w)
            sent.append(Sent(order_id, time.monotonic()))
            client.publish(f"grid/v1/isv/{ISSUER}/loadtarget/set", message, qos=1)
            await asyncio.sleep(0.3)
            raw_s.append(await raw.round(unit_w))
            await asyncio.sleep(chance.uniform(*SPACING_S) - 0.3)
    finally:
        client.disconnect()
        client.loop_stop()
    return sent, raw_s


class Raw:
    """The twins by bare pymodbus: one connection each, all at once."""

    def __init__(self, clients: Sequence[AsyncModbusTcpClient]) -> None:
        self._clients = clients

    async def round(self, unit_w: float) -> float:
        """Write heartbeats and setpoint to every twin and return how long it took. [s]"""
        began_s = time.monotonic()
        await asyncio.gather(*(self._write(client, int(unit_w)) for client in self._clients))
        return time.monotonic() - began_s

    async def _write(self, client: AsyncModbusTcpClient, unit_w: int) -> None:
        for address, registers in writes(unit_w):
            answer = await client.write_registers(address, list(registers), device_id=1)
            assert not answer.isError()


def writes(unit_w: int) -> list[tuple[int, Sequence[int]]]:
    """Return the writes by which the adapter makes a simulated unit give ``unit_w``: two heartbeats and the setpoint. [W]"""
    at, size, found = 40002, {1: 66, 701: 153, 702: 50, 704: 65, 713: 7, 715: 7, 802: 62}, {}
    for model, length in size.items():
        found[model] = at
        at += 2 + length
    setpoint = (1, 1, unit_w >> 16, unit_w & 0xFFFF, 0, 0, 0, 0, 0, 0, 30)
    return [(found[715] + 5, (0, 1)), (found[802] + 19, (1,)), (found[704] + 22, setpoint)]


@asynccontextmanager
async def connected(plant: Mapping[str, Any]) -> AsyncIterator[Raw]:
    """Yield the twins, connected."""
    clients = [AsyncModbusTcpClient(plant["host"], port=port) for port, _ in plant["twins"]]
    assert all(await asyncio.gather(*(client.connect() for client in clients)))
    try:
        yield Raw(clients)
    finally:
        for client in clients:
            client.close()


def latencies_s(given: Rig, sent: Sequence[Sent]) -> list[float]:
    """Return for each order how long it took until the last unit had acknowledged its write. [s]"""
    acks, meant = given.acks(), _intents(given)
    return [
        max(_first_ack(acks[unit], meant.get((o.order_id, unit), []), o.at_s) for unit in acks) - o.at_s for o in sent
    ]


def _intents(given: Rig) -> dict[tuple[str, str], list[float]]:
    """Return by order and unit the setpoints the daemon meant to write for it. [W]"""
    found: dict[tuple[str, str], list[float]] = {}
    with read_ledger(given.ledger) as ledger:
        for recorded in ledger.events("setpoints"):
            body = recorded.event.body
            if recorded.event.kind == "intent" and body["power_w"] is not None:
                found.setdefault((body["cause"], body["asset_id"]), []).append(body["power_w"])
    return found


def _first_ack(acks: Sequence[Ack], meant_w: Sequence[float], after_s: float) -> float:
    """Return when a setpoint that was meant for an order had been acknowledged. [s]"""
    for at_s, setpoint_w in acks:
        if at_s > after_s and setpoint_w is not None and any(abs(setpoint_w - w) < SAME_W for w in meant_w):
            return at_s
    raise AssertionError(f"an order did not move every unit: {meant_w} W after {after_s} s")


def measure(orders: int) -> dict[str, float]:
    """Return the figures of a run."""

    async def run(given: Rig) -> tuple[list[Sent], list[float]]:
        async with connected(given.plant) as raw:
            await raw.round(0.0)
            return await dispatch(given, orders, raw)

    with tempfile.TemporaryDirectory() as folder:
        with rig(Path(folder), POINTS, POINTS, POLL_S) as given, closing(uvloop.new_event_loop()) as loop:
            sent, raw_s = loop.run_until_complete(run(given))
        took_s = latencies_s(given, sent)
    order_ms, raw_ms = _ms("order", took_s), _ms("raw", raw_s)
    ratios = {f"ratio_{key}": order_ms[f"order_{key}_ms"] / raw_ms[f"raw_{key}_ms"] for key in ("p50", "p99")}
    return {"orders": orders, "devices": POINTS, **order_ms, "limit_order_p99_ms": ALLOWED_MS, **raw_ms, **ratios}


def _ms(name: str, values_s: Sequence[float]) -> dict[str, float]:
    p50_s, p99_s = np.percentile(values_s, (50, 99))
    return {f"{name}_p50_ms": 1e3 * p50_s, f"{name}_p99_ms": 1e3 * p99_s, f"{name}_max_ms": 1e3 * max(values_s)}


def say(found: Mapping[str, float]) -> None:
    """Print the figures."""
    print(json.dumps({"bench": "dispatch_latency", **{k: round(v, 2) for k, v in found.items()}}))


if __name__ == "__main__":
    say(measure(int(sys.argv[1]) if len(sys.argv) > 1 else ORDERS))

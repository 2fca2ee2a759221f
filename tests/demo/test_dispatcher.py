"""The demo's dispatcher against a real broker and a daemon's half of the conversation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.servers.mosquitto import Mosquitto
from tests.support import free_port
from vppd.demo import dispatcher as under_test
from vppd.demo.dispatcher import Dispatcher, connected
from vppd.demo.plantfile import PARTIES, Keys, make_keys
from vppd.errors import Refused, Unreachable
from vppd.grid.envelope import Sender
from vppd.grid.ids import RandomIds
from vppd.grid.issuer_line import Broker
from vppd.grid.reasons import Reason
from vppd.grid.receipts import receipts
from vppd.grid.signing import KeyRing, PinnedKey
from vppd.grid.verdict import About, Accepted, Rejected
from vppd.model import Interval, Order, OrderKind

pytestmark = pytest.mark.integration
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
Answer = Callable[[About, int], Accepted | Rejected | None]
"""What is said to the n-th delivery of a command; None: silence."""


def accept(about: About, delivery: int) -> Accepted:
    """Accept everything."""
    order = Order(about.command_id, about.issuer, OrderKind.LIMIT, "main-a", Interval(NOW), 1.0)
    return Accepted(about, orders=(order,))


class Daemon:
    """The daemon's end of the line, played by a plain client that answers with real receipts."""

    def __init__(self, broker: Mosquitto, keys: Keys, answer: Answer, *, signer_keys: Keys | None = None) -> None:
        self.got: list[tuple[str, dict[str, Any]]] = []
        self._answer = answer
        pem = keys.issuer.public.read_bytes()
        self._ring = KeyRing([PinnedKey.from_pem(PARTIES.issuer, keys.issuer.kid, "ES256", pem)])
        signer = (signer_keys or keys).agent.signer()
        self._sender = Sender(PARTIES.vpp_id, PARTIES.agent_id, signer, RandomIds())
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _c, _d, m: self._on(m.topic, bytes(m.payload))
        self._client.connect(broker.host, broker.port)
        self._client.subscribe([("grid/v1/isv/+/loadtarget/set", 1), ("vpp/v1/dc1/issuer/+/+/set", 1)])
        self._client.subscribe("vpp/v1/dc1/issuer/+/regulation", 0)
        self._client.loop_start()

    def close(self) -> None:
        """Hang up."""
        self._client.disconnect()
        self._client.loop_stop()
        self._client.on_message = None

    def _on(self, topic: str, payload: bytes) -> None:
        event = json.loads(payload)
        self.got.append((topic, {**event, "data": json.loads(self._ring.verify(event["data"], "tso").payload)}))
        about = About(topic, "0" * 64, "dsx_flex", event["type"], "tso", event["id"], event["correlationid"], "", True)
        verdict = self._answer(about, len(self.got))
        for message in receipts(verdict, NOW, self._sender) if verdict else ():
            self._client.publish(message.topic, message.payload, message.qos)


@asynccontextmanager
async def talking(
    broker: Mosquitto, folder: Path, answer: Answer, *, forged: bool = False
) -> AsyncIterator[tuple[Dispatcher, Daemon]]:
    """Hold a dispatcher and the daemon it talks to; a forged one signs with a key that is not the daemon's."""
    keys = make_keys(folder)
    (folder / "other").mkdir()
    daemon = Daemon(broker, keys, answer, signer_keys=make_keys(folder / "other") if forged else None)
    theirs = KeyRing([PinnedKey.from_pem(PARTIES.agent_id, keys.agent.kid, "ES256", keys.agent.public.read_bytes())])
    try:
        async with connected(
            Broker(broker.host, broker.port, "5"), PARTIES, keys.issuer.signer(), theirs, lambda: NOW
        ) as held:
            yield held, daemon
    finally:
        daemon.close()


async def test_a_load_target_is_signed_and_receipted(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """A load target carries one limit per feed, null for none, and returns its correlation id."""
    async with talking(mosquitto, tmp_path, accept) as (dispatcher, daemon):
        correlation = await dispatcher.load_target({"main-a": 4e5, "main-b": None}, LATER)
    topic, event = daemon.got[0]
    assert topic == "grid/v1/isv/tso/loadtarget/set"
    assert event["correlationid"] == correlation
    assert [t["load_constraint"] for t in event["data"]["targets"]] == [{"value": 4e5, "unit": "watt"}, None]


async def test_orders_and_signals_rise_in_sequence(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Every order and signal has a higher sequence number than the one before."""
    async with talking(mosquitto, tmp_path, accept) as (dispatcher, daemon):
        await dispatcher.order("reduce", "dc1", 2e5, LATER)
        dispatcher.signal(0.5)
        await dispatcher.order("release", "dc1", None, LATER)
    data = [event["data"] for _, event in daemon.got]
    assert [d.get("kind", "signal") for d in data] == ["reduce", "signal", "release"]
    assert data[0]["seq"] < data[1]["seq"] < data[2]["seq"]
    assert "power" not in data[2]


async def test_a_rejection_is_told(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """A rejected command raises with the daemon's reason."""
    async with talking(mosquitto, tmp_path, lambda a, _: Rejected(a, Reason.UNAUTHORISED, "not you")) as (
        dispatcher,
        _,
    ):
        with pytest.raises(Refused, match="unauthorised: not you"):
            await dispatcher.order("reduce", "dc1", 2e5, LATER)


async def test_without_a_receipt_the_same_bytes_go_out_again(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that is not answered is sent again, the very same one."""
    monkeypatch.setattr(under_test, "RESEND_S", 0.2)
    async with talking(mosquitto, tmp_path, lambda a, n: accept(a, n) if n == 3 else None) as (dispatcher, daemon):
        await dispatcher.order("reduce", "dc1", 2e5, LATER)
    assert len(daemon.got) == 3
    assert daemon.got[0] == daemon.got[1] == daemon.got[2]


async def test_a_receipt_that_somebody_else_signed_is_none(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receipt whose signature is not the daemon's does not end the waiting."""
    monkeypatch.setattr(under_test, "RESEND_S", 0.2)
    monkeypatch.setattr(under_test, "GIVE_UP_S", 0.6)
    async with talking(mosquitto, tmp_path, accept, forged=True) as (dispatcher, daemon):
        with pytest.raises(Unreachable, match="no receipt"):
            await dispatcher.order("reduce", "dc1", 2e5, LATER)
    assert len(daemon.got) >= 2


async def test_no_broker_is_unreachable(tmp_path: Path) -> None:
    """Where nobody listens the dispatcher says so."""
    keys = make_keys(tmp_path)
    with pytest.raises(Unreachable, match="does not answer"):
        async with (
            asyncio.timeout(10.0),
            connected(Broker("127.0.0.1", free_port(), "5"), PARTIES, keys.issuer.signer(), KeyRing([]), lambda: NOW),
        ):
            pass

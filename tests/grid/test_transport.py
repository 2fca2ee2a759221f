"""The dispatch link on a real Mosquitto, with a plain paho client as the dispatcher."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace

import pytest
import uvloop

from tests.grid.dispatcher import NOW, inbound
from tests.grid.plant import Memory, judge, sender
from tests.grid.schemas import check
from tests.grid.test_admit import load_target, order
from tests.grid.wire import PATIENCE_S, Dispatcher, channel, running, settings, take
from tests.servers.mosquitto import Mosquitto
from tests.support import ROOT
from vppd.errors import ConfigError, Refused, Unreachable
from vppd.grid.broker import BrokerSettings
from vppd.grid.reasons import Reason
from vppd.grid.receipts import receipts
from vppd.grid.verdict import Accepted, Rejected
from vppd.model import Inbound, Outbound

pytestmark = pytest.mark.integration
RECEIPTS, AVAILABILITY = "vpp/v1/dc1/issuer/tso/receipt", "vpp/v1/dc1/availability"
NEWS = Outbound("vpp/v1/dc1/order/status", b"{}", qos=1)
VERSIONS = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


@VERSIONS
async def test_an_order_goes_in_and_its_receipts_come_out(mosquitto: Mosquitto, protocol: str) -> None:
    """Dispatcher, broker, judgement, receipts, broker, dispatcher - over both versions of MQTT."""
    with Dispatcher(mosquitto, RECEIPTS, protocol=protocol) as tso:
        async with running(settings(mosquitto, protocol=protocol)) as link:
            sent = load_target()
            await tso.send(sent)
            (message,) = await take(link)
            assert (message.topic, message.payload, message.qos, message.retained) == (
                sent.topic,
                sent.payload,
                1,
                False,
            )
            verdict = judge(message, Memory())
            assert isinstance(verdict, Accepted)
            for receipt in receipts(verdict, NOW, sender()):
                await link.publish(receipt)
            await link.ack(message)
            heard = [await tso.hear(), await tso.hear()]
            found = [check(Outbound(m.topic, bytes(m.payload))) for m in heard]
            assert [data["status"] for data in found] == ["received", "accepted"]
            assert found[0]["command_id"] == json.loads(sent.payload)["id"]


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_every_quality_of_service_goes_out(mosquitto: Mosquitto, protocol: str, qos: int) -> None:
    """Telemetry at 0, receipts at 1, breach alerts at 2."""
    with Dispatcher(mosquitto, NEWS.topic) as tso:
        async with running(settings(mosquitto, protocol=protocol)) as link:
            await link.publish(replace(NEWS, qos=qos))
            assert (await tso.hear()).payload == NEWS.payload


def test_the_link_holds_under_uvloop(mosquitto: Mosquitto) -> None:
    """The daemon runs on uvloop, whose sockets and cancellations differ."""

    async def course() -> None:
        with Dispatcher(mosquitto) as tso:
            async with running(settings(mosquitto)) as link:
                sent = load_target()
                await tso.send(sent)
                (message,) = await take(link)
                await link.publish(NEWS)
                await link.ack(message)
                mosquitto.kill()
                while link.connected:
                    await asyncio.sleep(0.01)
                mosquitto.start()
                async with asyncio.timeout(PATIENCE_S):
                    await link.wait_connected()
                await link.publish(NEWS)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(course())


@contextmanager
def daemon(broker: Mosquitto, protocol: str, count: int, acknowledge: int) -> Iterator[subprocess.Popen[str]]:
    """Run ``tests.grid.crash`` until it is connected; it is killed at the end."""
    command = [sys.executable, "-m", "tests.grid.crash", str(broker.port), protocol, str(count), str(acknowledge)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            yield process
        finally:
            process.kill()


@VERSIONS
@pytest.mark.parametrize("acknowledged", [0, 2])
async def test_what_was_not_acknowledged_comes_again_after_kill_9(
    mosquitto: Mosquitto, protocol: str, acknowledged: int
) -> None:
    """Five orders received, none committed, killed: five of five come again; acknowledged ones do not."""
    orders = [load_target() for _ in range(5)]
    with Dispatcher(mosquitto, protocol=protocol) as tso, daemon(mosquitto, protocol, 5, acknowledged) as process:
        for message in orders:
            await tso.send(message)
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "taken\n"
    async with running(settings(mosquitto, protocol=protocol)) as link:
        again = await take(link, 5 - acknowledged)
        assert [m.payload for m in again] == [m.payload for m in orders[acknowledged:]]
        assert len(link.inbox) == 0


async def test_availability_is_retained_and_told_by_the_last_will(mosquitto: Mosquitto) -> None:
    """Online while the link is held, offline in good order, offline by the broker after kill -9."""
    with Dispatcher(mosquitto, AVAILABILITY) as tso:
        async with running(settings(mosquitto)):
            assert (await tso.hear()).payload == b"online"
        assert (await tso.hear()).payload == b"offline"
        with daemon(mosquitto, "5", 1, 0):
            assert (await tso.hear()).payload == b"online"
        assert (await tso.hear()).payload == b"offline"
    with Dispatcher(mosquitto, AVAILABILITY) as newcomer:
        late = await newcomer.hear()
        assert (late.payload, late.retain) == (b"offline", True)


async def test_the_link_survives_a_broker_that_dies_and_comes_back(mosquitto: Mosquitto) -> None:
    """The iterator goes on, the age of the loss is told, publishing fails cleanly meanwhile."""
    async with running(settings(mosquitto)) as link:
        mosquitto.kill()
        with pytest.raises(Unreachable):
            await link.publish(NEWS)
        while link.connected:
            await asyncio.sleep(0.01)
        assert link.link_age_s > 0.0
        mosquitto.start()
        async with asyncio.timeout(PATIENCE_S):
            await link.wait_connected()
        assert link.link_age_s == 0.0
        with Dispatcher(mosquitto) as tso:
            sent = load_target()
            await tso.send(sent)
            assert (await take(link))[0].payload == sent.payload


@VERSIONS
async def test_a_silent_broker_is_noticed(mosquitto: Mosquitto, protocol: str) -> None:
    """A broker that is stopped in its tracks counts as lost within two and a half keepalives of 2 s."""
    async with running(settings(mosquitto, keepalive_s=2, protocol=protocol)) as link:
        mosquitto.pause()
        try:
            started_s = asyncio.get_running_loop().time()
            async with asyncio.timeout(8.0):
                while link.connected:
                    await asyncio.sleep(0.05)
            assert asyncio.get_running_loop().time() - started_s < 6.0
        finally:
            mosquitto.resume()
        async with asyncio.timeout(PATIENCE_S):
            await link.wait_connected()


def test_the_agreed_keepalive_keeps_the_time_limit() -> None:
    """With the default of 10 s a silent broker is given up after 15 s at most: two quiet times and a second."""
    quiet_s = BrokerSettings("h", 1, "c").quiet_s
    assert 2 * quiet_s + 1 <= 15
    assert BrokerSettings("h", 1, "c", keepalive_s=2).quiet_s == 2


async def test_a_publish_the_acl_denies_is_refused_in_mqtt_5(mosquitto_factory: Callable[..., Mosquitto]) -> None:
    """MQTT 5 says so; 3.1.1 cannot, which is why a PUBACK is no receipt."""
    broker = mosquitto_factory(acl=f"topic read #\ntopic write {AVAILABILITY}\n")
    async with running(settings(broker)) as link:
        with pytest.raises(Refused, match="Not authorized"):
            await link.publish(NEWS)
    async with running(settings(broker, protocol="3.1.1")) as link:
        await link.publish(NEWS)


@pytest.mark.parametrize(("denied", "stays_up"), [(0, False), (1, True)])
async def test_only_a_required_subscription_must_be_granted(denied: int, stays_up: bool) -> None:
    """A link on which no orders can arrive is no link; without enforcement reports it still is one."""
    async with (
        _granting(lambda count: b"\x87" if count == denied else b"\x01") as port,
        running(BrokerSettings("127.0.0.1", port, "x"), connected=False) as link,
    ):
        waiting = asyncio.ensure_future(link.wait_connected())
        await asyncio.wait((waiting,), timeout=PATIENCE_S if stays_up else 0.3)
        assert link.connected is stays_up
        waiting.cancel()


@asynccontextmanager
async def _granting(answer: Callable[[int], bytes]) -> AsyncIterator[int]:
    """Serve just enough MQTT 5 to grant or deny subscriptions: Mosquitto grants all of them and then stays silent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count = 0
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head, length = await reader.readexactly(2)
                body = await reader.readexactly(length)
                if head == 0x10:
                    writer.write(b"\x20\x03\x00\x00\x00")
                elif head == 0x82:
                    writer.write(b"\x90\x04" + body[:2] + b"\x00" + answer(count))
                    count += 1
                elif head >> 4 == 3:
                    topic_length = int.from_bytes(body[:2], "big")
                    writer.write(b"\x40\x02" + body[2 + topic_length : 4 + topic_length])
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield int(server.sockets[0].getsockname()[1])


async def test_wrong_credentials_keep_trying(mosquitto_factory: Callable[..., Mosquitto]) -> None:
    """A refused login is a lost link, not the end of the daemon."""
    broker = mosquitto_factory(users={"vppd": "right"})
    async with running(settings(broker, username="vppd"), connected=False) as link:
        await asyncio.sleep(0.5)
        assert not link.connected


async def test_a_command_retained_while_we_listen_is_seen_as_retained(mosquitto: Mosquitto) -> None:
    """MQTT 5 keeps the flag for us, so that a retained order is refused also when it arrives live."""
    async with running(settings(mosquitto)) as link:
        with Dispatcher(mosquitto) as tso:
            sent = order()
            await tso.send(replace(sent, retained=True))
            (message,) = await take(link)
            verdict = judge(message)
            assert isinstance(verdict, Rejected)
            assert verdict.reason is Reason.RETAINED


async def test_a_huge_message_is_cut_and_refused(mosquitto: Mosquitto) -> None:
    """Memory is bounded, and the sender is still told."""
    async with running(settings(mosquitto)) as link:
        with Dispatcher(mosquitto) as tso:
            await tso.send(inbound("vpp/v1/dc1/issuer/tso/order/set", b"x" * 100_000))
            (message,) = await take(link)
            assert len(message.payload) == 16_385
            verdict = judge(message)
            assert isinstance(verdict, Rejected)
            assert verdict.reason is Reason.TOO_LARGE


async def test_an_acknowledgement_of_an_earlier_link_is_not_sent(mosquitto: Mosquitto) -> None:
    """The number of a message belongs to its link: on a later one it could be another message's."""
    with Dispatcher(mosquitto) as tso:
        async with running(settings(mosquitto)) as link:
            sent = load_target()
            await tso.send(sent)
            (early,) = await take(link)
            await link.ack(replace(early, token=early.token - (1 << 16)))
        async with running(settings(mosquitto)) as link:
            assert (await take(link))[0].payload == sent.payload


async def test_without_a_broker_the_link_can_still_be_given_up(free_port: int) -> None:
    """Cancelling ends the attempts at once."""
    how = BrokerSettings("127.0.0.1", free_port, "vppd-dc1")
    async with asyncio.timeout(5.0):
        async with running(how, connected=False) as link:
            with pytest.raises(Unreachable):
                await link.publish(NEWS)


async def test_a_broker_that_says_nothing_at_connect_is_given_up(mosquitto: Mosquitto) -> None:
    """A stopped broker accepts the TCP connection and no more; cancelling still ends in bounded time."""
    mosquitto.pause()
    try:
        async with asyncio.timeout(10.0):
            async with running(settings(mosquitto, ack_timeout_s=0.3), connected=False) as link:
                await asyncio.sleep(1.0)
                assert not link.connected
    finally:
        mosquitto.resume()


async def test_a_client_id_is_needed() -> None:
    """Without one the broker keeps no session, and orders would be lost."""
    with pytest.raises(ConfigError, match="client_id"):
        BrokerSettings("h", 1883, "")


async def test_a_topic_that_cannot_be_published_is_refused(mosquitto: Mosquitto) -> None:
    """A wildcard in a topic is our mistake, not the broker's."""
    async with running(settings(mosquitto)) as link:
        with pytest.raises(Refused):
            await link.publish(Outbound("a/#", b""))


async def test_a_channel_starts_disconnected() -> None:
    """Before the first connection the age counts from the start."""
    link = channel(BrokerSettings("127.0.0.1", 1, "x"))
    assert not link.connected
    assert isinstance(link.link_age_s, float)
    await link.ack(Inbound("t", b"", 1, False, 65536))

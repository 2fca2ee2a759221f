"""The shared MQTT link against a real Mosquitto."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiomqtt
import pytest
from pydantic import ValidationError

from adapters import _mqtt
from adapters._mqtt import MqttLink, mqtt
from adapters._mqtt_config import MqttConfig
from adapters._mqtt_news import Heard, News
from tests.servers.mosquitto import Mosquitto
from tests.support import free_port
from vppd.errors import ConfigError, DeviceError, Refused, Unreachable

PROTOCOLS = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


class Ear(News):
    """Remembers what it heard."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Heard] = []

    def hear(self, heard: Heard) -> None:
        """Take a message."""
        self.heard.append(heard)
        self.tell()

    async def until(self, count: int) -> list[tuple[str, bytes, bool]]:
        """Return the first ``count`` messages once they have come."""
        async with asyncio.timeout(5.0):
            while len(self.heard) < count:
                await self.wait()
        return [(heard.topic, heard.payload, heard.retained) for heard in self.heard]


def _config(broker: Mosquitto, protocol: str = "5", **more: object) -> MqttConfig:
    return MqttConfig.model_validate({"host": broker.host, "port": broker.port, "protocol": protocol} | more)


async def _client(stack: AsyncExitStack, broker: Mosquitto) -> aiomqtt.Client:
    return await stack.enter_async_context(aiomqtt.Client(broker.host, broker.port))


@PROTOCOLS
async def test_messages_reach_those_who_listen(mosquitto: Mosquitto, protocol: str) -> None:
    """Exact topics and patterns are delivered to their listeners only; stored messages are marked."""
    one, all_of_it = Ear(), Ear()
    async with AsyncExitStack() as stack:
        device = await _client(stack, mosquitto)
        await device.publish("plant/a", "old", qos=1, retain=True)
        link = await stack.enter_async_context(mqtt(_config(mosquitto, protocol)))
        await stack.enter_async_context(link.listening(one, "plant/a"))
        assert await one.until(1) == [("plant/a", b"old", True)]
        await stack.enter_async_context(link.listening(all_of_it, "plant/#"))
        await all_of_it.until(1)
        await device.publish("plant/b", "new", qos=1)
        assert await all_of_it.until(2) == [("plant/a", b"old", True), ("plant/b", b"new", False)]
        assert {heard.topic for heard in one.heard} == {"plant/a"}


@PROTOCOLS
async def test_publishing_reaches_the_broker_unretained(mosquitto: Mosquitto, protocol: str) -> None:
    """A published command arrives, and nobody who subscribes later gets it."""
    ear, late = Ear(), Ear()
    async with mqtt(_config(mosquitto, protocol)) as link, link.listening(ear, "cmd"):
        await link.publish("cmd", b"1", expiry_s=5.0)
        assert await ear.until(1) == [("cmd", b"1", False)]
        async with link.listening(late, "cmd", "end"):
            await link.publish("end", b"2")
            assert await late.until(1) == [("end", b"2", False)]


async def test_users_of_one_broker_share_a_connection(mosquitto: Mosquitto) -> None:
    """Many users make one connection; another account makes another; the last user closes it."""
    config = _config(mosquitto)
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(mqtt(config))
        await stack.enter_async_context(mqtt(_config(mosquitto, client_id="other")))
        assert len(_mqtt._BROKERS[asyncio.get_running_loop()]) == 2
    assert _mqtt._BROKERS[asyncio.get_running_loop()] == {}
    mosquitto.stop()
    assert sum("New client connected" in line for line in mosquitto.log) == 2


async def test_a_lost_link_is_told_to_every_listener_and_comes_back(mosquitto: Mosquitto) -> None:
    """After kill -9 of the broker all listeners and publishers get Unreachable; a later user connects anew."""
    ears = [Ear(), Ear()]
    async with AsyncExitStack() as stack:
        link = await stack.enter_async_context(mqtt(_config(mosquitto)))
        for ear in ears:
            await stack.enter_async_context(link.listening(ear, "x"))
        mosquitto.kill()
        for ear in ears:
            with pytest.raises(Unreachable):
                await asyncio.wait_for(ear.wait(), 5.0)
        with pytest.raises(Unreachable):
            await link.publish("x", b"")
        with pytest.raises(Unreachable):
            async with link.listening(Ear(), "x"):
                pass
    mosquitto.start()
    async with mqtt(_config(mosquitto)) as again:
        await again.publish("x", b"")


async def test_the_link_reconnects_while_somebody_holds_on(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who stays through the outage can publish again once the broker is back."""
    monkeypatch.setattr(_mqtt, "FIRST_PAUSE_S", 0.02)
    async with mqtt(_config(mosquitto)) as link:
        ear = Ear()
        async with link.listening(ear, "x"):
            mosquitto.restart(kill=True)
            with pytest.raises(Unreachable):
                await asyncio.wait_for(ear.wait(), 5.0)
        async with asyncio.timeout(5.0):
            await _published(link)


async def _published(link: MqttLink) -> None:
    while True:
        try:
            await link.publish("x", b"")
        except Unreachable:
            await asyncio.sleep(0.01)
        else:
            return


async def test_a_silent_broker_is_unreachable(mosquitto: Mosquitto) -> None:
    """A broker that is stopped in its tracks gives Unreachable within the time limit, for publishing and connecting."""
    async with mqtt(_config(mosquitto, timeout_s=0.2)) as link:
        mosquitto.pause()
        with pytest.raises(Unreachable, match="no answer"):
            await link.publish("x", b"")
        with pytest.raises(Unreachable):
            async with mqtt(_config(mosquitto, timeout_s=0.2, client_id="other")):
                pass
        mosquitto.resume()


async def test_nobody_there_is_unreachable_at_once() -> None:
    """A refused connection is not waited for."""
    async with asyncio.timeout(1.0):
        with pytest.raises(Unreachable, match="refused"):
            async with mqtt(MqttConfig(host="127.0.0.1", port=free_port())):
                pass


async def test_cancelling_gets_through_while_connecting(mosquitto: Mosquitto) -> None:
    """A cancelled user leaves no task and no socket behind."""
    mosquitto.pause()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), mqtt(_config(mosquitto, timeout_s=0.3)):
            pass
    mosquitto.resume()


@PROTOCOLS
async def test_a_wrong_password_is_refused(
    mosquitto_factory: Callable[..., Mosquitto], tmp_path: Path, protocol: str
) -> None:
    """The right password connects; a wrong one, or none, is an alarm and not a retry."""
    broker = mosquitto_factory(users={"vppd": "right"})
    secrets = {word: tmp_path / word for word in ("right", "wrong")}
    for word, path in secrets.items():
        path.write_text(word + "\n", encoding="utf-8")
    async with mqtt(_config(broker, protocol, username="vppd", password_file=secrets["right"])):
        pass
    for more in ({"username": "vppd", "password_file": secrets["wrong"]}, {}):
        with pytest.raises(Refused):
            async with mqtt(_config(broker, protocol, **more)):
                pass


async def test_a_denied_publish_is_refused_where_the_broker_says_so(
    mosquitto_factory: Callable[..., Mosquitto],
) -> None:
    """With MQTT 5 the ACL's no is in the PUBACK; with 3.1.1 the broker says yes and drops it."""
    broker = mosquitto_factory(acl="topic read #\ntopic write allowed\n")
    async with mqtt(_config(broker)) as link:
        await link.publish("allowed", b"")
        with pytest.raises(Refused, match="Not authorized"):
            await link.publish("denied", b"")
        await link.publish("allowed", b"")
    async with mqtt(_config(broker, "3.1.1")) as link:
        await link.publish("denied", b"")


async def test_a_fault_of_a_listener_is_not_taken_for_a_lost_link(mosquitto: Mosquitto) -> None:
    """A bug in an adapter's ``hear`` escapes as what it is."""

    class Buggy(Ear):
        def hear(self, heard: Heard) -> None:
            raise KeyError(heard.topic)

    async def use(ear: Ear) -> None:
        async with mqtt(_config(mosquitto)) as link, link.listening(ear, "x"):
            await link.publish("x", b"", qos=0)
            with pytest.raises(DeviceError):
                await asyncio.wait_for(ear.wait(), 5.0)

    with pytest.raises(KeyError, match="x"):
        await use(Buggy())


@pytest.mark.parametrize(
    "wrong",
    [
        {"topic": "x"},
        {"port": 0},
        {"protocol": "3.1"},
        {"cert_file": "c.pem"},
        {"cert_file": "c.pem", "key_file": "k.pem"},
        {"password_file": "p"},
        {"timeout_s": float("inf")},
    ],
)
def test_a_wrong_key_is_found_before_anything_starts(wrong: dict[str, object]) -> None:
    """Unknown keys and halves of pairs are refused."""
    with pytest.raises(ValidationError):
        MqttConfig.model_validate({"host": "h"} | wrong)


@pytest.mark.parametrize("files", [{"ca_file": "absent.pem"}, {"username": "u", "password_file": "absent"}])
async def test_files_that_cannot_be_read_are_a_mistake_in_the_configuration(files: dict[str, str]) -> None:
    """The error says which file."""
    with pytest.raises(ConfigError, match=r"absent|TLS"):
        async with mqtt(MqttConfig.model_validate({"host": "127.0.0.1"} | files)):
            pass


async def test_a_cancellation_is_never_lost_to_an_answer(mosquitto: Mosquitto) -> None:
    """Whoever is cancelled while the broker's answer arrives is cancelled all the same."""
    async with mqtt(_config(mosquitto)) as link:
        for rounds in [*range(0, 400, 2)] * 2:
            task = asyncio.create_task(link.publish("x", b""))
            for _ in range(rounds):
                await asyncio.sleep(0)
            is_cancelled = task.cancel()
            await asyncio.wait({task})
            assert task.cancelled() == is_cancelled

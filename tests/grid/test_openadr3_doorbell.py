"""The notifier as a doorbell: where it is, how to log in, and that it rings at every connection and every message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.grid.certificates import Authority
from tests.grid.openadr3_vtn import CLIENT, TestVtn, vtn
from tests.grid.test_openadr3 import config
from tests.grid.wire import PATIENCE_S, Dispatcher
from tests.servers.mosquitto import Mosquitto
from vppd.config.openadr import OpenAdrConfig
from vppd.errors import Refused
from vppd.grid.openadr3 import doorbell
from vppd.grid.openadr3.doorbell import Doorbell, settings_of, until_set
from vppd.grid.openadr3.rest import open_vtn
from vppd.model import Inbound

pytestmark = pytest.mark.integration
NOBODY: dict[str, Any] = {"method": "ANONYMOUS"}


class Bell:
    """A doorbell and how often it has rung."""

    def __init__(self) -> None:
        self.rung = 0
        self.bell: Doorbell | None = None

    def ring(self) -> None:
        """Count."""
        self.rung += 1

    async def until(self, what: Callable[[], bool]) -> None:
        """Wait until it is so. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            while not what():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def at_the_door(server: TestVtn, folder: Path, *programs: str, **more: Any) -> AsyncIterator[Bell]:
    """Run a doorbell for the time of the block."""
    settings, found, mono_s = config(server, folder, **more), Bell(), asyncio.get_running_loop().time
    async with open_vtn(settings, mono_s) as link:
        found.bell = Doorbell(link, settings, "vppd-dc1-openadr", mono_s, found.ring)
        task = asyncio.create_task(found.bell.run())
        found.bell.programs(programs)
        try:
            yield found
        finally:
            task.cancel()
            await asyncio.wait((task,))


def said(topic: str) -> Inbound:
    """Return a notification, as the reference server makes them."""
    return Inbound(topic, b'{"object_type": "EVENT", "operation": "UPDATE"}', 1, True)


async def test_it_rings_at_every_connection_and_message(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Connected, it rings; at a message of a program or of ours at the server, it rings; after a loss of the broker, it rings."""
    async with vtn() as server:
        server.notifier = f"mqtt://{mosquitto.host}:{mosquitto.port}"
        server.vens = [{"id": "v-7", "venName": "vppd"}]
        async with at_the_door(server, tmp_path, "p-1") as found:
            await found.until(lambda: found.rung == 1)
            with Dispatcher(mosquitto) as notifier:
                for topic in ("programs/p-1/events/create", "vens/v-7/events/delete", "programs/p-2/events/create"):
                    await notifier.send(said(topic))
            await found.until(lambda: found.rung == 3)
            assert found.bell is not None
            assert (found.bell.rings.connections, found.bell.rings.messages) == (1, 2)
            mosquitto.restart(kill=True)
            await found.until(lambda: found.bell is not None and found.bell.rings.connections == 2)


async def test_it_follows_the_programs(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Without programs it listens nowhere; with another one it listens to that one's topics, as the server assigns them."""
    async with vtn() as server:
        server.notifier = f"mqtt://{mosquitto.host}:{mosquitto.port}"
        async with at_the_door(server, tmp_path) as found:
            assert found.bell is not None
            bell = found.bell
            found.bell.programs(["p-1"])
            await found.until(lambda: bell.rings.connections == 1)
            bell.programs(id for id in ("p-1", "p-2"))
            await found.until(
                lambda: any("p-2" in topic for topic in bell.rings.topics) and bell.rings.connections == 1
            )
            with Dispatcher(mosquitto) as notifier:
                before = found.rung
                await notifier.send(said("programs/p-2/events/create"))
            await found.until(lambda: found.rung == before + 1)


async def test_without_a_notifier_it_says_why_and_asks_again(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server without a notifier is asked again later; polling is not in its way."""
    monkeypatch.setattr(doorbell, "AGAIN_AFTER_S", 0.02)
    async with vtn() as server:
        server.notifier = ""
        async with at_the_door(server, tmp_path, "p-1") as found:
            assert found.bell is not None
            bell = found.bell
            await found.until(lambda: bell.rings.trouble == "the server has no MQTT notifier")
            server.notifier = f"mqtt://{mosquitto.host}:{mosquitto.port}"
            await found.until(lambda: bell.rings.connections == 1)
            assert bell.rings.trouble == ""


async def test_the_token_logs_in(mosquitto_factory: Callable[..., Mosquitto], tmp_path: Path) -> None:
    """A notifier that wants the access token gets the one in hand, under the name that the server says."""
    broker = mosquitto_factory(users={CLIENT: "token-1"})
    async with vtn() as server:
        server.notifier = f"mqtt://{broker.host}:{broker.port}"
        server.authentication = {"method": "OAUTH2_BEARER_TOKEN", "username": "{clientID}"}
        async with at_the_door(server, tmp_path, "p-1") as found:
            await found.until(lambda: found.rung == 1)


async def test_certificates_of_the_server_log_in(mosquitto_factory: Callable[..., Mosquitto], tmp_path: Path) -> None:
    """Over TLS, with the client's certificate that the server gives out; a plaintext address beside it is not taken."""
    authority = Authority(tmp_path)
    ours, theirs = authority.issue("ven"), authority.issue("broker")
    tls = f"cafile {authority.file}\ncertfile {theirs.cert}\nkeyfile {theirs.key}\nrequire_certificate true\n"
    broker = mosquitto_factory(settings=tls)
    async with vtn() as server:
        server.notifier = f"mqtts://{broker.host}:{broker.port}"
        server.authentication = {
            "method": "CERTIFICATE",
            "caCert": authority.file.read_text(),
            "clientCert": ours.cert.read_text(),
            "clientKey": ours.key.read_text(),
        }
        async with at_the_door(server, tmp_path, "p-1") as found:
            await found.until(lambda: found.rung == 1)


def settings(uris: list[Any], authentication: Any = NOBODY, **more: Any) -> tuple[str, int, bool]:
    """Return where we would listen, and whether by TLS."""
    lab = {"insecure_lab": more.pop("lab", False), "client_secret_file": "s", "client_id": "ven"}
    how = OpenAdrConfig.model_validate({"url": "https://vtn.test/3.1"} | lab)
    mqtt = {"URIS": uris, "serialization": "JSON", "authentication": authentication} | more
    found = settings_of({"MQTT": mqtt}, how, "vppd", lambda: "token")
    return found.host, found.port, found.tls is not None


def test_the_best_address_is_taken() -> None:
    """Encrypted goes before plaintext, which only a lab takes; a port that is not said is the usual one."""
    assert settings(["mqtt://a", "mqtts://b"]) == ("b", 8883, True)
    assert settings(["mqtts://b:9999"]) == ("b", 9999, True)
    assert settings(["wss://c", "mqtt://a:1"], lab=True) == ("a", 1, False)


@pytest.mark.parametrize(
    ("uris", "authentication", "more", "reason"),
    [
        (["mqtt://a"], NOBODY, {}, "encrypted"),
        (["wss://a", "mqtts://a:none", 7], NOBODY, {}, "encrypted"),
        (["mqtts://a"], {"method": "KERBEROS"}, {}, "KERBEROS"),
        (["mqtts://a"], {"method": "CERTIFICATE"}, {}, "certificates"),
        (["mqtts://a"], {"method": "CERTIFICATE", "caCert": "x", "clientCert": "y", "clientKey": "z"}, {}, "certif"),
        (["mqtts://a"], NOBODY, {"serialization": "CBOR"}, "CBOR"),
        ("mqtts://a", NOBODY, {}, "no MQTT notifier"),
    ],
)
def test_what_cannot_be_listened_to(uris: Any, authentication: Any, more: dict[str, Any], reason: str) -> None:
    """What the server says and we cannot or should not do leaves a reason, and polling goes on."""
    with pytest.raises(Refused, match=reason):
        settings(uris, authentication, **more)


async def test_until_set_ends_the_work_and_passes_on_what_it_raises() -> None:
    """The event ends the work; an error of the work is not swallowed; its own cancellation ends both."""
    event, began = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        await asyncio.Event().wait()

    async def fail() -> None:
        raise Refused("no")

    waiting = asyncio.create_task(until_set(event, work()))
    await began.wait()
    event.set()
    await waiting
    with pytest.raises(Refused):
        await until_set(asyncio.Event(), fail())
    waiting = asyncio.create_task(until_set(asyncio.Event(), work()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

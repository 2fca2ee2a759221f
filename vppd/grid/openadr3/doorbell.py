"""The MQTT notifier of an OpenADR server as a doorbell: whatever it says, and whenever it is connected, the server is asked by REST."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import structlog

from vppd.config.openadr import OpenAdrConfig
from vppd.errors import ConfigError, DeviceError, Refused
from vppd.grid.broker import BrokerSettings
from vppd.grid.openadr3.config import tls_of
from vppd.grid.openadr3.rest import Vtn
from vppd.grid.transport import listen

AGAIN_AFTER_S = 60.0
"""The server is asked for its notifier again so long after that has failed. [s]"""
PORTS = {"mqtt": 1883, "tcp": 1883, "mqtts": 8883, "ssl": 8883}
ENCRYPTED = ("mqtts", "ssl")

log = structlog.get_logger()


@dataclass(slots=True)
class Rings:
    """How the doorbell is doing."""

    address: str = ""
    """Where we listen; empty: nowhere."""
    topics: tuple[str, ...] = ()
    connections: int = 0
    messages: int = 0
    trouble: str = ""
    """Why we do not listen; polling goes on."""


class Doorbell:
    """Rings at every connection to the server's notifier and at every message of it."""

    def __init__(
        self, vtn: Vtn, config: OpenAdrConfig, client_id: str, mono_s: Callable[[], float], ring: Callable[[], None]
    ) -> None:
        self._vtn, self._config, self._client_id, self._mono_s, self._ring = vtn, config, client_id, mono_s, ring
        self._programs: frozenset[str] = frozenset()
        self._moved = asyncio.Event()
        self.rings = Rings()

    def programs(self, ids: Iterable[str]) -> None:
        """Listen for these programs from now on."""
        found = frozenset(ids)
        if found != self._programs:
            self._programs = found
            self._moved.set()

    async def run(self) -> None:
        """Listen for ever; without a notifier, or without programs, only wait for some."""
        while True:
            self._moved.clear()
            if self._programs:
                await until_set(self._moved, self._attend())
            await self._moved.wait()

    async def _attend(self) -> None:
        while True:
            try:
                settings = settings_of(
                    await self._vtn.notifiers(), self._config, self._client_id, lambda: self._vtn.token
                )
                topics = await self._topics()
            except (DeviceError, ConfigError) as error:
                if str(error) != self.rings.trouble:
                    log.warning("openadr_no_notifier", issuer=self._config.issuer, reason=str(error))
                self.rings.trouble = str(error)
                await asyncio.sleep(AGAIN_AFTER_S)
                continue
            self.rings = Rings(f"{settings.host}:{settings.port}", topics)
            async with aclosing(listen(settings, topics, self._mono_s, self._connected)) as messages:
                async for _ in messages:
                    self.rings.messages += 1
                    self._ring()

    async def _topics(self) -> tuple[str, ...]:
        try:
            known = await self._vtn.vens(self._config.client_name)
        except Refused:
            known = []
        vens = [str(ven["id"]) for ven in known if isinstance(ven, dict) and ven.get("id")]
        topics = await self._vtn.topics(sorted(self._programs), vens)
        if not topics:
            raise Refused("the server names no topics for what we may read")
        return topics

    def _connected(self) -> None:
        self.rings.connections += 1
        self._ring()


def settings_of(
    said: Mapping[str, Any], config: OpenAdrConfig, client_id: str, token: Callable[[], str]
) -> BrokerSettings:
    """Return how to reach the notifier that the server tells of. Raises Refused, with the reason, when we cannot or should not."""
    mqtt = said.get("MQTT")
    if not isinstance(mqtt, Mapping) or not isinstance(mqtt.get("URIS"), list):
        raise Refused("the server has no MQTT notifier")
    if mqtt.get("serialization", "JSON") != "JSON":
        raise Refused(f"the notifier speaks {str(mqtt['serialization'])[:40]!r}")
    scheme, host, port = _address(mqtt["URIS"], plaintext=config.insecure_lab)
    found = mqtt.get("authentication")
    how: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    method, tls = how.get("method", "ANONYMOUS"), None
    login: dict[str, Any] = {}
    if scheme in ENCRYPTED:
        tls = _certified(how) if method == "CERTIFICATE" and config.cert_file is None else tls_of(config)
    if method == "OAUTH2_BEARER_TOKEN":
        login = {"username": str(how.get("username", "")).replace("{clientID}", config.client_id), "token": token}
    elif method not in ("ANONYMOUS", "CERTIFICATE"):
        raise Refused(f"the notifier wants {str(method)[:40]!r}, which we do not have")
    return BrokerSettings(host, port, client_id, "3.1.1", tls=tls, **login)


def _address(uris: Iterable[Any], *, plaintext: bool) -> tuple[str, str, int]:
    """Return scheme, host and port of the best address: encrypted if there is one. Raises Refused when none will do."""
    named = [found for uri in uris if (found := _parts(str(uri))) is not None]
    allowed = [found for found in named if plaintext or found[0] in ENCRYPTED]
    if not allowed:
        raise Refused("the notifier has no address that is encrypted MQTT over TCP")
    return min(allowed, key=lambda found: found[0] not in ENCRYPTED)


def _parts(uri: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port, None for what is no address of MQTT over TCP."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (parts.scheme, host, port or PORTS[parts.scheme]) if host and parts.scheme in PORTS else None


def _certified(how: Mapping[str, Any]) -> ssl.SSLContext:
    """Return how to show the certificate that the server has given us. Raises Refused when it cannot be used."""
    try:
        context = ssl.create_default_context(cadata=str(how["caCert"]))
        with TemporaryDirectory() as folder:  # the library reads certificates from files alone
            cert, key = Path(folder, "cert.pem"), Path(folder, "key.pem")
            cert.write_text(str(how["clientCert"]), encoding="ascii")
            key.touch(mode=0o600)
            key.write_text(str(how["clientKey"]), encoding="ascii")
            context.load_cert_chain(cert, key)
    except (KeyError, ValueError, OSError) as error:
        raise Refused(f"the certificates that the server gives out cannot be used: {error}") from error
    return context


async def until_set(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do the work until the event is set."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(event.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    if not tasks[0].cancelled():
        tasks[0].result()

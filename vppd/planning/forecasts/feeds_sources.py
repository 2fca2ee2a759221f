"""Where feeds come from: files, HTTP servers and topics. Each yields content and its age; what it says is read elsewhere."""

from __future__ import annotations

import asyncio
import ssl
import stat
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Protocol

import httpx

from vppd.config.forecast import ForecastFeedConfig
from vppd.config.grid import BrokerConfig
from vppd.errors import ConfigError, Refused, Unreachable
from vppd.grid.broker import BrokerSettings, reached
from vppd.grid.transport import listen
from vppd.planning.forecasts.feeds_format import MOST_BYTES
from vppd.runtime.clock import Clock, within

LONGEST_WAIT_S = 3_600.0
"""A server that asks for more patience is asked again after this. [s]"""
TOLD_BYTES = 200


@dataclass(frozen=True, slots=True)
class Content:
    """What came, and since when it is what it is."""

    data: bytes
    changed_at: datetime | None
    """None: it may be of any age, because it was kept for whoever comes."""
    fault: str = ""
    """Why nothing is said although something should be: it takes back what was said before."""


class Source(Protocol):
    """Something that is looked at again and again."""

    wait_s: float
    """It asks to be left alone for so long. [s]"""

    async def look(self) -> Content | None:
        """Return what is new, None for nothing. Raises Unreachable or Refused."""
        ...

    def forget(self) -> None:
        """Give the same content again: it could not be read."""
        ...

    async def rest(self, wait_s: float) -> None:
        """Return when it is time to look again, after so long or when something is known to be new. [s]"""
        ...


class FileSource:
    """A file that somebody else writes, best by renaming a whole one into its place."""

    def __init__(self, path: Path) -> None:
        self.wait_s = 0.0
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    async def look(self) -> Content | None:
        """Return the file's content when it has changed. Raises Unreachable or Refused."""
        return await asyncio.to_thread(self._look)

    def forget(self) -> None:
        """Read it again."""
        self._seen = None

    async def rest(self, wait_s: float) -> None:
        """Wait. [s]"""
        await asyncio.sleep(wait_s)

    def _look(self) -> Content | None:
        try:
            known = self._path.stat()
            if not stat.S_ISREG(known.st_mode):
                raise Refused(f"{self._path} is no file")
            seen = (known.st_mtime_ns, known.st_size, known.st_ino)
            if seen == self._seen:
                return None
            with self._path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise Unreachable(f"{self._path} cannot be read: {error.strerror}") from error
        self._seen = seen
        return Content(data, datetime.fromtimestamp(known.st_mtime, UTC))


class HttpSource:
    """A document on a server, asked for only if it has changed."""

    def __init__(self, client: httpx.AsyncClient, config: ForecastFeedConfig, clock: Clock) -> None:
        self.wait_s = 0.0
        self._client, self._config, self._clock = client, config, clock
        self._validators: dict[str, str] = {}

    async def look(self) -> Content | None:
        """Return the document unless it is as it was. Raises Unreachable or Refused."""
        self.wait_s = 0.0
        return await within(self._config.timeout_s, self._ask(), f"{self._config.url} gave no answer")

    def forget(self) -> None:
        """Ask for the whole document again."""
        self._validators = {}

    async def rest(self, wait_s: float) -> None:
        """Wait, longer where the server asks for it. [s]"""
        await asyncio.sleep(max(wait_s, self.wait_s))

    async def _ask(self) -> Content | None:
        headers = {"Accept-Encoding": "identity"} | self._validators | _bearer(self._config.token_file)
        try:
            async with self._client.stream("GET", self._config.url, headers=headers) as response:
                if response.status_code == httpx.codes.NOT_MODIFIED:
                    return None
                if response.status_code != httpx.codes.OK:
                    await self._refuse(response)
                return await self._content(response)
        except httpx.TransportError as error:
            raise Unreachable(f"{self._config.url}: {error or type(error).__name__}") from error
        except httpx.InvalidURL as error:
            raise Refused(f"{self._config.url}: {error}") from error

    async def _content(self, response: httpx.Response) -> Content:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Refused(f"{self._config.url} answers compressed, although asked not to")
        data = await _body(response, MOST_BYTES + 1)
        kept = {"If-None-Match": "ETag", "If-Modified-Since": "Last-Modified"}
        self._validators = {
            ours: response.headers[theirs] for ours, theirs in kept.items() if theirs in response.headers
        }
        now = self._clock.now()
        return Content(data, min(_modified(response) or now, now))

    async def _refuse(self, response: httpx.Response) -> None:
        """Raise what a status other than 200 means."""
        status = response.status_code
        said = (await _body(response, TOLD_BYTES)).decode(errors="replace").strip()
        text = f"{self._config.url} answered {status}" + (f": {said}" if said else "")
        if status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.REQUEST_TIMEOUT) or status >= 500:
            self.wait_s = _patience_s(response, self._clock.now())
            raise Unreachable(text)
        if response.is_redirect:
            text = f"{self._config.url} has moved to {response.headers.get('Location', '?')}: name that in the configuration"
        raise Refused(text)


async def topic_contents(settings: BrokerSettings, topic: str, clock: Clock) -> AsyncGenerator[Content, None]:
    """Yield what comes on a topic, over any number of reconnects; to be closed by whoever leaves it."""
    async with aclosing(listen(settings, (topic,), clock.mono_s)) as messages:
        async for message in messages:
            yield Content(message.payload, None if message.retained else clock.now())


def broker_settings(broker: BrokerConfig, client_id: str) -> BrokerSettings:
    """Return how to listen to a broker. Raises ConfigError when its certificates cannot be used."""
    return reached(broker, client_id, longest_payload=MOST_BYTES)


def http_client(config: ForecastFeedConfig) -> httpx.AsyncClient:
    """Return what asks one server. Raises ConfigError when the authorities cannot be read."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except OSError as error:
        raise ConfigError(f"feed {config.name!r}: {config.ca_file} cannot be used: {error}") from error
    return httpx.AsyncClient(verify=context, timeout=config.timeout_s, trust_env=False, follow_redirects=False)


def read_token(path: Path) -> str:
    """Return a token as the file has it now. Raises Refused."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"the token in {path} cannot be read: {error}") from error
    if not token.isprintable() or not token:
        raise Refused(f"what stands in {path} is no token")
    return token


def _bearer(path: Path | None) -> dict[str, str]:
    return {} if path is None else {"Authorization": f"Bearer {read_token(path)}"}


async def _body(response: httpx.Response, most: int) -> bytes:
    """Return the beginning of a body, no more than ``most`` bytes."""
    found = bytearray()
    async for chunk in response.aiter_raw():
        found += chunk
        if len(found) >= most:
            break
    return bytes(found[:most])


def _modified(response: httpx.Response) -> datetime | None:
    try:
        found = parsedate_to_datetime(response.headers.get("Last-Modified", ""))
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _patience_s(response: httpx.Response, now: datetime) -> float:
    """Return for how long the server asks to be left alone. [s]"""
    said = response.headers.get("Retry-After", "")
    try:
        wait_s = float(said) if said.isdigit() else (parsedate_to_datetime(said) - now) / timedelta(seconds=1)
    except (TypeError, ValueError):
        return 0.0
    return min(max(wait_s, 0.0), LONGEST_WAIT_S)

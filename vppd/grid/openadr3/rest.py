"""An OpenADR 3.1 server over HTTPS: token, pages, entity tags, topics of its notifier, reports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from vppd.config.openadr import OpenAdrConfig
from vppd.errors import ConfigError, Garbled, Refused, Unreachable
from vppd.grid.openadr3.config import secret_of, tls_of

PAGE = 50
"""Most objects the specification allows in one answer."""
FEW = 10
"""A server may give less than we ask for; where so few objects come, these are all."""
MOST_OBJECTS = 5_000
MOST_BYTES = 8 << 20
FRESH_FRAC = 0.8
"""A token is renewed after this part of its life. [0-1]"""
SHORT_LIFE_S = 3600.0
"""Life of a token of which the server does not say how long it lives. [s]"""
REREADS = 3
OPERATIONS = ("CREATE", "UPDATE", "DELETE")


class _Denied(Refused):
    """The token is not good."""


@asynccontextmanager
async def open_vtn(config: OpenAdrConfig, mono_s: Callable[[], float]) -> AsyncIterator[Vtn]:
    """Yield the server, with no request made yet. Raises ConfigError."""
    verify = tls_of(config) if not config.url.startswith("http:") else False
    async with httpx.AsyncClient(verify=verify, timeout=config.timeout_s, trust_env=False) as client:
        yield Vtn(client, config, mono_s)


class Vtn:
    """One server. All methods raise Unreachable, Refused or Garbled."""

    def __init__(self, client: httpx.AsyncClient, config: OpenAdrConfig, mono_s: Callable[[], float]) -> None:
        self._client, self._config, self._mono_s = client, config, mono_s
        self._url = config.url.rstrip("/")
        self._token, self._token_until_s, self._token_url = "", 0.0, config.token_url
        self._tags: dict[str, tuple[str, Any]] = {}
        self.requests = 0
        """Requests made so far, tokens included."""

    @property
    def token(self) -> str:
        """Return the access token in hand, which may have run out; empty before the first request."""
        return self._token

    async def programs(self) -> list[Any]:
        """Return every program the server shows us, as it says them."""
        return await self._list("/programs", {})

    async def events(self, program_id: str) -> list[Any]:
        """Return the events of a program; a server may ignore that we asked for one program alone."""
        return await self._list("/events", {"programID": program_id})

    async def vens(self, name: str) -> list[Any]:
        """Return our own entries under this name."""
        return await self._list("/vens", {"venName": name})

    async def topics(self, program_ids: list[str], ven_ids: list[str]) -> tuple[str, ...]:
        """Return the topics on which the notifier tells of events and programs; those that it does not give us are left out.

        Topics of single operations are preferred to the wildcard: the reference server never publishes to the latter.
        """
        paths = [f"programs/{i}/events" for i in program_ids]
        paths += [f"vens/{i}/{what}" for i in ven_ids for what in ("events", "programs")] + ["programs"]
        found: dict[str, None] = {}
        for path in paths:
            try:
                said = await self._ask("GET", f"/notifiers/mqtt/topics/{path}")
            except Refused:
                continue
            found.update(dict.fromkeys(_topics(said)))
        return tuple(found)

    async def notifiers(self) -> dict[str, Any]:
        """Return what the server says of its notifiers."""
        said = await self._ask("GET", "/notifiers")
        if not isinstance(said, dict):
            raise Garbled("the answer about notifiers makes no sense")
        return said

    async def reports(self, client_name: str) -> list[Any]:
        """Return the reports that the server has under a client's name."""
        return await self._list("/reports", {"clientName": client_name})

    async def report(self, body: Mapping[str, Any]) -> None:
        """Send a report. When nobody knows whether it arrived, look: one that is there already is not sent again."""
        try:
            await self._ask("POST", "/reports", json=dict(body))
        except Unreachable:
            stored = await self.reports(str(body["clientName"]))
            names = {said.get("reportName") for said in stored if isinstance(said, dict)}
            if body["reportName"] not in names:
                raise

    async def _list(self, path: str, query: dict[str, str]) -> list[Any]:
        """Return all pages of a list as it is at one time: while it changes under our hands it is read again."""
        for _ in range(REREADS):
            found = await self._pages(path, query)
            if found is not None:
                return found
        raise Unreachable(f"{path} changes while it is read")

    async def _pages(self, path: str, query: dict[str, str]) -> list[Any] | None:
        """Return all pages, None when an object moved between two of them: each repeats the last object of the one before."""
        found = page = await self._page(path, query, 0)
        while len(page) >= FEW:
            page = await self._page(path, query, len(found) - 1)
            if page and _ids(page) == _ids(found[: len(page)]):
                return found  # the server ignores ``skip``: this was all
            if not page or _ids(page[:1]) != _ids(found[-1:]):
                return None
            if len(page) == 1:
                return found
            found = [*found, *page[1:]]
            if len(found) > MOST_OBJECTS:
                raise Garbled(f"{path} has more than {MOST_OBJECTS} objects")
        return found

    async def _page(self, path: str, query: dict[str, str], skip: int) -> list[Any]:
        page = await self._ask("GET", path, params=query | {"skip": str(skip), "limit": str(PAGE)})
        if not isinstance(page, list):
            raise Garbled(f"{path} is no list")
        return page

    async def _ask(self, method: str, path: str, **how: Any) -> Any:
        """Return the answer to one request; a token that is refused is renewed, once."""
        try:
            return await self._with_token(method, path, **how)
        except _Denied:
            self._token = ""
        return await self._with_token(method, path, **how)

    async def _with_token(self, method: str, path: str, **how: Any) -> Any:
        if not self._token or self._mono_s() >= self._token_until_s:
            await self._renew()
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        return await self._once(method, self._url + path, headers, **how)

    async def _renew(self) -> None:
        config = self._config
        try:
            secret = secret_of(config)
        except ConfigError as error:
            raise Refused(str(error)) from error
        form = {"grant_type": "client_credentials"} | ({"scope": config.scope} if config.scope else {})
        how: dict[str, Any] = {}
        if config.client_auth == "basic":
            how["auth"] = httpx.BasicAuth(config.client_id, secret)
        else:
            form |= {"client_id": config.client_id, "client_secret": secret}
        said = await self._once("POST", await self._where_tokens_are(), {}, data=form, **how)
        if not isinstance(said, dict) or not isinstance(said.get("access_token"), str):
            raise Garbled("the answer to the request for a token has none")
        told_s = said.get("expires_in")
        life_s = float(told_s) if isinstance(told_s, int | float) and told_s > 0 else SHORT_LIFE_S
        self._token = said["access_token"]
        self._token_until_s = self._mono_s() + FRESH_FRAC * life_s

    async def _where_tokens_are(self) -> str:
        """Return the token's address; one that the server names is followed only where it is encrypted."""
        if not self._token_url:
            try:
                said = await self._once("GET", f"{self._url}/auth/server", {})
            except (Refused, Garbled):
                said = {}
            named = said.get("tokenURL", "") if isinstance(said, dict) else ""
            safe = isinstance(named, str) and (named.startswith("https://") or self._config.insecure_lab)
            self._token_url = named if safe and named else f"{self._url}/auth/token"
        return self._token_url

    async def _once(self, method: str, url: str, headers: dict[str, str], **how: Any) -> Any:
        request = self._client.build_request(
            method, url, headers=headers, **{k: v for k, v in how.items() if k != "auth"}
        )
        key = str(request.url) if method == "GET" else ""
        if key in self._tags:
            request.headers["If-None-Match"] = self._tags[key][0]
        self.requests += 1
        try:
            async with asyncio.timeout(self._config.timeout_s):
                response = await self._client.send(request, auth=how.get("auth"), stream=True)
                try:
                    body = await _body(response)
                finally:
                    await response.aclose()
        except (httpx.TransportError, TimeoutError) as error:
            raise Unreachable(f"{method} {request.url.path}: {error or type(error).__name__}") from error
        if response.status_code == httpx.codes.NOT_MODIFIED and key in self._tags:
            return self._tags[key][1]
        return self._judged(response, body, key)

    def _judged(self, response: httpx.Response, body: bytes, key: str) -> Any:
        status, asked = response.status_code, f"{response.request.method} {response.request.url.path}"
        if status >= 500 or status == httpx.codes.TOO_MANY_REQUESTS:
            raise Unreachable(f"{asked}: the server says {status}: {body[:200]!r}")
        if status == httpx.codes.UNAUTHORIZED:
            raise _Denied(f"{asked}: not authorised: {body[:200]!r}")
        if status >= 400:
            raise Refused(f"{asked}: the server says {status}: {body[:200]!r}")
        if status >= 300:
            raise Garbled(f"{asked}: the server says {status}, and redirections are not followed")
        try:
            said = json.loads(body) if body else None
        except (ValueError, RecursionError) as error:
            raise Garbled(f"{asked}: the answer is not JSON") from error
        self._remember(key, response.headers.get("ETag", ""), said)
        return said

    def _remember(self, key: str, tag: str, said: Any) -> None:
        """Keep an answer, so that the server need not give it again while it is as it was."""
        if not key or not tag:
            return
        self._tags[key] = (tag, said)
        while len(self._tags) > 64:
            self._tags.pop(next(iter(self._tags)))


def _topics(said: Any) -> list[str]:
    topics = said.get("topics") if isinstance(said, dict) else None
    if not isinstance(topics, dict):
        return []
    named = [topics[key] for key in OPERATIONS if topics.get(key)] or [topics.get("ALL")]
    return [str(topic) for topic in named if topic]


def _ids(page: list[Any]) -> list[Any]:
    return [entry.get("id") if isinstance(entry, dict) else None for entry in page]


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MOST_BYTES:
            raise Garbled(f"the answer is larger than {MOST_BYTES} bytes")
    return bytes(body)

"""The line to one BMC: session, pace, ETags, and what its errors mean."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from adapters._redfish_lanes import PATIENCE_S, Lanes, Pace
from vppd.errors import Garbled, Refused, Unreachable

Json = dict[str, Any]
SESSIONS = "/redfish/v1/SessionService/Sessions"
_TRIES = 4
_BUSY_S = 1.0
"""A BMC that is busy and does not say for how long is asked again after this time."""
_MEMORY = 0.7
"""Weight of what went before in the mean latency."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who we are to a BMC."""

    user_name: str
    password: str
    session: bool = True
    """Log in once and show a token; else name and password with each request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A resource as it was, with its version."""

    body: Json
    etag: str = ""


class Denied(Refused):
    """The BMC does not take our name and password, or not for this."""


class NotThere(Refused):
    """The BMC has no such resource."""


class Stale(Refused):
    """The resource has changed since it was read."""


class BmcLink:
    """One BMC: one connection, one request at a time."""

    def __init__(
        self, name: str, url: str, account: Account, verify: ssl.SSLContext | bool, timeout_s: float, pace: Pace
    ) -> None:
        self.name = name
        self.latency_s = 0.0
        """Mean of the last few answers. [s]"""
        self._account = account
        self._timeout_s = timeout_s
        self._pace = pace
        self._turn = asyncio.Lock()
        self._token = ""
        self._session = ""
        self._client = httpx.AsyncClient(
            base_url=url,
            verify=verify,
            timeout=httpx.Timeout(timeout_s),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=60.0),
            auth=None if account.session else httpx.BasicAuth(account.user_name, account.password),
            headers={"Accept": "application/json", "OData-Version": "4.0"},
            trust_env=False,
        )
        self._lanes: Lanes | None = None

    def through(self, lanes: Lanes) -> None:
        """Share the places for requests with other BMCs."""
        self._lanes = lanes

    async def get(self, path: str) -> Answer:
        """Return a resource. Raises Unreachable, Refused (NotThere, Denied) or Garbled."""
        reply = await self._ask("GET", path)
        body = _object(self.name, reply)
        return Answer(body, reply.headers.get("ETag") or str(body.get("@odata.etag") or ""))

    async def patch(self, path: str, body: Json, etag: str = "") -> None:
        """Change a resource, if it is still as it was read. Raises Stale, Unreachable, another Refused or Garbled."""
        await self._ask("PATCH", path, body, {"If-Match": etag} if etag else {})

    async def close(self, limit_s: float) -> None:
        """Log out, if that takes no longer than this, and hang up. [s]"""
        if self._session:
            try:
                async with asyncio.timeout(limit_s):
                    await self._once("DELETE", self._session, None, {})
            except (TimeoutError, Unreachable, Refused, Garbled):
                pass  # it ends by itself
        self._token = self._session = ""
        await self._client.aclose()

    # ---- inside ----------------------------------------------------------------------------------------------------

    async def _ask(
        self, method: str, path: str, body: Json | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Return a good reply; an ended session is opened anew, once, and a busy BMC is given the time it asks for."""
        async with self._turn:
            fresh = False
            for _ in range(_TRIES):
                if self._account.session and not self._token:
                    await self._log_in()
                    fresh = True
                reply = await self._once(method, path, body, headers or {})
                if reply.status_code == httpx.codes.UNAUTHORIZED and self._account.session and not fresh:
                    self._token = self._session = ""
                elif reply.status_code in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
                    self._pace.hold_off(_retry_after_s(reply))
                else:
                    return self._judged(reply, path)
            raise Unreachable(f"{self.name}: stays busy (HTTP {reply.status_code}{_words(reply)})")

    async def _log_in(self) -> None:
        body = {"UserName": self._account.user_name, "Password": self._account.password}
        reply = await self._once("POST", SESSIONS, body, {})
        if reply.status_code in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
            self._pace.hold_off(_retry_after_s(reply))
            raise Unreachable(f"{self.name}: takes no more sessions now{_words(reply)}")
        if reply.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise Denied(f"{self.name}: does not take our name and password{_words(reply)}")
        self._judged(reply, SESSIONS)
        self._token = reply.headers.get("X-Auth-Token", "")
        if not self._token:
            raise Garbled(f"{self.name}: opens a session without X-Auth-Token")
        # The path alone: a token is never sent to where an answer points.
        self._session = urlsplit(reply.headers.get("Location", "")).path

    async def _once(self, method: str, path: str, body: Json | None, headers: dict[str, str]) -> httpx.Response:
        """Make one request, twice when the BMC had closed the connection meanwhile. Raises Unreachable."""
        await self._pace.wait()
        if self._token:
            headers = {**headers, "X-Auth-Token": self._token}
        if self._lanes is None:
            return await self._send(method, path, body, headers)
        async with self._lanes.place(self.latency_s > PATIENCE_S):
            return await self._send(method, path, body, headers)

    async def _send(self, method: str, path: str, body: Json | None, headers: dict[str, str]) -> httpx.Response:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return await self._client.request(method, path, json=body, headers=headers)
                except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                    if method == "POST":
                        raise
                    return await self._client.request(method, path, json=body, headers=headers)
        except TimeoutError as error:
            raise Unreachable(f"{self.name}: does not answer within {self._timeout_s:g} s") from error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise Unreachable(f"{self.name}: does not answer: {error or type(error).__name__}") from error
        finally:  # also when it is given up: who did not answer in time is slow
            self.latency_s = _MEMORY * self.latency_s + (1.0 - _MEMORY) * (loop.time() - began_s)

    def _judged(self, reply: httpx.Response, path: str) -> httpx.Response:
        """Return a good reply. Raises what a bad one means."""
        code, said = reply.status_code, f"{self.name}: {path}: HTTP {reply.status_code}{_words(reply)}"
        if reply.is_success:
            return reply
        if code in (httpx.codes.PRECONDITION_FAILED, httpx.codes.PRECONDITION_REQUIRED):
            raise Stale(said)
        if code in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
            raise NotThere(said)
        if code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise Denied(said)
        if reply.is_server_error and code not in (httpx.codes.NOT_IMPLEMENTED, httpx.codes.HTTP_VERSION_NOT_SUPPORTED):
            raise Unreachable(said)
        raise Refused(said)


def _retry_after_s(reply: httpx.Response) -> float:
    """Return how long the BMC wants to be left alone: in seconds, or until a date by its own clock. [s]"""
    text = reply.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        until, now = parsedate_to_datetime(text), parsedate_to_datetime(reply.headers.get("Date", ""))
        return max((until - now).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return _BUSY_S


def _words(reply: httpx.Response) -> str:
    """Return what an error says in words, with a colon before; empty when it says nothing."""
    try:
        error = reply.json()["error"]
        infos = error.get("@Message.ExtendedInfo") or ()
        texts = [str(info["Message"]) for info in infos if isinstance(info, dict) and info.get("Message")]
        text = " ".join(dict.fromkeys(texts)) or str(error.get("message") or error.get("code") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f": {text[:300]}" if text else ""


def _object(name: str, reply: httpx.Response) -> Json:
    try:
        body = reply.json()
    except ValueError as error:
        raise Garbled(f"{name}: {reply.request.url.path} is no JSON") from error
    if not isinstance(body, dict):
        raise Garbled(f"{name}: {reply.request.url.path} is no object")
    return body

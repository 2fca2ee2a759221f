"""A small OpenADR 3.1 server on loopback: programs, events, reports and a notifier's topics, with the known bad habits on request."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vppd.api.serve import serve

Json = dict[str, Any]
CLIENT, SECRET = "ven_client", "999"


@dataclass
class TestVtn:
    """The server; tests change its objects directly and read what was asked of it."""

    __test__ = False

    programs: list[Json] = field(default_factory=list)
    events: list[Json] = field(default_factory=list)
    reports: list[Json] = field(default_factory=list)
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    """Requests by method and path."""
    statuses: Counter[int] = field(default_factory=Counter)
    tokens: set[str] = field(default_factory=set)
    down: bool = False
    """Answers 503 to everything."""
    ignores_program: bool = False
    """``GET /events?programID=`` is computed and ignored."""
    ignores_skip: bool = False
    page_most: int = 50
    naive_stamps: bool = False
    """Stamps are ``YYYY-MM-DD HH:MM:SS``."""
    basic_only: bool = False
    """The token's form wants HTTP Basic."""
    stores_and_fails: bool = False
    """Every POST answers 500 although the object was stored."""
    forbids: tuple[str, ...] = ()
    """Paths answered with 403."""
    topicless: tuple[str, ...] = ()
    """What the notifier answers nonsense about."""
    shifts_once: bool = False
    """The first object disappears after the first page has been read."""
    expires_in_s: int | None = 3600
    notifier: str = "mqtt://127.0.0.1"
    """Where the notifier is said to be; empty: there is none."""
    authentication: Json = field(default_factory=lambda: {"method": "ANONYMOUS"})
    """How the notifier wants to be logged into."""
    vens: list[Json] = field(default_factory=list)
    at: datetime = field(default_factory=lambda: datetime(2026, 3, 2, 11, 0, tzinfo=UTC))

    def add_program(self, name: str, **more: Any) -> Json:
        """Store a program."""
        program = self._object("PROGRAM", f"p-{len(self.programs) + 1}") | {"programName": name} | more
        self.programs.append(program)
        return program

    def add_event(self, event_id: str, kind: str, *values: Any, **more: Any) -> Json:
        """Store an event of one interval, in kW, of the first program unless told otherwise."""
        event = self._object("EVENT", event_id) | {
            "programID": self.programs[0]["id"],
            "payloadDescriptors": [{"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": kind, "units": "KW"}],
            "intervals": [{"id": 0, "payloads": [{"type": kind, "values": list(values)}]}],
        }
        self.events.append(event | more)
        return self.events[-1]

    def delete_event(self, event_id: str) -> None:
        """Delete an event."""
        self.events = [event for event in self.events if event["id"] != event_id]

    def _object(self, kind: str, object_id: str) -> Json:
        stamp = self.at.strftime("%Y-%m-%d %H:%M:%S" if self.naive_stamps else "%Y-%m-%dT%H:%M:%SZ")
        return {"id": object_id, "objectType": kind, "createdDateTime": stamp, "modificationDateTime": stamp}

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        path = request.url.path.removeprefix("/openadr3/3.1.0")
        self.asked[f"{request.method} {path}"] += 1
        response = await self._answer(request, path)
        self.statuses[response.status_code] += 1
        return response

    async def _answer(self, request: Request, path: str) -> Response:
        if self.down:
            return _problem(503, "down")
        if path == "/auth/server":
            return JSONResponse({"tokenURL": f"{self.url}/auth/token"})
        if path == "/auth/token":
            return await self._token(request)
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return _problem(401, "no good token")
        if path in self.forbids:
            return _problem(403, "scope")
        if request.method == "POST" and path == "/reports":
            return await self._store(request)
        if path.startswith("/notifiers"):
            return self._notifier(path)
        lists = {"/programs": self.programs, "/events": self._events(request), "/reports": self.reports}
        if self.vens:
            lists["/vens"] = self.vens
        return self._page(request, lists[path]) if path in lists else _problem(404, "no such path")

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if self.basic_only:
            good = request.headers.get("authorization") == f"Basic {basic}"
        else:
            good = (form.get("client_id"), form.get("client_secret")) == (CLIENT, SECRET)
        if not good or form.get("grant_type") != "client_credentials":
            return _problem(400, "client_id is required")
        token = f"token-{len(self.tokens) + 1}"
        self.tokens.add(token)
        life = {} if self.expires_in_s is None else {"expires_in": self.expires_in_s}
        return JSONResponse({"access_token": token, "token_type": "Bearer"} | life)

    def _events(self, request: Request) -> list[Json]:
        wanted = request.query_params.get("programID")
        return [e for e in self.events if self.ignores_program or not wanted or e["programID"] == wanted]

    def _page(self, request: Request, objects: list[Json]) -> Response:
        skip = 0 if self.ignores_skip else int(request.query_params.get("skip", 0))
        most = min(int(request.query_params.get("limit", 50)), self.page_most)
        if self.ignores_skip:
            most = len(objects)
        body = json.dumps(objects[skip : skip + most]).encode()
        if self.shifts_once and objects is not self.programs and not skip:
            self.shifts_once = False
            self.events = self.events[1:]
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return Response(body, media_type="application/json", headers={"ETag": tag})

    async def _store(self, request: Request) -> Response:
        report = await request.json()
        assert all(d["objectType"] == "REPORT_PAYLOAD_DESCRIPTOR" for d in report["payloadDescriptors"])
        stored = self._object("REPORT", f"r-{len(self.reports) + 1}") | report
        self.reports.append(stored)
        return _problem(500, "globals has no attribute MQTTC") if self.stores_and_fails else JSONResponse(stored, 201)

    def _notifier(self, path: str) -> Response:
        if path == "/notifiers":
            said = {"URIS": [self.notifier], "serialization": "JSON", "authentication": self.authentication}
            return JSONResponse({"WEBHOOK": True} | ({"MQTT": said} if self.notifier else {}))
        about = path.removeprefix("/notifiers/mqtt/topics/")
        if about in self.topicless:
            return JSONResponse([])
        topics = {word: f"{about}/{word.lower()}" for word in ("CREATE", "UPDATE", "DELETE", "ALL")}
        return JSONResponse({"topics": topics})


def _problem(status: int, detail: str) -> Response:
    return JSONResponse({"status": status, "title": detail}, status)


@asynccontextmanager
async def vtn() -> AsyncIterator[TestVtn]:
    """Yield a server that listens on loopback."""
    server = TestVtn()
    app = Starlette(routes=[Route("/openadr3/3.1.0/{rest:path}", server.handle, methods=["GET", "POST", "PUT"])])
    app.state.closing = asyncio.Event()
    bound: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(app, "127.0.0.1:0", bound.set_result))
    try:
        server.url = f"http://{await bound}/openadr3/3.1.0"
        yield server
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

"""slurmrestd as a hall's workload manager would run it, plus one path of our own for node power caps."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from vppd.sim.faults import Fault, Outage
from vppd.sim.jobs import HallBoard, Job
from vppd.sim.slurm_json import (
    VERSIONS,
    JsonObject,
    describe_job,
    describe_node,
    describe_partition,
    envelope,
    failure,
    openapi,
)

_INVALID_JOB = 2017
_ALREADY_DONE = 2021
_JOB_PENDING = 2020
_BAD_NODE = 2006
_PARSE = 9000
_STOP = ("SIGSTOP", "STOP", "19", "SIGTSTP", "TSTP", "20")
_CONT = ("SIGCONT", "CONT", "18")
_KILL = ("SIGKILL", "KILL", "9", "SIGTERM", "TERM", "15")
_UPDATABLE = ("hold", "comment", "admin_comment", "time_limit", "priority", "name", "requeue", "nice", "qos")

Handler = Callable[[Request], Awaitable[Response]]


class SlurmRest:
    """The REST face of one hall."""

    def __init__(self, board: HallBoard, user_name: str, token: str, outage: Outage) -> None:
        self._board = board
        self._user_name = user_name
        self._token = token
        self._outage = outage

    def app(self) -> Starlette:
        """Return the ASGI application."""
        routes = [Route(path, self._openapi) for path in ("/openapi", "/openapi/v3", "/openapi.json")]
        served: list[tuple[str, Handler, list[str]]] = [
            ("ping", self._ping, ["GET"]),
            ("jobs", self._jobs, ["GET"]),
            ("job/{job_id}", self._job, ["GET"]),
            ("job/{job_id}", self._update, ["POST"]),
            ("job/{job_id}", self._delete, ["DELETE"]),
            ("nodes", self._nodes, ["GET"]),
            ("node/{name}", self._node, ["GET"]),
            ("partitions", self._partitions, ["GET"]),
            ("partition/{name}", self._partitions, ["GET"]),
        ]
        for path, handler, methods in served:
            routes += [Route(f"/slurm/{{version}}/{path}{end}", handler, methods=methods) for end in ("", "/")]
        routes += [
            Route("/vppd-sim/v1/nodes", self._caps, methods=["GET"]),
            Route("/vppd-sim/v1/nodes/{name}", self._cap, methods=["GET", "POST"]),
        ]
        return Starlette(routes=routes, middleware=[Middleware(_Gate, rest=self)])

    async def admit(self, request: Request) -> Response | None:
        """Return the reply to a request that goes no further: device out of order, no token, wrong token, wrong version."""
        if self._outage.now() is Fault.REFUSE:
            return PlainTextResponse("Internal error", 500)
        if request.url.path.startswith("/vppd-sim/"):
            return None
        user, token = request.headers.get("x-slurm-user-name", ""), request.headers.get("x-slurm-user-token")
        if token is None:
            return PlainTextResponse("Authentication failure", 401)
        version = request.url.path.split("/")[2] if request.url.path.startswith("/slurm/") else VERSIONS[0]
        if version not in VERSIONS:
            return PlainTextResponse("Unable to find requested URL", 404)
        if user not in ("", self._user_name, "root") or not hmac.compare_digest(token.encode(), self._token.encode()):
            text = "Protocol authentication error"
            return JSONResponse(failure(version, 1007, text, "The token was not accepted", jobs=[]), 500)
        return None

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(openapi())

    async def _ping(self, request: Request) -> Response:
        pings = [{"hostname": self._board.partition, "ping": "UP", "status": 0, "mode": "primary"}]
        return _reply(request, pings=pings)

    async def _jobs(self, request: Request) -> Response:
        version = request.path_params["version"]
        return _reply(request, jobs=[describe_job(self._board, job, version) for job in self._board.jobs.values()])

    async def _job(self, request: Request) -> Response:
        job = self._find(request)
        if job is None:
            return self._no_such_job(request)
        return _reply(request, jobs=[describe_job(self._board, job, request.path_params["version"])])

    async def _update(self, request: Request) -> Response:
        """Update a job from a flat body; a parse error is a 200 with errors, as slurmrestd has it."""
        job = self._find(request)
        if job is None:
            return self._no_such_job(request)
        try:
            body = await request.json()
        except json.JSONDecodeError:
            body = None
        problem = _problem(body)
        if problem:
            self._board.log.refused += 1
            return _failed(request, 200, _PARSE, "Unable to parse query", problem)
        if self._outage.now() is not Fault.ACK_IGNORE:
            self._apply(job, body)
        return _reply(request)

    def _apply(self, job: Job, body: JsonObject) -> None:
        """Carry out an update that has been judged."""
        self._board.log.updates += 1
        if "hold" in body:
            self._board.hold(job, held=bool(body["hold"]))
        if "comment" in body:
            job.comment = body["comment"]
        if "admin_comment" in body:
            job.admin_comment = body["admin_comment"]
        if "time_limit" in body:
            job.time_limit_min = _integer(body["time_limit"]) or job.time_limit_min

    async def _delete(self, request: Request) -> Response:
        """Signal a job, or cancel it when no signal is named."""
        job = self._find(request)
        if job is None:
            return self._no_such_job(request)
        signal = request.query_params.get("signal", "SIGKILL").upper()
        if job.over:
            return _failed(request, 500, _ALREADY_DONE, "Job/step already completing or completed", signal)
        if job.state == "PENDING" and signal not in _KILL:
            return _failed(request, 500, _JOB_PENDING, "Job is pending execution", signal)
        if self._outage.now() is Fault.ACK_IGNORE:
            return _reply(request)
        if signal in _STOP:
            self._board.stop(job)
        elif signal in _CONT:
            self._board.resume(job)
        elif signal in _KILL:
            self._board.cancel(job)
        else:
            return _failed(request, 200, _PARSE, "Unable to parse query", f"signal {signal}")
        return _reply(request)

    async def _nodes(self, request: Request) -> Response:
        version = request.path_params["version"]
        return _reply(
            request, nodes=[describe_node(self._board, n, version) for n in range(self._board.hall.spec.nodes)]
        )

    async def _node(self, request: Request) -> Response:
        node = self._board.node_number(request.path_params["name"])
        if node is None:
            return _failed(request, 500, _BAD_NODE, "Invalid node name specified", request.path_params["name"])
        return _reply(request, nodes=[describe_node(self._board, node, request.path_params["version"])])

    async def _partitions(self, request: Request) -> Response:
        return _reply(request, partitions=[describe_partition(self._board, request.path_params["version"])])

    async def _caps(self, request: Request) -> Response:
        return JSONResponse({"nodes": [self._cap_state(node) for node in range(self._board.hall.spec.nodes)]})

    async def _cap(self, request: Request) -> Response:
        """Show or set a node's power cap: {"cap_w": W or null, "valid_for_s": s (optional)}."""
        node = self._board.node_number(request.path_params["name"])
        if node is None:
            return JSONResponse({"error": "no such node"}, 404)
        if request.method == "POST":
            try:
                body = await request.json()
            except json.JSONDecodeError:
                body = None
            if not _is_cap(body):
                self._board.log.refused += 1
                return JSONResponse({"error": 'expected {"cap_w": number or null}'}, 422)
            if self._outage.now() is not Fault.ACK_IGNORE:
                self._board.cap(node, body["cap_w"], body.get("valid_for_s"))
        return JSONResponse(self._cap_state(node))

    def _cap_state(self, node: int) -> JsonObject:
        """Return a node's cap and the range in which caps bind. [W]"""
        spec = self._board.hall.spec
        return {
            "name": self._board.node_name(node),
            "cap_w": self._board.cap_of(node),
            "power_w": float(self._board.state.power_w[node]),
            "min_cap_w": spec.node_min_cap_w,
            "max_cap_w": spec.node_max_w,
            "base_w": spec.node_busy_w,
        }

    def _find(self, request: Request) -> Job | None:
        """Return the job the path names."""
        job_id = request.path_params["job_id"]
        return self._board.jobs.get(int(job_id)) if job_id.isdecimal() else None

    def _no_such_job(self, request: Request) -> Response:
        return _failed(request, 500, _INVALID_JOB, "Invalid job id specified", request.path_params["job_id"], jobs=[])


class _Gate:
    """Middleware: refusals come before any handler; silence and hang-ups come before that, in the server."""

    def __init__(self, app: ASGIApp, rest: SlurmRest) -> None:
        self._app = app
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] == "http":
            refused = await self._rest.admit(Request(scope, receive))
            await (refused or self._app)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _reply(request: Request, **parts: Any) -> Response:
    """Return a good reply in the version asked for."""
    return JSONResponse(envelope(request.path_params["version"], **parts))


def _failed(request: Request, status: int, number: int, text: str, description: str, **parts: Any) -> Response:
    """Return a bad reply in the version asked for."""
    return JSONResponse(failure(request.path_params["version"], number, text, description, **parts), status)


def _problem(body: Any) -> str:
    """Return what is wrong with an update, empty when nothing is."""
    if not isinstance(body, dict):
        return "body is not an object"
    unknown = [key for key in body if key not in _UPDATABLE]
    if unknown:
        return f"unknown key {unknown[0]}"
    if "priority" in body and not _integer(body["priority"]):
        return "Priority must be >0"
    if "hold" in body and not isinstance(body["hold"], bool):
        return "hold is not a boolean"
    texts = (body.get(key, "") for key in ("comment", "admin_comment"))
    return "" if all(isinstance(text, str) for text in texts) else "comment is not a string"


def _integer(value: Any) -> int:
    """Return a number given plainly or as {"number": n}, 0 when it is none."""
    number = value.get("number") if isinstance(value, dict) else value
    return number if isinstance(number, int) else 0


def _is_cap(body: Any) -> bool:
    """Say whether a body is a power cap."""
    if not isinstance(body, dict) or "cap_w" not in body or set(body) - {"cap_w", "valid_for_s"}:
        return False
    return all(value is None or (isinstance(value, int | float) and value > 0) for value in body.values())

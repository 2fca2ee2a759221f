"""A farm of BMCs that speak Redfish over real sockets, each on a port of its own; and each as bad as BMCs are."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

USER, PASSWORD = "vppd", "correct horse"
SESSIONS = "/redfish/v1/SessionService/Sessions"
Reply = tuple[int, dict[str, Any] | None, dict[str, str]]
_WORDS = {200: "OK", 201: "Created", 202: "Accepted", 204: "No Content"}


@dataclass
class Behaviour:
    """What a BMC is like."""

    style: str = "metrics"
    """metrics, control, percent, power, gpus, bare (no limits at all)."""
    demand_w: float = 6000.0
    """What the node would draw."""
    limit_w: float | None = None
    """The limit now; of all GPUs together where these are limited one by one."""
    mode: str = ""
    """ControlMode; empty: there is none."""
    min_w: float = 2000.0
    max_w: float = 10_000.0
    gpus: int = 8
    dead: str = ""
    """silent: takes connections and never answers; gone: closes them at once."""
    least_s: float = 0.0
    most_s: float = 0.0
    """Latency of each answer."""
    etags: bool = True
    strict: bool = False
    """Refuses a PATCH without If-Match."""
    races: int = 0
    """So many of the next PATCHes find that somebody has just changed the resource."""
    tokens: int = 10**9
    """A session ends after so many requests."""
    busy: int = 0
    """So many of the next requests get 429."""
    busy_status: int = 429
    retry_after: str = "0"
    per_s: float = 0.0
    """Requests a second before it says 429; 0: any number."""
    clamp_w: float = 0.0
    """Limits below this are silently raised to it."""
    deaf: bool = False
    """Takes limits and does not apply them."""
    refuses: bool = False
    whole_words: bool = False
    """Refuses a set point together with ControlMode Disabled."""
    shows_after: int = 0
    """A new limit shows after so many readings."""


@dataclass
class FakeBmc:
    """One BMC."""

    name: str
    how: Behaviour
    port: int = 0
    version: int = 1
    patches: list[dict[str, Any]] = field(default_factory=list)
    requests: int = 0
    logins: int = 0
    most_at_once: int = 0
    without_token: int = 0
    meterless: bool = False
    """Tells no power of the whole node."""
    on_patch: Callable[[], object] | None = None
    """Called before a PATCH is carried out."""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _sessions: dict[str, int] = field(default_factory=dict)
    _at_once: int = 0
    _window: list[float] = field(default_factory=list)
    _pending: tuple[int, str, dict[str, Any]] | None = None
    _versions: dict[str, int] = field(default_factory=dict)
    _gpu_w: dict[str, float | None] = field(default_factory=dict)

    def etag(self, path: str) -> str:
        """Return the version of a resource."""
        return f'W/"{self.version}.{self._versions.get(path, 0)}"'

    @property
    def cap_w(self) -> float | None:
        """Return the limit in force."""
        return None if self.how.mode == "Disabled" else self.how.limit_w

    @property
    def power_w(self) -> float:
        """Return what the node draws."""
        return self.how.demand_w if self.cap_w is None else min(self.how.demand_w, max(self.cap_w, 500.0))

    # ---- HTTP ------------------------------------------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it is closed."""
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if self.how.dead == "gone":
                    break
                if self.how.dead == "silent":
                    await reader.read()
                    break
                writer.write(_wire(await self._timed(method, path, headers, body)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def hang_up(self) -> None:
        """Close all connections, as BMCs do with idle ones."""
        for writer in self._writers:
            writer.close()

    async def _timed(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        self.requests += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        if self.how.most_s > 0.0:
            await asyncio.sleep(random.uniform(self.how.least_s, self.how.most_s))
        self._at_once -= 1
        return self._reply(method, path, headers, json.loads(body) if body else {})

    def _reply(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> Reply:
        if self._is_busy():
            said = _error("Base.1.0.ServiceTemporarilyUnavailable", "The BMC is busy.")
            return self.how.busy_status, said, {"Retry-After": self.how.retry_after}
        if method == "POST" and path == SESSIONS:
            return self._log_in(body)
        if not self._is_known(headers):
            self.without_token += 1
            return 401, _error("Base.1.0.NoValidSession", "There is no valid session."), {}
        if method == "DELETE":
            self._sessions.pop(headers.get("x-auth-token", ""), None)
            return 204, None, {}
        if method == "PATCH":
            return self._patch(path, headers, body)
        found = self._tree(path)
        if found is None:
            return 404, _error("Base.1.0.ResourceMissingAtURI", f"There is no {path}."), {}
        self._show()
        return 200, found, {"ETag": self.etag(path)} if self.how.etags else {}

    def _is_busy(self) -> bool:
        if self.how.busy > 0:
            self.how.busy -= 1
            return True
        if self.how.per_s > 0.0:
            now_s = asyncio.get_running_loop().time()
            self._window = [at_s for at_s in self._window if now_s - at_s < 1.0]
            if len(self._window) >= self.how.per_s:
                return True
            self._window.append(now_s)
        return False

    def _log_in(self, body: dict[str, Any]) -> Reply:
        if (body.get("UserName"), body.get("Password")) != (USER, PASSWORD):
            return 401, _error("Base.1.0.InsufficientPrivilege", "Wrong name or password."), {}
        self.logins += 1
        token = f"{self.name}-{self.logins}"
        self._sessions[token] = self.how.tokens
        where = f"{SESSIONS}/{self.logins}"
        return 201, {"@odata.id": where}, {"X-Auth-Token": token, "Location": where}

    def _is_known(self, headers: dict[str, str]) -> bool:
        if headers.get("authorization", "").startswith("Basic "):
            return base64.b64decode(headers["authorization"][6:]).decode() == f"{USER}:{PASSWORD}"
        token = headers.get("x-auth-token", "")
        if self._sessions.get(token, 0) <= 0:
            return False
        self._sessions[token] -= 1
        return True

    # ---- resources -------------------------------------------------------------------------------------------------

    def _tree(self, path: str) -> dict[str, Any] | None:
        chassis = "/redfish/v1/Chassis/Node"
        found: dict[str, dict[str, Any]] = {
            "/redfish/v1/Chassis": _members(chassis),
            chassis: {
                "@odata.id": chassis,
                "ChassisType": "RackMount",
                "EnvironmentMetrics": _ref(f"{chassis}/EnvironmentMetrics"),
                "Controls": _ref(f"{chassis}/Controls"),
                "Power": _ref(f"{chassis}/Power"),
            },
            "/redfish/v1/Systems": _members("/redfish/v1/Systems/System"),
            "/redfish/v1/Systems/System": {"Processors": _ref("/redfish/v1/Systems/System/Processors")},
            f"{chassis}/EnvironmentMetrics": {}
            if self.meterless
            else {"PowerWatts": {"Reading": round(self.power_w, 1)}},
        }
        found |= getattr(self, f"_{self.how.style}")(chassis)
        return found.get(path)

    def _range(self) -> dict[str, Any]:
        mode = {"ControlMode": self.how.mode} if self.how.mode else {}
        return {"AllowableMin": self.how.min_w, "AllowableMax": self.how.max_w, **mode}

    def _bare(self, chassis: str) -> dict[str, dict[str, Any]]:
        return {}

    def _metrics(self, chassis: str) -> dict[str, dict[str, Any]]:
        limit = {"SetPoint": self.how.limit_w, **self._range()}
        reading = {"Reading": round(self.power_w, 1)}
        return {f"{chassis}/EnvironmentMetrics": {"PowerWatts": reading, "PowerLimitWatts": limit}}

    def _control(self, chassis: str) -> dict[str, dict[str, Any]]:
        at = f"{chassis}/Controls/PowerLimit"
        body = {"ControlType": "Power", "SetPointUnits": "W", "SetPoint": self.how.limit_w, **self._range()}
        fan = f"{chassis}/Controls/FanPower"
        return {
            f"{chassis}/Controls": _members(fan, at),
            fan: {"ControlType": "DutyCycle", "SetPoint": 50},
            at: body,
        }

    def _percent(self, chassis: str) -> dict[str, dict[str, Any]]:
        found = self._control(chassis)
        limit_w = self.how.limit_w
        found[f"{chassis}/Controls/PowerLimit"] |= {
            "SetPointUnits": "%",
            "SetPoint": None if limit_w is None else round(100.0 * limit_w / self.how.max_w),
        }
        return found

    def _power(self, chassis: str) -> dict[str, dict[str, Any]]:
        entry = {"PowerConsumedWatts": round(self.power_w), "PowerLimit": {"LimitInWatts": self.how.limit_w}}
        part = {"PowerConsumedWatts": 200, "PowerLimit": {"LimitInWatts": None}}
        none: dict[str, Any] = {}
        return {
            f"{chassis}/EnvironmentMetrics": none,
            f"{chassis}/Power": {"PowerControl": [{"PowerConsumedWatts": round(self.power_w)}, entry, part]},
        }

    def _gpus(self, chassis: str) -> dict[str, dict[str, Any]]:
        root = "/redfish/v1/Systems/System/Processors"
        found = {root: _members(f"{root}/CPU_0", *(f"{root}/GPU_SXM_{i}" for i in range(self.how.gpus)))}
        found[f"{root}/CPU_0"] = {
            "ProcessorType": "CPU",
            "EnvironmentMetrics": _ref(f"{root}/CPU_0/EnvironmentMetrics"),
        }
        for i in range(self.how.gpus):
            at = f"{root}/GPU_SXM_{i}"
            limit = {"SetPoint": self._gpu_w.get(f"{at}/EnvironmentMetrics"), "AllowableMin": 200, "AllowableMax": 700}
            reading = {} if self.meterless else {"PowerWatts": {"Reading": 500.0}}
            found[at] = {"ProcessorType": "GPU", "EnvironmentMetrics": _ref(f"{at}/EnvironmentMetrics")}
            found[f"{at}/EnvironmentMetrics"] = {**reading, "PowerLimitWatts": limit}
        return found

    # ---- changes ---------------------------------------------------------------------------------------------------

    def _patch(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Reply:
        if self.on_patch is not None:
            self.on_patch()
        condition = headers.get("if-match", "")
        if self.how.races > 0:
            self.how.races -= 1
            self.version += 1
        if self.how.strict and not condition:
            return 428, _error("Base.1.0.PreconditionRequired", "If-Match is needed."), {}
        if condition not in ("", "*", self.etag(path)):
            return 412, _error("Base.1.0.PreconditionFailed", "The resource has changed."), {}
        if self.how.refuses:
            return 400, _error("Base.1.0.PropertyNotWritable", "The property SetPoint is read only."), {}
        self.patches.append({"path": path, **body})
        return self._written(path, body)

    def _written(self, path: str, body: dict[str, Any]) -> Reply:
        if "PowerControl" in body:
            limited = [entry for entry in body["PowerControl"] if "PowerLimit" in entry]
            fields = {"SetPoint": limited[0]["PowerLimit"]["LimitInWatts"]}
        else:
            fields = dict(body.get("PowerLimitWatts", body))
        if self.how.whole_words and fields.get("SetPoint") is not None and fields.get("ControlMode") == "Disabled":
            return 400, _error("Base.1.0.Conflict", "A set point needs ControlMode Manual."), {}
        if "SetPoint" in fields and fields["SetPoint"] is not None:
            if self.how.style == "percent":
                fields["SetPoint"] *= self.how.max_w / 100.0
            fields["SetPoint"] = max(fields["SetPoint"], self.how.clamp_w)
        self._pending = (self.how.shows_after, path, fields)
        if not self.how.shows_after:
            self._show()
        return (202 if self.how.shows_after else 204), None, {}

    def _show(self) -> None:
        if self._pending is None:
            return
        left, path, fields = self._pending
        if left > 0:
            self._pending = (left - 1, path, fields)
            return
        self._pending = None
        self._versions[path] = self._versions.get(path, 0) + 1
        if self.how.deaf:
            return
        if self.how.style == "gpus":
            self._gpu_w[path] = fields["SetPoint"]
            set_w = [w for w in self._gpu_w.values() if w is not None]
            self.how.limit_w = sum(set_w) if len(set_w) == self.how.gpus else None
        else:
            self.how.limit_w = fields.get("SetPoint", self.how.limit_w)
            self.how.mode = fields.get("ControlMode", self.how.mode)


class Farm:
    """Many BMCs, by name."""

    def __init__(self, bmcs: dict[str, FakeBmc], scheme: str) -> None:
        self.bmcs = bmcs
        self.scheme = scheme

    def __getitem__(self, name: str) -> FakeBmc:
        return self.bmcs[name]

    @property
    def addresses(self) -> dict[str, str]:
        """Return where each BMC is."""
        return {name: f"{self.scheme}://127.0.0.1:{bmc.port}" for name, bmc in self.bmcs.items()}

    def hush(self) -> None:
        """Answer nothing any more."""
        for bmc in self.bmcs.values():
            bmc.how.dead = "silent"

    def caps_w(self) -> dict[str, float | None]:
        """Return the limit in force by BMC."""
        return {name: bmc.cap_w for name, bmc in self.bmcs.items()}


@asynccontextmanager
async def farm(behaviours: dict[str, Behaviour], tls: ssl.SSLContext | None = None) -> AsyncIterator[Farm]:
    """Serve BMCs on free ports of loopback."""
    bmcs = {name: FakeBmc(name, how) for name, how in behaviours.items()}
    serving: set[asyncio.Task[None]] = set()
    servers = []
    for bmc in bmcs.values():

        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bmc: FakeBmc = bmc) -> None:
            task = asyncio.create_task(bmc.serve(reader, writer))
            serving.add(task)
            task.add_done_callback(serving.discard)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        bmc.port = server.sockets[0].getsockname()[1]
        servers.append(server)
    try:
        yield Farm(bmcs, "https" if tls else "http")
    finally:
        for server in servers:
            server.close()
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)
        await asyncio.sleep(0)  # for the connections to close


def _wire(reply: Reply) -> bytes:
    status, body, headers = reply
    payload = b"" if body is None else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} {_WORDS.get(status, 'Error')}", f"Content-Length: {len(payload)}"]
    lines += ["Content-Type: application/json", f"Date: {formatdate(usegmt=True)}"]
    lines += [f"{key}: {value}" for key, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


def _ref(path: str) -> dict[str, Any]:
    return {"@odata.id": path}


def _members(*paths: str) -> dict[str, Any]:
    return {"Members": [_ref(path) for path in paths], "Members@odata.count": len(paths)}


def _error(code: str, message: str) -> dict[str, Any]:
    info = [{"MessageId": code, "Message": message, "Severity": "Warning"}]
    return {"error": {"code": "Base.1.0.GeneralError", "message": "See extended info.", "@Message.ExtendedInfo": info}}

"""A slurmrestd v0.0.38 and node cap agents in memory, behind an HTTP transport: jobs obey at once, power follows at once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

IDLE_W, JOB_W = 2000.0, 1500.0
"""A node with nothing running, and what each job on it draws besides."""


@dataclass(slots=True)
class FakeJob:
    """One job."""

    id: int
    comment: str
    node: str = "n1"
    state: str = "RUNNING"
    held: bool = False
    partition: str = "flex"
    limit_min: int = 60
    cpus: int = 1
    power_w: float = JOB_W
    deny: bool = False
    """The token may not change this job."""
    inactive: bool = False
    """Its partition is INACTIVE: nothing about it may be changed, but signals reach it."""


@dataclass(slots=True)
class FakeSlurm:
    """The cluster; tests change it directly and read what was done to it."""

    jobs: dict[int, FakeJob] = field(default_factory=dict)
    nodes: tuple[str, ...] = ("n1",)
    cap_w: dict[str, float | None] = field(default_factory=dict)
    down: bool = False
    token: str = "good"
    may_extend: bool = True
    order: list[str] = field(default_factory=list)
    """Every change, in the order it came."""
    count: Counter[str] = field(default_factory=Counter)

    def add(self, tier: int | None, **more: Any) -> FakeJob:
        """Add a job of a tier."""
        number = len(self.jobs) + 1
        self.jobs[number] = FakeJob(number, "" if tier is None else f"vpp:tier={tier} mine", **more)
        return self.jobs[number]

    def power_w(self, node: str) -> float:
        """Return what a node draws."""
        free_w = IDLE_W + sum(j.power_w for j in self.jobs.values() if j.state == "RUNNING" and j.node == node)
        cap_w = self.cap_w.get(node)
        return free_w if cap_w is None else min(free_w, cap_w)

    def stopped(self) -> set[int]:
        """Return the jobs that are stopped."""
        return {i for i, job in self.jobs.items() if job.state == "STOPPED"}

    def held(self) -> set[int]:
        """Return the jobs that may not start."""
        return {i for i, job in self.jobs.items() if job.held}

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        await asyncio.sleep(0.001)
        if self.down:
            raise httpx.ConnectError("refused", request=request)
        path = request.url.path
        if path.startswith("/caps/nodes/"):
            return self._cap(path.rsplit("/", 1)[1], request)
        if request.headers.get("x-slurm-user-token") != self.token:
            return _reply(errors=[{"error_number": -1, "error": "Unspecified error"}], status=500)
        if path == "/openapi/v3":
            return httpx.Response(200, json={"paths": {"/slurm/v0.0.37/jobs": {}, "/slurm/v0.0.38/jobs": {}}})
        return self._slurm(path.removeprefix("/slurm/v0.0.38"), request)

    def _slurm(self, path: str, request: httpx.Request) -> httpx.Response:
        if path == "/jobs":
            return _reply(jobs=[_job(job) for job in self.jobs.values()])
        if path == "/nodes":
            return _reply(nodes=[self._node(name) for name in self.nodes])
        job = self.jobs.get(int(path.rsplit("/", 1)[1]))
        if job is None or job.state == "COMPLETED":
            return _reply(errors=[{"error_number": 2017, "error": "Invalid job id specified"}], status=500)
        if job.deny:
            return _reply(errors=[{"error_number": 2002, "error": "Access/permission denied"}])
        if request.method == "DELETE":
            return self._signal(job, request.url.params["signal"])
        return self._update(job, json.loads(request.content))

    def _signal(self, job: FakeJob, signal: str) -> httpx.Response:
        self._record(f"{signal} {job.id}")
        job.state = "STOPPED" if signal == "SIGSTOP" else "RUNNING"
        return _reply()

    def _update(self, job: FakeJob, body: dict[str, Any]) -> httpx.Response:
        if job.inactive:
            return _reply(
                errors=[{"error_number": 2015, "error": "Requested partition configuration not available now"}]
            )
        if "time_limit" in body and not self.may_extend:
            return _reply(errors=[{"error_number": 2002, "error": "Access/permission denied"}])
        job.limit_min = body.get("time_limit", job.limit_min)
        if "comment" in body:
            self._record(f"mark {job.id}" if "vpp:held" in body["comment"] else f"unmark {job.id}")
            job.comment = body["comment"]
        if "hold" in body:
            self._record(f"{'hold' if body['hold'] else 'free'} {job.id}")
            job.held = body["hold"]
        return _reply()

    def _cap(self, name: str, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self._record(f"cap {name}")
            self.cap_w[name] = json.loads(request.content)["cap_w"]
        return httpx.Response(200, json={"cap_w": self.cap_w.get(name), "min_cap_w": IDLE_W})

    def _node(self, name: str) -> dict[str, Any]:
        energy = {"current_watts": round(self.power_w(name))}
        return {"name": name, "cpus": 4, "partitions": ["flex"], "state": "mixed", "energy": energy}

    def _record(self, what: str) -> None:
        self.order.append(what)
        self.count[what] += 1


def _job(job: FakeJob) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "job_state": job.state,
        "comment": job.comment,
        "partition": job.partition,
        "nodes": "" if job.state == "PENDING" else job.node,
        "cpus": job.cpus,
        "priority": 0 if job.held else 100,
        "state_reason": "JobHeldAdmin" if job.held else "None",
        "time_limit": job.limit_min,
    }


def _reply(status: int = 200, errors: list[dict[str, Any]] | None = None, **parts: Any) -> httpx.Response:
    return httpx.Response(status, json={"errors": errors or [], **parts})

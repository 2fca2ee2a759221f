"""The halls' REST interface beside a real slurmrestd 22.05: the same questions, the same kind of answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.servers.slurm import SlurmServer, running_slurm
from tests.sim.conftest import TOKEN, ServedSite

pytestmark = pytest.mark.integration

OURS_ALONE = {"energy", "extra"}
"""Node keys of later versions, given so that power can be read."""


@dataclass(frozen=True, slots=True)
class Rest:
    """A slurmrestd, real or simulated, and a running and a pending job of it."""

    url: str
    headers: dict[str, str]
    running: int
    pending: int

    async def ask(self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        """Return the answer to one question."""
        async with httpx.AsyncClient(timeout=10.0) as http:
            chosen = self.headers if headers is None else headers
            return await http.request(method, f"{self.url}/slurm/v0.0.38/{path}", headers=chosen, **more)

    async def job(self, job_id: int) -> dict[str, Any]:
        """Return a job."""
        found: dict[str, Any] = (await self.ask("GET", f"job/{job_id}")).json()["jobs"][0]
        return found


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmServer]:
    """A real cluster of one node."""
    with running_slurm(nodes=1, cpus=4) as server:
        yield server


@pytest.fixture(scope="module")
def real(slurm: SlurmServer) -> Rest:
    """The real one, with a job that fills the node and one that is held."""
    token = slurm.token_file().read_text().strip()
    running = slurm.submit("sleep 600", "--comment=vpp:tier=3", "--time=60", "--cpus-per-task=4")
    pending = slurm.submit("sleep 600", "--comment=vpp:tier=2", "--hold")
    slurm.wait(running, "RUNNING")
    return Rest(slurm.url, {"X-SLURM-USER-NAME": "root", "X-SLURM-USER-TOKEN": token}, running, pending)


@pytest.fixture
def simulated(served_site: ServedSite) -> Rest:
    """The simulated one."""
    jobs = served_site.site.halls["hall-a"].jobs.values()
    running = next(job.job_id for job in jobs if job.state == "RUNNING" and job.place.tier == 3)
    pending = next(job.job_id for job in jobs if job.state == "PENDING")
    headers = {"X-SLURM-USER-NAME": "vppd", "X-SLURM-USER-TOKEN": TOKEN}
    return Rest(served_site.endpoints.halls["hall-a"], headers, running, pending)


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return the keys of ours that theirs lacks or has of another type."""
    return [key for key, value in ours.items() if key not in theirs or type(theirs[key]) is not type(value)]


@pytest.mark.parametrize(
    ("path", "part"), [("jobs", "jobs"), ("nodes", "nodes"), ("ping", "pings"), ("partitions", "partitions")]
)
async def test_replies_have_the_same_shape(real: Rest, simulated: Rest, path: str, part: str) -> None:
    """Every key we give is there in the original, with the same type."""
    theirs, ours = (await real.ask("GET", path)).json(), (await simulated.ask("GET", path)).json()
    assert differences(ours, theirs) == []
    assert differences(ours["meta"], theirs["meta"]) == []
    assert set(differences(ours[part][0], theirs[part][0])) <= OURS_ALONE


async def test_stop_and_continue_are_seen_alike(real: Rest, simulated: Rest) -> None:
    """A stopped job is STOPPED and goes on as RUNNING, in both."""
    seen = []
    for rest in (real, simulated):
        states = []
        for signal in ("SIGSTOP", "SIGCONT"):
            reply = await rest.ask("DELETE", f"job/{rest.running}", params={"signal": signal})
            states += [reply.status_code, reply.json()["errors"], (await rest.job(rest.running))["job_state"]]
        seen.append(states)
    assert seen[0] == seen[1] == [200, [], "STOPPED", 200, [], "RUNNING"]


async def test_hold_is_seen_alike(real: Rest, simulated: Rest) -> None:
    """A held job is PENDING with priority 0 and says who holds it."""
    seen = []
    for rest in (real, simulated):
        states = []
        for hold in (False, True):
            states.append((await rest.ask("POST", f"job/{rest.pending}", json={"hold": hold})).status_code)
        job = await rest.job(rest.pending)
        seen.append([*states, job["job_state"], job["state_reason"], job["priority"]])
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        pytest.param("DELETE", "job/999999", {"params": {"signal": "SIGSTOP"}}, id="signal-to-nobody"),
        pytest.param("GET", "job/999999", {}, id="nobody"),
        pytest.param("POST", "job/999999", {"json": {"hold": True}}, id="update-of-nobody"),
        pytest.param("POST", "job/{running}", {"json": {"job": {"hold": True}}}, id="wrapped-body"),
        pytest.param("POST", "job/{pending}", {"json": {"priority": "0"}}, id="priority-zero"),
        pytest.param("DELETE", "job/{pending}", {"params": {"signal": "SIGSTOP"}}, id="signal-to-a-pending-job"),
        pytest.param("GET", "jobs", {"headers": {}}, id="no-token"),
        pytest.param(
            "GET", "jobs", {"headers": {"X-SLURM-USER-NAME": "root", "X-SLURM-USER-TOKEN": "x"}}, id="bad-token"
        ),
        pytest.param("GET", "job/{running}/requeue", {}, id="later-version"),
    ],
)
async def test_misuse_is_answered_alike(
    real: Rest, simulated: Rest, method: str, path: str, more: dict[str, Any]
) -> None:
    """The same status, and errors where the original has errors."""
    seen = []
    for rest in (real, simulated):
        reply = await rest.ask(method, path.format(running=rest.running, pending=rest.pending), **more)
        is_json = reply.headers["content-type"].startswith("application/json")
        seen.append((reply.status_code, is_json and bool(reply.json()["errors"])))
    assert seen[0] == seen[1]


async def test_our_paths_are_slurms(real: Rest, simulated: Rest) -> None:
    """What our OpenAPI document names for v0.0.38 stands in the original's, verb by verb."""
    documents = []
    for rest in (real, simulated):
        async with httpx.AsyncClient() as http:
            documents.append((await http.get(f"{rest.url}/openapi/v3", headers=rest.headers)).json()["paths"])
    theirs, ours = documents
    for path, verbs in ours.items():
        if path.startswith("/slurm/v0.0.38/"):
            assert set(verbs) <= set(theirs[path]), path

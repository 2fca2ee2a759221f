"""The halls' REST interface: slurmrestd's paths, its habits, and the node power caps."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.sim.conftest import ServedSite
from vppd.sim.faults import Fault


async def jobs(served: ServedSite, version: str = "v0.0.38") -> list[dict[str, Any]]:
    """Return the jobs of hall-a."""
    reply = await served.http.get(served.slurm("jobs", version=version))
    assert reply.status_code == 200
    body = reply.json()
    assert body["errors"] == []
    found: list[dict[str, Any]] = body["jobs"]
    return found


async def running(served: ServedSite, tier: int) -> dict[str, Any]:
    """Return the first running job of a tier."""
    return next(j for j in await jobs(served) if j["job_state"] == "RUNNING" and f"tier={tier}" in j["comment"])


def steps(served: ServedSite, seconds: float) -> None:
    """Move the site on."""
    for _ in range(round(seconds / 0.1)):
        served.site.step()


async def test_jobs_look_like_slurm_22_05(served_site: ServedSite) -> None:
    """Each job has its tier, place and size; half of them run, half wait."""
    found = await jobs(served_site)
    states = [job["job_state"] for job in found]
    assert (states.count("RUNNING"), states.count("PENDING")) == (38, 38)
    wide = next(j for j in found if j["node_count"] == 2 and j["job_state"] == "RUNNING" and "tier=3" in j["comment"])
    assert wide["comment"] == "vpp:tier=3 vpp:stopsafe"
    assert (wide["nodes"], wide["tres_alloc_str"].split(",")[-1]) == ("a[29-30]", "gres/gpu=16")
    assert wide["partition"] == "hall-a"
    assert (wide["start_time"] > 1_800_000_000, wide["time_limit"]) == (True, 1440)
    single = await served_site.http.get(served_site.slurm(f"job/{wide['job_id']}"))
    assert single.json()["jobs"] == [wide]


async def test_later_versions_wrap_their_numbers(served_site: ServedSite) -> None:
    """v0.0.40 gives states as lists and numbers as objects."""
    job = (await jobs(served_site, "v0.0.40"))[0]
    assert job["job_state"] == ["RUNNING"]
    assert job["time_limit"] == {"set": True, "infinite": False, "number": 1440}
    reply = await served_site.http.get(served_site.slurm("ping", version="v0.0.46"))
    assert reply.status_code == 404


async def test_openapi_says_which_versions_there_are(served_site: ServedSite) -> None:
    """The document lists the paths by version, for the client to choose."""
    reply = await served_site.http.get(f"{served_site.endpoints.halls['hall-a']}/openapi/v3")
    paths = reply.json()["paths"]
    assert "/slurm/v0.0.38/jobs" in paths
    assert set(paths["/slurm/v0.0.40/job/{job_id}"]) == {"get", "post", "delete"}


async def test_nodes_report_their_power(served_site: ServedSite) -> None:
    """The nodes' watts add up to the hall."""
    body = (await served_site.http.get(served_site.slurm("nodes"))).json()
    assert len(body["nodes"]) == 32
    total_w = sum(node["energy"]["current_watts"] for node in body["nodes"])
    assert total_w == pytest.approx(served_site.site.state.halls["hall-a"].total_w, rel=0.005)
    one = (await served_site.http.get(served_site.slurm("node/a05"))).json()["nodes"][0]
    assert (one["name"], one["state"], one["gres_used"]) == ("a05", "allocated", "gpu:8")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 401, id="no-token"),
        pytest.param({"X-SLURM-USER-TOKEN": "wrong", "X-SLURM-USER-NAME": "vppd"}, 500, id="wrong-token"),
        pytest.param({"X-SLURM-USER-TOKEN": "open-sesame", "X-SLURM-USER-NAME": "mallory"}, 500, id="wrong-user"),
    ],
)
async def test_without_a_good_token_nothing_is_told(
    served_site: ServedSite, headers: dict[str, str], status: int
) -> None:
    """A missing token is a 401, a bad one a 500, as with slurmrestd."""
    async with httpx.AsyncClient() as stranger:
        reply = await stranger.get(served_site.slurm("jobs"), headers=headers)
        assert reply.status_code == status
        assert "job_id" not in reply.text


async def test_stop_and_continue(served_site: ServedSite) -> None:
    """A stopped job is STOPPED, keeps its nodes, sheds power, and goes on with nothing lost."""
    job = await running(served_site, 3)
    url = served_site.slurm(f"job/{job['job_id']}")
    before_w = served_site.site.state.halls["hall-a"].total_w
    assert (await served_site.http.delete(url, params={"signal": "SIGSTOP"})).status_code == 200
    done = served_site.site.halls["hall-a"].progress()[job["job_id"]][0]
    steps(served_site, 5.0)
    seen = (await served_site.http.get(url)).json()["jobs"][0]
    assert (seen["job_state"], seen["nodes"]) == ("STOPPED", job["nodes"])
    assert served_site.site.state.halls["hall-a"].total_w < before_w - 2000.0
    assert served_site.site.halls["hall-a"].progress()[job["job_id"]][0] == pytest.approx(done, abs=8.0)
    await served_site.http.delete(url, params={"signal": "SIGCONT"})
    steps(served_site, 5.0)
    assert (await served_site.http.get(url)).json()["jobs"][0]["job_state"] == "RUNNING"
    assert served_site.site.halls["hall-a"].progress()[job["job_id"]][0] > done + 10.0
    assert served_site.site.state.halls["hall-a"].lost_gpu_s == 0.0


async def test_hold_keeps_a_pending_job_from_starting(served_site: ServedSite) -> None:
    """The held job waits though its place is free, and starts when it is released."""
    board = served_site.site.halls["hall-a"]
    first = await running(served_site, 2)
    waiting = next(
        j for j in board.jobs.values() if j.slot == board.jobs[first["job_id"]].slot and j.state == "PENDING"
    )
    url = served_site.slurm(f"job/{waiting.job_id}")
    await served_site.http.post(url, json={"hold": True})
    await served_site.http.delete(served_site.slurm(f"job/{first['job_id']}"))
    steps(served_site, 1.0)
    seen = (await served_site.http.get(url)).json()["jobs"][0]
    assert (seen["job_state"], seen["state_reason"], seen["priority"]) == ("PENDING", "JobHeldAdmin", 0)
    assert board.jobs[first["job_id"]].state == "CANCELLED"
    await served_site.http.post(url, json={"hold": False})
    steps(served_site, 1.0)
    assert (await served_site.http.get(url)).json()["jobs"][0]["job_state"] == "RUNNING"


async def test_comments_and_time_limits_are_kept(served_site: ServedSite) -> None:
    """An update is flat, and what it sets is read back."""
    job = await running(served_site, 2)
    url = served_site.slurm(f"job/{job['job_id']}")
    update = {"comment": "vpp:tier=2 vpp:held=stop", "admin_comment": "by vppd", "time_limit": 1500}
    assert (await served_site.http.post(url, json=update)).json()["errors"] == []
    seen = (await served_site.http.get(url)).json()["jobs"][0]
    assert {key: seen[key] for key in update} == update


@pytest.mark.parametrize(
    "body",
    [{"job": {"hold": True}}, {"priority": "0"}, {"hold": "yes"}, {"comment": 3}, [1]],
    ids=["wrapped", "priority-zero", "hold-no-boolean", "comment-no-text", "no-object"],
)
async def test_a_parse_error_is_a_200_with_errors(served_site: ServedSite, body: Any) -> None:
    """Like slurmrestd, a body that cannot be parsed is not a 400; nothing changes."""
    job = await running(served_site, 1)
    reply = await served_site.http.post(served_site.slurm(f"job/{job['job_id']}"), json=body)
    assert (reply.status_code, len(reply.json()["errors"])) == (200, 1)
    assert served_site.site.halls["hall-a"].log.updates == 0


async def test_unknown_and_pending_jobs_cannot_be_signalled(served_site: ServedSite) -> None:
    """An unknown job is error 2017, a pending one cannot be stopped."""
    gone = await served_site.http.delete(served_site.slurm("job/1"), params={"signal": "SIGSTOP"})
    assert (gone.status_code, gone.json()["errors"][0]["error_number"]) == (500, 2017)
    pending = next(j for j in await jobs(served_site) if j["job_state"] == "PENDING")
    reply = await served_site.http.delete(served_site.slurm(f"job/{pending['job_id']}"), params={"signal": "SIGSTOP"})
    assert reply.status_code == 500
    assert served_site.site.halls["hall-a"].log.stops == 0


async def test_a_node_cap_binds_and_is_lifted(served_site: ServedSite) -> None:
    """A capped node comes under its cap within seconds; null takes the cap away; unchanged caps are no transition."""
    url = served_site.cap("a03")
    for _ in range(2):
        assert (await served_site.http.post(url, json={"cap_w": 5600.0})).json()["cap_w"] == 5600.0
    steps(served_site, 6.0)
    state = (await served_site.http.get(url)).json()
    assert state["power_w"] <= 5601.0
    assert (state["min_cap_w"], state["max_cap_w"]) == (4400.0, 8400.0)
    assert (await served_site.http.post(url, json={"cap_w": None})).json()["cap_w"] is None
    steps(served_site, 6.0)
    assert (await served_site.http.get(url)).json()["power_w"] > 7500.0
    log = served_site.site.halls["hall-a"].log
    assert (log.cap_writes, log.cap_transitions) == (3, 2)


async def test_a_cap_with_a_lease_ends_by_itself(served_site: ServedSite) -> None:
    """A cap that is not renewed within its lease is lifted by the node."""
    await served_site.http.post(served_site.cap("a03"), json={"cap_w": 5600.0, "valid_for_s": 0.001})
    steps(served_site, 0.5)
    assert (await served_site.http.get(served_site.cap("a03"))).json()["cap_w"] is None
    assert served_site.site.halls["hall-a"].log.cap_expiries == 1


@pytest.mark.parametrize("body", [{}, {"cap_w": -1}, {"cap_w": "x"}, {"cap_w": 1, "more": 2}, []], ids=str)
async def test_bad_caps_are_refused(served_site: ServedSite, body: Any) -> None:
    """Anything that is no cap is a 422, an unknown node a 404."""
    assert (await served_site.http.post(served_site.cap("a03"), json=body)).status_code == 422
    assert (await served_site.http.get(served_site.cap("z99"))).status_code == 404


async def test_an_outage_of_the_workload_manager(served_site: ServedSite) -> None:
    """Silence, hang-up, error and deafness, each as asked for over the control endpoint."""

    async def begin(kind: Fault) -> None:
        body = {"device": "hall-a", "kind": kind.value, "for_s": 60.0}
        assert (await served_site.http.post(served_site.control("fault"), json=body)).status_code == 200

    await begin(Fault.REFUSE)
    assert (await served_site.http.get(served_site.slurm("ping"))).status_code == 500
    await begin(Fault.RESET)
    with pytest.raises(httpx.TransportError):
        await served_site.http.get(served_site.slurm("ping"))
    await begin(Fault.SILENT)
    with pytest.raises(httpx.ReadTimeout):
        await served_site.http.get(served_site.slurm("ping"), timeout=0.1)
    await begin(Fault.ACK_IGNORE)
    job = await running(served_site, 3)
    await served_site.http.delete(served_site.slurm(f"job/{job['job_id']}"), params={"signal": "SIGSTOP"})
    assert (await running(served_site, 3))["job_id"] == job["job_id"]
    assert (await served_site.http.get(served_site.slurm("ping", hall="hall-b"))).status_code == 200


async def test_ended_jobs_are_seen_for_a_minute(served_site: ServedSite) -> None:
    """A job that has ended stays in the list for a while and cannot be signalled any more."""
    job = await running(served_site, 3)
    url = served_site.slurm(f"job/{job['job_id']}")
    await served_site.http.delete(url)
    steps(served_site, 0.1)
    assert (await served_site.http.get(url)).json()["jobs"][0]["job_state"] == "CANCELLED"
    again = await served_site.http.delete(url, params={"signal": "SIGCONT"})
    assert (again.status_code, again.json()["errors"][0]["error_number"]) == (500, 2021)

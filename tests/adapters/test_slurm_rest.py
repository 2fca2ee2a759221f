"""slurmrestd's versions, tokens and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from adapters._slurm_cli import SlurmCommands
from adapters._slurm_config import SlurmConfig
from adapters._slurm_rest import Denied, JobGone, SlurmRest
from vppd.errors import DeviceError, Garbled, Refused, Unreachable

DOCUMENT: dict[str, Any] = {"paths": {f"/slurm/v0.0.{v}/jobs/": {} for v in (37, 38, 40, 47)}}
Answer = Callable[[httpx.Request], httpx.Response]


def rest(answer: Answer, tmp_path: Path, document: dict[str, Any] | None = None) -> SlurmRest:
    """Return a client whose requests, but for the OpenAPI document, get this answer."""
    token = tmp_path / "token"
    token.write_text("good")

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/openapi/v3":
            return httpx.Response(200, json=DOCUMENT if document is None else document)
        return answer(request)

    client = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    return SlurmRest(client, "http://slurm/", "root", token)


def always(status: int, body: Any = None, text: str = "") -> Answer:
    """Return a constant answer."""
    return lambda request: httpx.Response(status, json=body) if body is not None else httpx.Response(status, text=text)


def errors(number: int, text: str = "no", status: int = 200) -> Answer:
    """Return an answer with one error in it."""
    return always(status, {"errors": [{"error_number": number, "error": text}], "jobs": []})


async def test_takes_the_newest_version_both_know(tmp_path: Path) -> None:
    """Of v0.0.37, .38, .40 and .47 this adapter takes v0.0.40."""
    paths: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(200, json={"errors": [], "jobs": []})

    assert await rest(answer, tmp_path).jobs() == []
    assert paths == ["/slurm/v0.0.40/jobs"]


async def test_no_common_version_is_refused(tmp_path: Path) -> None:
    """A slurmrestd that is too old or too new is Refused, and told by its versions."""
    too_new: dict[str, Any] = {"paths": {"/slurm/v0.0.47/jobs/": {}}}
    with pytest.raises(Refused, match=r"\[47\]"):
        await rest(always(200, {}), tmp_path, too_new).jobs()


async def test_negotiates_again_after_an_upgrade(tmp_path: Path) -> None:
    """A version that has gone is looked up again."""
    document: dict[str, Any] = {"paths": {"/slurm/v0.0.40/jobs/": {}}}

    def answer(request: httpx.Request) -> httpx.Response:
        if "v0.0.40" in request.url.path:
            document["paths"] = {"/slurm/v0.0.43/jobs/": {}}
            return httpx.Response(404, text="Unable find requested URL")
        return httpx.Response(200, json={"errors": [], "jobs": []})

    assert await rest(answer, tmp_path, document).jobs() == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(always(401, text="Authentication failure"), Denied, id="no token"),
        pytest.param(errors(-1, "Unspecified error", 500), Denied, id="bad token, 22.05"),
        pytest.param(errors(1007, status=500), Denied, id="protocol authentication"),
        pytest.param(errors(2002), Denied, id="permission, in a 200"),
        pytest.param(errors(2017, status=500), JobGone, id="no such job"),
        pytest.param(errors(2021, status=500), JobGone, id="ended meanwhile"),
        pytest.param(errors(9001, "Failure during parsing"), Refused, id="parse error in a 200"),
        pytest.param(always(200, {"errors": ["no such thing"]}), Refused, id="errors that are no objects"),
        pytest.param(always(500, text="oops"), Unreachable, id="out of order"),
        pytest.param(always(200, text="<html>"), Garbled, id="no JSON"),
        pytest.param(always(200, []), Garbled, id="no object"),
        pytest.param(always(200, {"errors": []}), Garbled, id="no list"),
    ],
)
async def test_errors_by_reaction(answer: Answer, error: type[DeviceError], tmp_path: Path) -> None:
    """Every way of saying no becomes the error that tells what to do next."""
    with pytest.raises(error) as raised:
        await rest(answer, tmp_path).jobs()
    assert raised.type is error


async def test_silence_is_unreachable(tmp_path: Path) -> None:
    """No answer is Unreachable."""

    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow", request=request)

    with pytest.raises(Unreachable):
        await rest(answer, tmp_path).jobs()


async def test_signals_reach_script_and_steps_where_the_version_can(tmp_path: Path) -> None:
    """From v0.0.40 on a signal goes to the steps and, with a flag, to the batch script."""
    asked: list[str] = []
    delete = {"parameters": [{"name": "signal"}, {"name": "flags"}]}
    document = {"paths": {"/slurm/v0.0.40/jobs/": {}, "/slurm/v0.0.40/job/{job_id}": {"delete": delete}}}

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.raw_path.decode()}")
        return httpx.Response(200, json={"errors": []})

    link = rest(answer, tmp_path, document)
    await link.signal(7, "SIGSTOP")
    assert link.reaches_steps
    assert asked == [
        "DELETE /slurm/v0.0.40/job/7?signal=SIGSTOP",
        "DELETE /slurm/v0.0.40/job/7?signal=SIGSTOP&flags=FULL_JOB",
    ]


def of_version(version: int) -> dict[str, Any]:
    """Return the paths that matter to us, as that version of the interface has them."""
    parameters = [{"name": "signal"}, *([{"name": "flags"}] if version >= 40 else [])]
    paths: dict[str, Any] = {
        f"/slurm/v0.0.{version}/jobs{'/' if version >= 40 else ''}": {"get": {}},
        f"/slurm/v0.0.{version}/job/{{job_id}}": {"get": {}, "post": {}, "delete": {"parameters": parameters}},
        f"/slurm/v0.0.{version}/reservations/": {"get": {}},
    }
    if version >= 43:
        paths[f"/slurm/v0.0.{version}/reservation"] = {"post": {}}
    if version >= 45:
        paths |= {"/livez": {"get": {}}, "/readyz": {"get": {}}}
    return {"paths": paths}


@pytest.mark.parametrize("version", range(38, 47))
async def test_every_version_is_spoken(version: int, tmp_path: Path) -> None:
    """Jobs and nodes are read, jobs changed by a flat body and signalled, and reservations written where the version can."""
    asked: list[tuple[str, str, Any]] = []
    number: Callable[[int], Any] = lambda n: n if version < 40 else {"set": True, "infinite": False, "number": n}  # noqa: E731
    state = "RUNNING" if version < 40 else ["RUNNING"]
    one = {
        "job_id": 7,
        "job_state": state,
        "nodes": "n1",
        "cpus": number(4),
        "time_limit": number(60),
        "priority": number(5),
    }
    node = {
        "name": "n1",
        "cpus": 4,
        "partitions": ["flex"],
        "state": ["IDLE"],
        "energy": {"current_watts": number(312)},
    }

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        assert path.startswith(f"/slurm/v0.0.{version}/")
        if request.method != "GET":
            body = json.loads(request.content) if request.content else dict(request.url.params)
            asked.append((request.method, path.split(f"v0.0.{version}")[1], body))
        return httpx.Response(200, json={"errors": [], "jobs": [one], "nodes": [node], "reservations": []})

    link = rest(answer, tmp_path, of_version(version))
    (job,), (found,) = await link.jobs(), await link.nodes()
    assert (job.id, job.state, job.cpus, job.limit_min, job.held) == (7, "RUNNING", 4, 60, False)
    assert found.power_w == 312.0
    assert await link.reservations() == []
    await link.update(7, {"comment": "vpp:tier=2", "time_limit": 90})
    limit = 90 if version == 38 else {"set": True, "infinite": False, "number": 90}
    assert asked.pop() == ("POST", "/job/7", {"comment": "vpp:tier=2", "time_limit": limit})
    await link.update(7, {"hold": True})
    assert asked.pop() == ("POST", "/job/7", {"hold": True})
    await link.signal(7, "SIGSTOP")
    whole = [("DELETE", "/job/7", {"signal": "SIGSTOP", "flags": "FULL_JOB"})] if version >= 40 else []
    assert asked == [("DELETE", "/job/7", {"signal": "SIGSTOP"}), *whole]
    assert await link.reserves() == (version >= 43)


async def test_missing_token_file_is_refused(tmp_path: Path) -> None:
    """A token file that is not there is Refused, by its name."""
    link = SlurmRest(httpx.AsyncClient(), "http://127.0.0.1:9", "root", tmp_path / "absent")
    with pytest.raises(Refused, match="absent"):
        await link.jobs()


async def test_a_token_file_of_rubbish_is_refused(tmp_path: Path) -> None:
    """A token file that holds no text is Refused, and takes nobody down."""
    (tmp_path / "rubbish").write_bytes(b"\xff\xfe")
    link = SlurmRest(httpx.AsyncClient(), "http://127.0.0.1:9", "root", tmp_path / "rubbish")
    with pytest.raises(Refused, match="rubbish"):
        await link.jobs()


async def test_a_garbled_body_is_unreachable(tmp_path: Path) -> None:
    """A body that cannot be unpacked is no answer."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"rubbish"))

    with pytest.raises(Unreachable):
        await rest(answer, tmp_path).jobs()


async def test_missing_command_is_refused(tmp_path: Path) -> None:
    """A command that is not installed is Refused, by its name."""
    with pytest.raises(Refused, match="squeue"):
        await SlurmCommands(str(tmp_path), None, 1.0).jobs()


async def test_hanging_command_is_ended(tmp_path: Path) -> None:
    """A command that hangs is ended and counts as no answer."""
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\nexec sleep 600\n")
    squeue.chmod(0o755)
    with pytest.raises(Unreachable):
        await SlurmCommands(str(tmp_path), None, 0.1).jobs()


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"url": "http://slurm"},
        {"url": "http://slurm", "token_file": "t", "stop_method": "suspend"},
        {"url": "http://slurm", "token_file": "t", "freeze_partitions": ["flex"]},
        {"command_line": True, "freeze_partitions": ["flex"]},
        {"command_line": True, "cap_url": "http://agents"},
        {"url": "http://slurm", "renew_token": True},
        {"command_line": True, "node_max_w": 10.0, "node_idle_w": 20.0},
        {"command_line": True, "default_tier": 4},
        {"command_line": True, "max_pause_s": {"0": 10.0}},
        {"command_line": True, "colour": "red"},
    ],
)
def test_refused_configurations(wrong: dict[str, Any]) -> None:
    """A configuration that cannot work is refused before anything starts."""
    with pytest.raises(ValidationError):
        SlurmConfig.model_validate(wrong)

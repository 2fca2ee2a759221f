"""What the Slurm adapter understands of jobs, nodes and host lists."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters._slurm_jobs import Job, expand, gpus_in, job_from_json, node_from_json, tier_of
from vppd.errors import Garbled

JOB: dict[str, Any] = {"job_id": 7, "job_state": "RUNNING", "partition": "flex", "nodes": "n1", "cpus": 4}


@pytest.mark.parametrize(
    ("hosts", "names"),
    [
        ("", []),
        ("n1", ["n1"]),
        ("n[1-3,7],login", ["n1", "n2", "n3", "n7", "login"]),
        ("gpu[08-10]", ["gpu08", "gpu09", "gpu10"]),
        ("r[1-2]n[01-02]", ["r1n01", "r1n02", "r2n01", "r2n02"]),
    ],
)
def test_host_lists(hosts: str, names: list[str]) -> None:
    """A host list names every node, with its leading zeros."""
    assert list(expand(hosts)) == names


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("cpu=2,mem=62G,node=1,billing=2", 0),
        ("cpu=8,gres/gpu=4", 4),
        ("cpu=8,gres/gpu:h100=4", 4),
        ("gpu:8(S:0-1)", 8),
        ("gpu:a100:8", 8),
        ("gres:gpu:2", 2),
    ],
)
def test_gpus(text: str, gpus: int) -> None:
    """GPUs are counted in TRES and in GRES words."""
    assert gpus_in(text) == gpus


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("RUNNING", "RUNNING"),
        ("STOPPED", "STOPPED"),
        (["RUNNING"], "RUNNING"),
        (["RUNNING", "STOPPED"], "STOPPED"),
        (["SUSPENDED"], "SUSPENDED"),
        (["PENDING"], "PENDING"),
    ],
)
def test_states_of_all_versions(said: object, state: str) -> None:
    """A state is one word in old versions and a list with flags in new ones."""
    assert job_from_json({**JOB, "job_state": said}).state == state


def test_numbers_and_comments_of_new_versions() -> None:
    """Numbers may come as objects, comments too, and no value is not a number."""
    new = {
        **JOB,
        "time_limit": {"set": True, "infinite": False, "number": 90},
        "priority": {"set": True, "infinite": False, "number": 0},
        "job_state": ["PENDING"],
        "comment": {"administrator": "", "job": "vpp:tier=3", "system": ""},
    }
    job = job_from_json(new)
    assert (job.limit_min, job.held, job.own_tier) == (90, True, 3)
    assert job_from_json({**JOB, "time_limit": {"set": True, "infinite": True, "number": 0}}).limit_min is None
    assert job_from_json({**JOB, "time_limit": 4294967295}).limit_min is None


def test_node_power() -> None:
    """A node's power is what it reports; 0 and nothing mean that nobody measures."""
    node = {"name": "n1", "cpus": 64, "state": ["IDLE"], "partitions": ["flex"], "tres": "cpu=64,gres/gpu=8"}
    assert node_from_json(node).power_w is None
    assert node_from_json({**node, "energy": {"current_watts": 0}}).power_w is None
    watts = {"set": True, "infinite": False, "number": 7000}
    read = node_from_json({**node, "energy": {"current_watts": watts}})
    assert (read.power_w, read.gpus, read.on) == (7000.0, 8, True)
    assert not node_from_json({**node, "state": "idle", "state_flags": ["POWERED_DOWN"]}).on


@pytest.mark.parametrize("broken", [{}, {**JOB, "job_id": "x"}, {**JOB, "nodes": "n[1-"}])
def test_nonsense_is_garbled(broken: dict[str, Any]) -> None:
    """A job that makes no sense is Garbled."""
    with pytest.raises(Garbled):
        job_from_json(broken)


def test_tier_by_comment_then_qos_then_partition() -> None:
    """The job's own word counts first, then its QOS, then its partition, then the default."""
    job = job_from_json({**JOB, "comment": "vpp:tier=1 x", "qos": "low"})
    assert tier_of(job, 0, {"low": 3}, {"flex": 2}) == 1
    job = job_from_json({**JOB, "comment": "vpp:tier=9", "qos": "low"})
    assert tier_of(job, 0, {"low": 3}, {"flex": 2}) == 3
    job = job_from_json(JOB)
    assert tier_of(job, 0, {"low": 3}, {"flex": 2}) == 2
    assert tier_of(job, 0, {}, {}) == 0


def test_stopsafe() -> None:
    """A job on several nodes may be stopped only when it says that it may."""
    assert job_from_json(JOB).stopsafe
    assert not job_from_json({**JOB, "nodes": "n[1-2]"}).stopsafe
    assert job_from_json({**JOB, "nodes": "n[1-2]", "comment": "vpp:stopsafe"}).stopsafe


@given(
    st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=40).filter(lambda t: "vpp:held" not in t)
)
def test_marks_leave_the_users_words(words: str) -> None:
    """A mark put in and taken out again leaves the comment as it was, but for blanks at its ends."""
    words = words.strip()
    job = Job(1, "RUNNING", "flex", comment=words)
    marked = Job(1, "RUNNING", "flex", comment=job.marked("stop"))
    assert marked.mark == "stop"
    assert marked.marked("") == words
    assert marked.marked("hold").count("vpp:held=") == 1

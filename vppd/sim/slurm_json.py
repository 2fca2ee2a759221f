"""Jobs, nodes and partitions in the JSON of slurmrestd: v0.0.38 as Slurm 22.05 has it, v0.0.39 and v0.0.40 as later ones."""

from __future__ import annotations

import json
from typing import Any

from vppd.sim.jobs import HallBoard, Job

VERSIONS = ("v0.0.38", "v0.0.39", "v0.0.40")
_RELEASES = {"v0.0.38": (22, 5, 8), "v0.0.39": (23, 2, 7), "v0.0.40": (23, 11, 1)}
_CPUS_PER_GPU = 16
_NODE_MEMORY_MB = 2_000_000
_INFINITE = 4294967295

JsonObject = dict[str, Any]


def envelope(version: str, **parts: Any) -> JsonObject:
    """Return a reply with meta and errors around it."""
    major, minor, micro = _RELEASES[version]
    release = f"{major}.{minor:02d}.{micro}"
    slurm = {"version": {"major": major, "minor": minor, "micro": micro}, "release": release}
    meta = {"plugin": {"type": f"openapi/{version}", "name": f"Slurm OpenAPI {version}"}, "Slurm": slurm}
    return {"meta": meta, "errors": [], **({} if version == "v0.0.38" else {"warnings": []}), **parts}


def failure(version: str, number: int, text: str, description: str, **parts: Any) -> JsonObject:
    """Return a reply that says what went wrong."""
    reply = envelope(version, **parts)
    reply["errors"] = [{"error_number": number, "error": text, "description": description, "source": "vppd.sim"}]
    return reply


def describe_job(board: HallBoard, job: Job, version: str) -> JsonObject:
    """Return a job as slurmrestd shows it."""
    place, nodes = job.place, len(job.place.nodes)
    cpus = place.gpus * _CPUS_PER_GPU
    tres = f"cpu={cpus},mem={nodes * _NODE_MEMORY_MB * place.gpus_per_node // 8}M,node={nodes},gres/gpu={place.gpus}"
    placed = job.state != "PENDING"
    return {
        "job_id": job.job_id,
        "name": job.name,
        "job_state": [job.state] if version == "v0.0.40" else job.state,
        "state_reason": _reason(job),
        "comment": _comment(job.comment, version),
        "admin_comment": job.admin_comment,
        "system_comment": "",
        "account": "research",
        "user_name": "research",
        "user_id": 1001,
        "group_id": 1001,
        "cluster": board.partition,
        "partition": board.partition,
        "qos": "normal",
        "nodes": _host_list(board, job) if placed else "",
        "node_count": _number(nodes, version),
        "cpus": _number(cpus, version),
        "tasks": _number(nodes, version),
        "priority": _number(0 if job.held else 1000, version),
        "submit_time": _number(int(job.submitted_at_s), version),
        "start_time": _number(int(job.started_at_s), version),
        "end_time": _number(_end_time(job), version),
        "suspend_time": _number(0, version),
        "pre_sus_time": _number(0, version),
        "time_limit": _number(job.time_limit_min, version),
        "requeue": True,
        "restart_cnt": 0,
        "batch_flag": version == "v0.0.38" or 1,
        "batch_host": board.node_name(place.nodes[0]) if placed else "",
        "standard_output": f"/home/research/{job.name}.out",
        "tres_per_node": f"gres:gpu:{place.gpus_per_node}",
        "tres_req_str": tres,
        "tres_alloc_str": tres if placed else "",
    }


def describe_node(board: HallBoard, node: int, version: str) -> JsonObject:
    """Return a node as slurmrestd shows it; ``energy`` is of later versions than v0.0.38 and given in all."""
    spec = board.hall.spec
    here = [j for j in board.jobs.values() if j.state in ("RUNNING", "STOPPED") and node in j.place.nodes]
    gpus = sum(job.place.gpus_per_node for job in here)
    cpus = spec.gpus_per_node * _CPUS_PER_GPU
    state = "IDLE" if not gpus else "ALLOCATED" if gpus == spec.gpus_per_node else "MIXED"
    watts = round(float(board.state.power_w[node]))
    return {
        "name": board.node_name(node),
        "hostname": board.node_name(node),
        "address": board.node_name(node),
        "state": [state] if version == "v0.0.40" else state.lower(),
        "state_flags": [],
        "partitions": [board.partition],
        "cpus": cpus,
        "alloc_cpus": gpus * _CPUS_PER_GPU,
        "idle_cpus": cpus - gpus * _CPUS_PER_GPU,
        "real_memory": _NODE_MEMORY_MB,
        "gres": f"gpu:{spec.gpus_per_node}",
        "gres_used": f"gpu:{gpus}",
        "reason": "",
        "tres": f"cpu={cpus},mem={_NODE_MEMORY_MB}M,billing={cpus},gres/gpu={spec.gpus_per_node}",
        "tres_used": f"cpu={gpus * _CPUS_PER_GPU},gres/gpu={gpus}" if gpus else "",
        "energy": {
            "average_watts": watts,
            "current_watts": _number(watts, version),
            "base_consumed_energy": 0,
            "consumed_energy": 0,
            "last_collected": 0,
        },
        "extra": json.dumps({"power_w": watts}),
    }


def describe_partition(board: HallBoard, version: str) -> JsonObject:
    """Return the hall's partition as slurmrestd shows it."""
    spec = board.hall.spec
    nodes = f"{board.node_name(0)[0]}[{board.node_name(0)[1:]}-{board.node_name(spec.nodes - 1)[1:]}]"
    cpus = spec.nodes * spec.gpus_per_node * _CPUS_PER_GPU
    tres = f"cpu={cpus},node={spec.nodes},gres/gpu={spec.nodes * spec.gpus_per_node}"
    if version == "v0.0.38":
        return {
            "name": board.partition,
            "state": "UP",
            "nodes": nodes,
            "total_cpus": cpus,
            "total_nodes": spec.nodes,
            "tres": tres,
        }
    state: Any = ["UP"] if version == "v0.0.40" else "UP"
    nodes_part = {"configured": nodes, "total": spec.nodes}
    return {"name": board.partition, "partition": {"state": state}, "nodes": nodes_part, "tres": {"configured": tres}}


def openapi() -> JsonObject:
    """Return the part of slurmrestd's OpenAPI document that says which versions and paths there are."""
    verbs = {
        "ping": ("get",),
        "jobs": ("get",),
        "job/{job_id}": ("get", "post", "delete"),
        "nodes": ("get",),
        "node/{node_name}": ("get",),
        "partitions": ("get",),
        "partition/{partition_name}": ("get",),
    }
    paths = {
        f"/slurm/{version}/{path}": {verb: {"tags": ["slurm"], "responses": {"200": {}}} for verb in of_path}
        for version in VERSIONS
        for path, of_path in verbs.items()
    }
    return {"openapi": "3.0.2", "info": {"title": "Slurm Rest API", "version": "vppd.sim"}, "paths": paths}


def _number(value: int, version: str) -> Any:
    """Return a number as the version writes it."""
    if version == "v0.0.38":
        return value
    return {"set": True, "infinite": value == _INFINITE, "number": value}


def _comment(text: str, version: str) -> Any:
    """Return a job's comment as the version writes it."""
    return {"administrator": "", "job": text, "system": ""} if version == "v0.0.39" else text


def _reason(job: Job) -> str:
    """Return why a job does not run."""
    if job.state != "PENDING":
        return "None"
    return "JobHeldAdmin" if job.held else "Resources"


def _end_time(job: Job) -> int:
    """Return when the job ended or must end. [s, epoch]"""
    if job.over:
        return int(job.ended_at_s)
    return int(job.started_at_s) + 60 * job.time_limit_min if job.started_at_s else 0


def _host_list(board: HallBoard, job: Job) -> str:
    """Return the nodes of a job, which stand side by side, as a Slurm host list."""
    first, last = (board.node_name(node) for node in (job.place.nodes[0], job.place.nodes[-1]))
    return first if first == last else f"{first[0]}[{first[1:]}-{last[1:]}]"

"""Reservations for awarded windows, against a slurmrestd v0.0.43 in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters._slurm_cli import SlurmCommands
from adapters._slurm_config import SlurmConfig
from adapters._slurm_jobs import Reservation
from adapters.slurm import SlurmCluster, connect_through
from vppd.errors import Garbled
from vppd.ports import Reservable, Window

AT = datetime(2026, 12, 1, 17, 0, tzinfo=UTC)
NODE_W = 6000.0
"""What a full node draws beyond an idle one."""


class Slurm43:
    """Four nodes, one of them off, and reservations; a job of tier 0 fills n1, one of tier 3 n2."""

    def __init__(self) -> None:
        self.reservations: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.refuse = ""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        path = request.url.path
        if path == "/openapi/v3":
            names = ("jobs/", "reservation", "reservations/")
            paths: dict[str, Any] = {f"/slurm/v0.0.43/{name}": {"get": {}, "post": {}} for name in names}
            return httpx.Response(200, json={"paths": paths})
        match request.method, path.removeprefix("/slurm/v0.0.43/").split("/"):
            case "GET", ["jobs"]:
                jobs = [self._job(1, 0, "n1"), self._job(2, 3, "n2")]
                return httpx.Response(200, json={"errors": [], "jobs": jobs})
            case "GET", ["nodes"]:
                return httpx.Response(200, json={"errors": [], "nodes": [self._node(i) for i in range(1, 5)]})
            case "GET", ["reservations"]:
                return httpx.Response(200, json={"errors": [], "reservations": list(self.reservations.values())})
            case method, ["reservation", *rest]:
                return self._change(method, rest, request.content)
        return httpx.Response(404, text="Unable find requested URL")

    def _change(self, method: str, rest: list[str], content: bytes) -> httpx.Response:
        if self.refuse:
            return httpx.Response(200, json={"errors": [{"error_number": 2002, "description": self.refuse}]})
        if method == "DELETE":
            self.calls.append("delete")
            del self.reservations[rest[0]]
        else:
            body = json.loads(content)
            known = self.reservations.get(body["name"])
            self.calls.append("create" if known is None else "update")
            merged = {**(known or {}), **body}
            assert {"set", "number"} == set(merged["start_time"]) == set(merged["end_time"])
            hosts = merged["node_list"]
            merged["node_list"] = ",".join(hosts) if isinstance(hosts, list) else hosts
            self.reservations[body["name"]] = merged
        return httpx.Response(200, json={"errors": []})

    @staticmethod
    def _job(number: int, tier: int, node: str) -> dict[str, Any]:
        size = {"cpus": {"set": True, "number": 8}}
        place = {"nodes": node, "partition": "flex", "comment": f"vpp:tier={tier}"}
        return {"job_id": number, "job_state": ["RUNNING"], **place, **size}

    @staticmethod
    def _node(number: int) -> dict[str, Any]:
        state = ["IDLE", "POWERED_DOWN"] if number == 3 else ["MIXED"]
        return {"name": f"n{number}", "cpus": 8, "partitions": ["flex"], "state": state}

    def nodes(self) -> list[list[str]]:
        """Return the nodes of each reservation, by start."""
        return [
            r["node_list"].split(",")
            for r in sorted(self.reservations.values(), key=lambda r: r["start_time"]["number"])
        ]


@asynccontextmanager
async def connected(slurm: Slurm43, folder: Path, **more: Any) -> AsyncIterator[SlurmCluster]:
    """Connect to it."""
    token = folder / "token"
    token.write_text("good")
    config = SlurmConfig.model_validate(
        {
            "url": "http://slurm",
            "token_file": token,
            "node_idle_w": 2000.0,
            "node_max_w": 2000.0 + NODE_W,
            "reserve_for_awards": True,
            **more,
        }
    )
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(slurm)) as client,
        connect_through(client, config) as cluster,
    ):
        yield cluster


def window(power_w: float, ahead_h: float = 0.0, for_h: float = 1.0) -> Window:
    """Return a window of some hours."""
    start = AT + timedelta(hours=ahead_h)
    return Window(start, start + timedelta(hours=for_h), power_w)


async def test_as_many_nodes_as_the_power_takes(tmp_path: Path) -> None:
    """Nodes without firm work come first and those that are off last; the reservation lets running jobs go on."""
    slurm = Slurm43()
    async with connected(slurm, tmp_path) as cluster:
        assert isinstance(cluster, Reservable)
        (kept,) = await cluster.reserve([window(1.5 * NODE_W)])
    assert kept.power_w == 1.5 * NODE_W
    assert slurm.nodes() == [["n2", "n4"]]
    (made,) = slurm.reservations.values()
    assert made["name"].startswith("vppd-")
    assert made["flags"] == ["MAINT", "IGNORE_JOBS", "FLEX"]
    assert made["users"] == ["root"]
    assert made["start_time"]["number"] == AT.timestamp()
    assert made["end_time"]["number"] == AT.timestamp() + 3600


async def test_twice_is_once_also_over_a_restart(tmp_path: Path) -> None:
    """The same windows change nothing, in a later process neither; another amount changes the nodes and keeps those it has."""
    slurm = Slurm43()
    async with connected(slurm, tmp_path) as cluster:
        await cluster.reserve([window(NODE_W)])
        await cluster.reserve([window(NODE_W)])
    async with connected(slurm, tmp_path) as cluster:
        await cluster.reserve([window(NODE_W)])
        assert slurm.calls == ["create"]
        await cluster.reserve([window(2.5 * NODE_W)])
        assert slurm.nodes() == [["n1", "n2", "n4"]]
        await cluster.reserve([window(0.5 * NODE_W)])
        assert slurm.nodes() == [["n2"]]
        assert slurm.calls == ["create", "update", "update"]


async def test_a_window_that_goes_takes_its_reservation_along(tmp_path: Path) -> None:
    """A window that is not among those wanted any more is deleted; an administrator's and another asset's reservations stay."""
    slurm = Slurm43()
    others = {"name": "vppd-abcdef-0123456789", "start_time": 0, "end_time": 1, "node_list": "n1"}
    slurm.reservations = {"maintenance": {**others, "name": "maintenance"}, others["name"]: others}  # type: ignore[dict-item]
    async with connected(slurm, tmp_path) as cluster:
        await cluster.reserve([window(NODE_W), window(NODE_W, 5.0)])
        assert len(slurm.reservations) == 4
        await cluster.reserve([window(NODE_W, 5.0)])
        assert len(slurm.reservations) == 3
        assert await cluster.reserve([]) == ()
    assert set(slurm.reservations) == {"maintenance", others["name"]}


async def test_two_assets_of_one_cluster_do_not_meet(tmp_path: Path) -> None:
    """Assets of different partitions keep their reservations apart by name."""
    slurm = Slurm43()
    async with connected(slurm, tmp_path, partitions=["flex"]) as cluster:
        await cluster.reserve([window(NODE_W)])
    async with connected(slurm, tmp_path, partitions=["other"]) as cluster:
        await cluster.reserve([])
    assert len(slurm.reservations) == 1


async def test_windows_that_overlap_have_different_nodes(tmp_path: Path) -> None:
    """Overlapping windows add up; later ones may have the same nodes again; equal ones are one reservation."""
    slurm = Slurm43()
    async with connected(slurm, tmp_path) as cluster:
        await cluster.reserve([window(NODE_W), window(NODE_W, 0.5), window(NODE_W, 3.0), window(NODE_W, 3.0)])
    first, second, third = slurm.nodes()
    assert (len(first), len(second), len(third)) == (1, 1, 2)
    assert not set(first) & set(second)


async def test_more_than_there_is_is_told(tmp_path: Path) -> None:
    """A window that takes more than all nodes gets all of them, and its shortfall is said."""
    slurm = Slurm43()
    async with connected(slurm, tmp_path) as cluster:
        (kept,) = await cluster.reserve([window(5.0 * NODE_W)])
        assert kept.power_w == 4.0 * NODE_W
        assert "short by 6000 W" in kept.detail
        assert await cluster.reserve([window(0.0)]) != ()
        assert not slurm.reservations


async def test_what_slurm_refuses_is_told_window_by_window(tmp_path: Path) -> None:
    """A refused reservation keeps nothing free and says why; what was there before counts on."""
    slurm = Slurm43()
    async with connected(slurm, tmp_path) as cluster:
        await cluster.reserve([window(NODE_W)])
        slurm.refuse = "Access/permission denied"
        old, new = await cluster.reserve([window(2.0 * NODE_W), window(NODE_W, 9.0)])
        assert (old.power_w, new.power_w) == (NODE_W, 0.0)
        assert "permission denied" in new.detail


async def test_off_unless_wanted(tmp_path: Path) -> None:
    """Without reserve_for_awards Slurm is not asked at all."""
    slurm = Slurm43()
    async with connected(slurm, tmp_path, reserve_for_awards=False) as cluster:
        (kept,) = await cluster.reserve([window(NODE_W)])
    assert kept.power_w is None
    assert not slurm.calls


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (
            "ReservationName=vppd-x StartTime=2026-12-01T17:00:00 EndTime=2026-12-01T18:00:00 Nodes=n[1-2] NodeCnt=2",
            [Reservation("vppd-x", AT, AT + timedelta(hours=1), ("n1", "n2"))],
        ),
        ("No reservations in the system", []),
    ],
)
async def test_scontrols_words(said: str, found: list[Reservation], tmp_path: Path) -> None:
    """What scontrol prints of reservations is read in UTC, whatever the machine's time zone is."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\n[ "$TZ" = UTC ] && echo "{said}"\n')
    scontrol.chmod(0o755)
    assert await SlurmCommands(str(tmp_path), None, 20.0).reservations() == found


async def test_a_reservation_without_sense_is_garbled(tmp_path: Path) -> None:
    """A reservation whose times are no times is dropped with a word about it."""
    slurm = Slurm43()
    slurm.reservations = {"x": {"name": "x", "start_time": "soon", "end_time": 1, "node_list": "n1"}}
    async with connected(slurm, tmp_path) as cluster:
        with pytest.raises(Garbled):
            await cluster.reserve([])

"""The control endpoint: truth and failures."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from tests.sim.conftest import ServedSite
from tests.sim.hands import address
from vppd.sim.modbus import HOST


async def test_state_is_the_truth(served_site: ServedSite) -> None:
    """Meters, devices, halls and counts are there, and the meters are the sum of what hangs on them."""
    truth = (await served_site.http.get(served_site.control("state"))).json()
    assert set(truth["devices"]) == {"poi-a", "poi-b", "ups-a", "bess-b", "pv-b"}
    a, hall = truth["feeds"]["main-a"], truth["halls"]["hall-a"]
    parts_w = hall["power_w"] + a["racks_w"] + a["cooling_w"] + truth["devices"]["ups-a"]["power_w"]
    assert a["power_w"] == pytest.approx(parts_w)
    assert hall["jobs"] == {"RUNNING": 38, "STOPPED": 0, "PENDING": 38}
    assert sum(hall["tier_power_w"]) == pytest.approx(hall["power_w"])
    assert len(hall["job_list"]) == 76


async def test_writes_are_counted_at_the_device(served_site: ServedSite) -> None:
    """Three writes of two different setpoints are three writes and two transitions."""
    unit = served_site.site.storage["ups-a"]
    reader, writer = await asyncio.open_connection(HOST, served_site.endpoints.modbus["ups-a"])
    for set_w in (10_000, 10_000, 20_000):
        body = struct.pack(">HHi", 1, 1, set_w)
        head = struct.pack(">BHHB", 16, address(unit, 704, "WSetEna"), 4, 8)
        writer.write(struct.pack(">HHHB", 1, 0, len(head + body) + 1, 1) + head + body)
        assert (await reader.readexactly(12))[7] == 16
    writer.close()
    truth = (await served_site.http.get(served_site.control("state"))).json()["devices"]["ups-a"]
    assert (truth["writes"], truth["transitions"], truth["setpoint_w"]) == (3, 2, -20_000.0)
    log = (await served_site.http.get(served_site.control("writes/ups-a"))).json()["entries"]
    assert [entry["setpoint_w"] for entry in log] == [-10_000.0, -20_000.0]


async def test_a_fault_begins_and_ends(served_site: ServedSite) -> None:
    """A fault is in the truth while it lasts; 0 seconds ends it."""
    url = served_site.control("fault")
    body = {"device": "bess-b", "kind": "silent", "for_s": 60}
    assert (await served_site.http.post(url, json=body)).json() == {"faults": {"bess-b": "silent"}}
    assert (await served_site.http.post(url, json=body | {"for_s": 0})).json() == {"faults": {}}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param({"device": "nobody", "kind": "silent", "for_s": 1}, 404, id="unknown-device"),
        pytest.param({"device": "bess-b", "kind": "tired", "for_s": 1}, 422, id="unknown-kind"),
        pytest.param({"device": "bess-b"}, 422, id="incomplete"),
        pytest.param([], 422, id="no-object"),
    ],
)
async def test_bad_faults_are_refused(served_site: ServedSite, body: Any, status: int) -> None:
    """A fault that makes no sense is refused, and an unknown log too."""
    assert (await served_site.http.post(served_site.control("fault"), json=body)).status_code == status
    assert (await served_site.http.get(served_site.control("writes/nobody"))).status_code == 404

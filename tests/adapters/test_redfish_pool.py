"""Many BMCs at once: dead and slow ones, leases, the journal, and processes that are killed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from adapters._caps import NodeCaps, NodeMeters
from adapters._redfish_config import BmcPoolConfig, RedfishConfig
from adapters._redfish_lanes import Lanes
from adapters._redfish_pool import BmcPool, open_pool
from adapters.redfish import connect
from tests.adapters.redfish_bmcs import PASSWORD, USER, Behaviour, Farm, farm
from tests.adapters.redfish_process import served
from tests.support import ROOT
from vppd.errors import ConfigError, Refused, Unreachable
from vppd.model import Setpoint


def table(addresses: dict[str, str], folder: Path, **more: Any) -> dict[str, Any]:
    """Return a connection table."""
    password = folder / "password"
    password.write_text(PASSWORD, encoding="utf-8")
    first = {"bmcs": addresses, "user_name": USER, "password_file": str(password), "insecure": True}
    return {**first, "journal": str(folder / "journal.json"), "wait_s": 8.0, "refresh_s": 0.2, **more}


def pool_config(served: Farm, folder: Path, **more: Any) -> BmcPoolConfig:
    """Return the configuration of a pool for a farm."""
    return BmcPoolConfig.model_validate(table(served.addresses, folder, **more))


@asynccontextmanager
async def pooled(behaviours: dict[str, Behaviour], folder: Path, **more: Any) -> AsyncIterator[tuple[Farm, BmcPool]]:
    """Yield a farm and a pool of all its BMCs."""
    async with farm(behaviours) as served, open_pool(pool_config(served, folder, **more)) as pool:
        yield served, pool


async def until(holds: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(limit_s):
        while not holds():
            await asyncio.sleep(0.02)


# ---- many ----------------------------------------------------------------------------------------------------------


async def test_it_caps_nodes_as_agents_do(tmp_path: Path) -> None:
    """The pool is what a cluster adapter asks for: caps and power by the name of the node."""
    async with pooled({"a": Behaviour(), "b": Behaviour(dead="gone")}, tmp_path) as (served, pool):
        caps: NodeCaps = pool
        meters: NodeMeters = pool
        assert isinstance(pool, NodeMeters)
        assert list(await caps.look(["a", "b"])) == ["a"]
        assert (meters.power_w("a"), meters.power_w("b")) == (6000.0, None)
        assert (await caps.put("a", 4000.0, 60.0)).cap_w == 4000.0
        assert (await caps.put("a", None, None)).cap_w is None
        assert served["a"].how.limit_w is None
        with pytest.raises(Unreachable):
            await caps.put("b", 4000.0, 60.0)
        with pytest.raises(Refused, match="no BMC 'x'"):
            await caps.put("x", 4000.0, 60.0)


async def test_a_cap_is_never_higher_than_the_one_before(tmp_path: Path) -> None:
    """An owner's limit of 5 kW stays when 6 kW are asked for, also after it was lowered meanwhile."""
    async with pooled({"a": Behaviour(limit_w=5000.0)}, tmp_path) as (served, pool):
        assert (await pool.put("a", 6000.0, 60.0)).cap_w == 5000.0
        assert served["a"].patches == []
        assert (await pool.put("a", 4000.0, 60.0)).cap_w == 4000.0
        assert (await pool.put("a", 6000.0, 60.0)).cap_w == 5000.0


async def test_an_ended_lease_lifts_the_cap(tmp_path: Path) -> None:
    """BMCs know no lease: the pool lifts what nobody renews, and nothing else."""
    async with pooled({"a": Behaviour(), "b": Behaviour()}, tmp_path) as (served, pool):
        await pool.put_all({"a": 4000.0}, 1.0)
        await pool.put_all({"b": 4000.0}, None)
        await until(lambda: served["a"].cap_w is None)
        assert served["b"].cap_w == 4000.0


async def test_dead_and_slow_ones_keep_nobody_waiting(tmp_path: Path) -> None:
    """With two places, four silent and four slow BMCs, the healthy ones are capped while these are still waited for."""
    behaviours = {f"dead{i}": Behaviour(dead="silent") for i in range(4)}
    behaviours |= {f"slow{i}": Behaviour(least_s=20.0, most_s=20.0) for i in range(4)}
    behaviours |= {f"well{i}": Behaviour() for i in range(4)}
    async with pooled(behaviours, tmp_path, at_once=2, timeout_s=60.0) as (served, pool):
        outcomes = await pool.put_all(dict.fromkeys(pool.names, 4000.0), 60.0, wait_s=0.0)
        assert isinstance(outcomes["well0"].error, Unreachable)
        await until(lambda: all(served[f"well{i}"].cap_w == 4000.0 for i in range(4)), 15.0)
        await until(lambda: all(pool.outcome(f"well{i}").holds(4000.0) for i in range(4)))
        assert not any(pool.outcome(name).holds(4000.0) for name in pool.names if not name.startswith("well"))


async def test_a_dead_one_is_left_alone_for_longer_and_longer(tmp_path: Path) -> None:
    """It is not asked again before its rest is over, a cap for it fails at once, and when it is back it is capped."""
    async with pooled({"a": Behaviour(dead="gone")}, tmp_path, retry_most_s=4.0) as (served, pool):
        with pytest.raises(Unreachable):
            await pool.put("a", 4000.0, 60.0)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with pytest.raises(Unreachable, match=r"asked again in [12] s"):
            await pool.put("a", 4000.0, 60.0)
        assert loop.time() - began_s < 1.0
        served["a"].how.dead = ""
        await until(lambda: served["a"].cap_w == 4000.0)


@pytest.mark.looptime
async def test_places_are_bounded() -> None:
    """No more than the places are taken at once, those that wait long make room for others, and the room is limited too."""
    lanes, gate = Lanes(2), asyncio.Event()

    async def wait() -> None:
        async with lanes.place(slow=False):
            await gate.wait()

    tasks = [asyncio.create_task(wait()) for _ in range(40)]
    await asyncio.sleep(0.1)
    assert lanes.under_way == 2
    await asyncio.sleep(60.0)
    assert lanes.under_way == 2 + 16
    gate.set()
    await asyncio.gather(*tasks)
    assert lanes.under_way == 0


async def test_the_newest_wish_wins(tmp_path: Path) -> None:
    """A cap that is lifted while it is being set ends lifted, whatever was under way."""
    async with pooled({"a": Behaviour(least_s=0.1, most_s=0.2)}, tmp_path) as (served, pool):
        first = asyncio.create_task(pool.put("a", 4000.0, 60.0))
        await asyncio.sleep(0.5)
        await pool.put("a", None, None)
        await first
        assert served["a"].cap_w is None
        assert pool.books.kept == {}


async def test_who_gives_up_waiting_leaves_the_wish(tmp_path: Path) -> None:
    """A caller that is cancelled gets its CancelledError; the cap is set all the same, for as long as it is valid."""
    async with pooled({"a": Behaviour(least_s=0.2, most_s=0.3)}, tmp_path) as (served, pool):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await pool.put("a", 4000.0, 60.0)
        await until(lambda: served["a"].cap_w == 4000.0)


# ---- the journal ---------------------------------------------------------------------------------------------------


async def test_it_is_on_disk_before_anything_is_changed(tmp_path: Path) -> None:
    """At the first PATCH the file tells how it was; many first changes share a few writes."""
    seen: dict[str, Any] = {}
    behaviours = {f"n{i}": Behaviour(limit_w=9000.0 + i) for i in range(15)}
    journal = tmp_path / "journal.json"

    def look(name: str) -> None:
        seen.setdefault(name, json.loads(journal.read_text(encoding="utf-8"))["kept"].get(name))

    async with farm(behaviours) as served:
        for name, bmc in served.bmcs.items():
            bmc.on_patch = partial(look, name)
        async with open_pool(pool_config(served, tmp_path)) as pool:
            await pool.put_all(dict.fromkeys(pool.names, 4000.0), 60.0)
            assert 0 < pool.journal_writes < 15
    assert {name: kept["priors"][0]["value"] for name, kept in seen.items()} == {f"n{i}": 9000.0 + i for i in range(15)}
    assert [how.limit_w for how in behaviours.values()] == [9000.0 + i for i in range(15)]


async def test_a_journal_that_cannot_be_read_stops_everything(tmp_path: Path) -> None:
    """Our own caps must never be taken for the limits that were there before."""
    await asyncio.to_thread((tmp_path / "journal.json").write_text, '{"format": 1, "kept": {"a"')
    async with farm({"a": Behaviour()}) as served:
        with pytest.raises(Refused, match="look at the limits by hand"):
            async with open_pool(pool_config(served, tmp_path)):
                pytest.fail("opened")


async def test_two_processes_never_share_a_journal(tmp_path: Path) -> None:
    """Whoever comes second does not start."""
    async with pooled({"a": Behaviour()}, tmp_path) as (served, _):
        with pytest.raises(ConfigError, match="in use"):
            async with open_pool(pool_config(served, tmp_path)):
                pytest.fail("opened")


async def lost(served: Farm, folder: Path, cap_w: float) -> None:
    """Cap all nodes and lose the link as a killed process would."""

    async def own() -> None:
        async with open_pool(pool_config(served, folder)) as pool:
            await pool.put_all(dict.fromkeys(pool.names, cap_w), 60.0)
            raise Unreachable("lost")

    with pytest.raises(Unreachable, match="lost"):
        await own()


async def test_a_lost_link_leaves_the_caps_to_the_next(tmp_path: Path) -> None:
    """The successor holds them for the time an orphan has, and then puts back what was there before the first process."""
    async with farm({"a": Behaviour(limit_w=9000.0)}) as served:
        await lost(served, tmp_path, 4000.0)
        assert served["a"].cap_w == 4000.0
        async with open_pool(pool_config(served, tmp_path, orphan_lease_s=2.0)):
            await asyncio.sleep(0.5)
            assert served["a"].cap_w == 4000.0
            await until(lambda: served["a"].cap_w == 9000.0)
        assert len(served["a"].patches) == 2


async def test_a_node_that_left_the_configuration_is_told(tmp_path: Path) -> None:
    """Nobody can restore it: it stays in the journal, and there is an alarm."""
    async with farm({"a": Behaviour(), "b": Behaviour()}) as served:
        await lost(served, tmp_path, 4000.0)
        fewer = table({"a": served.addresses["a"]}, tmp_path)
        async with open_pool(BmcPoolConfig.model_validate(fewer)) as pool:
            assert "not in the configuration" in str(pool.problems()["b"])
        assert served.caps_w() == {"a": None, "b": 4000.0}
        assert "b" in json.loads((tmp_path / "journal.json").read_text(encoding="utf-8"))["kept"]


async def test_a_successor_goes_on_with_the_budget(tmp_path: Path) -> None:
    """It says which budget is in force, takes what was drawn before as full power, and writes no limit anew for the same budget."""
    more = {"default_tier": 2, "cap_floor_frac": 0.3}
    async with farm({"a": Behaviour(), "b": Behaviour()}) as served:
        config = RedfishConfig.model_validate(table(served.addresses, tmp_path, **more))

        async def own() -> None:
            async with connect(config) as nodes:
                await nodes.apply(Setpoint("x", 9000.0, 60.0))
                raise Unreachable("lost")

        with pytest.raises(Unreachable, match="lost"):
            await own()
        async with connect(config) as nodes:
            sample = await nodes.read()
            assert (sample.setpoint_w, sample.available_w) == (9000.0, 12_000.0)
            await nodes.apply(Setpoint("x", 9000.0, 60.0))
            assert [len(bmc.patches) for bmc in served.bmcs.values()] == [1, 1]
        assert served.caps_w() == {"a": None, "b": None}


async def test_an_interrupted_release_goes_on(tmp_path: Path) -> None:
    """What was to be lifted when the process ended is lifted by the next one at once, not held for another lease."""
    async with farm({"a": Behaviour()}) as served:
        config = RedfishConfig.model_validate(table(served.addresses, tmp_path, default_tier=2, timeout_s=0.5))

        async def own() -> None:
            async with connect(config) as nodes:
                await nodes.apply(Setpoint("x", 5500.0, 600.0))
                served["a"].how.dead = "gone"
                await nodes.release()

        with pytest.raises(Unreachable, match="no limit is as it was"):
            await own()
        served["a"].how.dead = ""
        assert served["a"].cap_w is not None
        async with connect(config) as nodes:
            await until(lambda: served["a"].cap_w is None)
            assert (await nodes.read()).setpoint_w is None


KILLED = """
import asyncio, json, sys
from adapters.redfish import connect
from adapters._redfish_config import RedfishConfig
from vppd.model import Setpoint

async def main():
    async with connect(RedfishConfig.model_validate(json.loads(sys.stdin.readline()))) as nodes:
        print((await nodes.apply(Setpoint("x", 9000.0, 600.0))).power_w, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@contextmanager
def process(connection: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """Run the adapter in a process of its own."""
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdin is not None
            running.stdin.write(json.dumps(connection) + "\n")
            running.stdin.flush()
            yield running
        finally:
            running.kill()


@pytest.mark.integration
def test_limits_come_back_after_kill_9(tmp_path: Path) -> None:
    """A killed process leaves its caps; the next one finds them in the journal and restores limits and modes of before."""
    before = {"style": "control", "limit_w": 9500.0, "mode": "Disabled"}
    more = {"default_tier": 3, "cap_floor_frac": 0.3, "orphan_lease_s": 1.0}
    with served(tmp_path, {"a": before, "b": {"limit_w": 9000.0}}) as bmcs:
        connection = table(bmcs.addresses, tmp_path, **more)
        with process(connection) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == "9000.0\n"
            running.kill()
            running.wait()
        held = bmcs.ask()
        assert all(bmc["cap_w"] < 5000.0 for bmc in held.values())
        assert held["a"]["mode"] == "Manual"

        async def successor() -> None:
            async with connect(RedfishConfig.model_validate(connection)) as nodes:
                assert (await nodes.read()).setpoint_w == 9000.0
                await nodes.release()

        asyncio.run(successor())
        after = bmcs.ask()
        assert (after["a"]["limit_w"], after["a"]["mode"], after["b"]["limit_w"]) == (9500.0, "Disabled", 9000.0)


# ---- configuration -------------------------------------------------------------------------------------------------


def config(folder: Path, **more: Any) -> RedfishConfig:
    """Return a configuration of one BMC by https."""
    first = {
        "bmcs": {"a": "https://10.0.0.1"},
        "user_name": "u",
        "password_file": folder / "p",
        "journal": folder / "j",
    }
    return RedfishConfig.model_validate({**first, **more})


def test_ranges_give_names_and_addresses(tmp_path: Path) -> None:
    """A range counts with as many digits as its first number; addresses may use the name or the number."""
    ranges = [
        {"names": "n[008-010]", "url": "https://{name}.bmc"},
        {"names": "x[1-2]a", "url": "https://10.0.0.{n}:8443"},
    ]
    assert config(tmp_path, bmcs={}, ranges=ranges).addresses() == {
        "n008": "https://n008.bmc",
        "n009": "https://n009.bmc",
        "n010": "https://n010.bmc",
        "x1a": "https://10.0.0.1:8443",
        "x2a": "https://10.0.0.2:8443",
    }


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"bmcs": {}}, "there is no BMC"),
        ({"bmcs": {"a": "10.0.0.1"}}, "is not an address"),
        ({"bmcs": {"a": "https://u:p@10.0.0.1"}}, "is not an address"),
        ({"bmcs": {"a": "http://10.0.0.1"}}, "password in the clear"),
        ({"fingerprints": {"a": "12:34"}}, "64 hex digits"),
        ({"fingerprints": {"b": "00" * 32}}, "there is no BMC 'b'"),
        ({"node_tier": {"b": 1}}, "there is no BMC b"),
        ({"ranges": [{"names": "a", "url": "https://{n}"}]}, "has no range"),
        ({"ranges": [{"names": "n[9-1]", "url": "https://{n}"}]}, "1 to 10000"),
        ({"ranges": [{"names": "n[1-9]", "url": "https://{host}"}]}, "neither name nor n"),
        ({"bmcs": {"n1": "https://x"}, "ranges": [{"names": "n[1-2]", "url": "https://{n}"}]}, "named twice"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, more: dict[str, Any], why: str) -> None:
    """A configuration that cannot be meant is refused, in words."""
    with pytest.raises(ValidationError, match=why):
        config(tmp_path, **more)


async def test_a_missing_password_file_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    """Nothing starts without it, and the journal is free again."""
    for _ in range(2):
        with pytest.raises(ConfigError, match="password_file"):
            async with open_pool(config(tmp_path)):
                pytest.fail("opened")

"""Nodes capped through BMCs, as an asset: against real HTTP servers on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from adapters import redfish
from adapters._redfish_config import RedfishConfig
from adapters.redfish import RedfishNodes, connect
from tests.adapters.redfish_bmcs import PASSWORD, USER, Behaviour, Farm, farm
from vppd.errors import Refused, Unreachable
from vppd.model import Setpoint
from vppd.ports import Controllable, Plannable, Polled
from vppd.testing.conformance import AdapterConformance, Rig
from vppd.workload import Curtailment, Workload

LEASE_S = 600.0


def table(served: Farm, folder: Path, **more: Any) -> dict[str, Any]:
    """Return a connection table for a farm."""
    password = folder / "password"
    password.write_text(PASSWORD, encoding="utf-8")
    return {
        "bmcs": served.addresses,
        "user_name": USER,
        "password_file": str(password),
        "insecure": True,
        "journal": str(folder / "journal.json"),
        "default_tier": 2,
        "cap_floor_frac": 0.3,
        "refresh_s": 0.2,
        "wait_s": 8.0,
        "read_wait_s": 5.0,
        **more,
    }


@asynccontextmanager
async def opened(
    behaviours: dict[str, Behaviour], folder: Path, **more: Any
) -> AsyncIterator[tuple[Farm, RedfishNodes]]:
    """Yield a farm and the asset of all its nodes."""
    async with farm(behaviours) as served:
        config = RedfishConfig.model_validate(table(served, folder, **more))
        async with connect(config) as nodes:
            yield served, nodes


def setpoint(power_w: float, lease_s: float = LEASE_S) -> Setpoint:
    """Return a setpoint for the asset."""
    return Setpoint("racks", power_w, lease_s)


async def until(holds: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(limit_s):
        while not holds():
            await asyncio.sleep(0.02)


class RedfishConformance(AdapterConformance):
    """Three nodes of one style."""

    style = "metrics"

    @asynccontextmanager
    async def rig(self) -> AsyncIterator[Rig]:
        """Yield three BMCs; 15 kW can be followed, 18 kW is drawn."""
        behaviours = {f"n{i}": Behaviour(style=self.style, **self.more()) for i in range(3)}
        with TemporaryDirectory() as name:
            async with farm(behaviours) as served:

                def follows_w() -> float | None:
                    caps_w = [cap_w for cap_w in served.caps_w().values() if cap_w is not None]
                    return sum(caps_w) if caps_w else None

                async def end_lease() -> None:
                    await until(lambda: follows_w() is None)

                more = {"refresh_s": 0.0, "timeout_s": 0.5, "read_wait_s": 0.5, "wait_s": 5.0}
                yield Rig(
                    redfish.ADAPTER,
                    table(served, Path(name), **more),
                    hush=served.hush,
                    setpoint_w=15_000.0,
                    follows_w=follows_w,
                    lease_s=2.0,
                    end_lease=end_lease,
                )

    def more(self) -> dict[str, Any]:
        """Return what else the BMCs are like."""
        return {}


class TestMetrics(RedfishConformance):
    """EnvironmentMetrics of a chassis."""


class TestControl(RedfishConformance):
    """A Control that has to be enabled."""

    style = "control"

    def more(self) -> dict[str, Any]:
        """Disabled at first."""
        return {"mode": "Disabled", "limit_w": 9000.0}


async def test_it_is_what_the_daemon_asks_for(tmp_path: Path) -> None:
    """The asset is polled, takes setpoints and lets a planner choose."""
    async with opened({"a": Behaviour()}, tmp_path) as (_, nodes):
        assert isinstance(nodes, Polled)
        assert isinstance(nodes, Controllable)
        assert isinstance(nodes, Plannable)


async def test_a_reading_tells_what_each_tier_could_shed(tmp_path: Path) -> None:
    """Headroom goes from what is measured to the floor; tier 0 has none, and the most tolerant node is named first."""
    behaviours = {"a": Behaviour(), "b": Behaviour(demand_w=5000.0), "c": Behaviour(demand_w=4000.0)}
    async with opened(behaviours, tmp_path, node_tier={"a": 0, "b": 1, "c": 3}) as (_, nodes):
        sample = await nodes.read()
        assert (sample.power_w, sample.available_w) == (15_000.0, 15_000.0)
        assert sample.tier_shed_w == pytest.approx((0.0, 2000.0, 0.0, 1000.0))
        assert sample.shed_first == (("c", 4000.0), ("b", 5000.0))
        assert sample.lower_w == pytest.approx(12_000.0)


async def test_a_budget_takes_the_same_part_of_every_headroom(tmp_path: Path) -> None:
    """Caps divide the need by headroom, tier 0 stays untouched, and what is read back keeps to the budget."""
    behaviours = {"a": Behaviour(), "b": Behaviour(), "c": Behaviour(demand_w=9000.0)}
    async with opened(behaviours, tmp_path, node_tier={"a": 0}, margin_frac=0.0) as (served, nodes):
        applied = await nodes.apply(setpoint(18_000.0))
        assert applied.power_w == 18_000.0
        assert served.caps_w() == {"a": None, "b": pytest.approx(5000.0, abs=2), "c": pytest.approx(7000.0, abs=2)}
        assert (await nodes.read()).setpoint_w == 18_000.0
        assert (await nodes.read()).available_w == 21_000.0


async def test_no_cap_goes_below_the_floor(tmp_path: Path) -> None:
    """A budget nobody can keep is answered by what is to be expected, and no node is pressed below its floor."""
    async with opened({"a": Behaviour(), "b": Behaviour()}, tmp_path, cap_floor_frac=0.5) as (served, nodes):
        applied = await nodes.apply(setpoint(1000.0))
        assert served.caps_w() == {"a": 5000.0, "b": 5000.0}
        assert applied.power_w == 10_000.0
        assert "short by 9000 W" in applied.detail


async def test_dead_nodes_count_in_full_and_the_others_give_for_them(tmp_path: Path) -> None:
    """A silent BMC's node counts for node_max_w, is counted in the detail, and the others make up for it as far as they can."""
    behaviours = {"a": Behaviour(), "b": Behaviour(), "c": Behaviour(dead="gone")}
    async with opened(behaviours, tmp_path, node_max_w=8000.0, read_wait_s=1.0) as (served, nodes):
        sample = await nodes.read()
        assert sample.power_w == 20_000.0
        assert sample.fault == ""
        applied = await nodes.apply(setpoint(17_000.0))
        assert applied.power_w == 17_000.0
        assert "1 silent, counted at 8000 W each; other troubles: c: does not answer" in applied.detail
        assert sum(cap_w or 0.0 for cap_w in served.caps_w().values()) <= 9000.0


async def test_a_reading_never_waits_for_the_dead(tmp_path: Path) -> None:
    """While others are fresh a reading is what is known: a silent BMC that is asked meanwhile does not hold it up."""
    async with opened({"a": Behaviour(), "b": Behaviour()}, tmp_path, refresh_s=2.0, timeout_s=60.0) as (served, nodes):
        await nodes.read()
        served["b"].how.dead = "silent"
        loop = asyncio.get_running_loop()
        over_s, longest_s = loop.time() + 5.0, 0.0
        while loop.time() < over_s:
            began_s = loop.time()
            await nodes.read()
            longest_s = max(longest_s, loop.time() - began_s)
            await asyncio.sleep(0.1)
        assert longest_s < 3.0


async def test_a_node_that_refuses_is_named_and_made_up_for(tmp_path: Path) -> None:
    """One BMC says no: it is named with its own words, expected in full, and the next round caps the others deeper."""
    async with opened({"a": Behaviour(), "b": Behaviour(refuses=True)}, tmp_path) as (served, nodes):
        applied = await nodes.apply(setpoint(10_000.0))
        assert applied.power_w is not None
        assert applied.power_w > 10_500.0
        assert "1 failed: b: " in applied.detail
        assert "The property SetPoint is read only." in applied.detail
        await until(lambda: (served["a"].cap_w or 9999.0) < 4000.0)
        assert served["b"].patches == []
        assert (await nodes.apply(setpoint(10_000.0))).power_w == 10_000.0


@pytest.mark.parametrize(("how", "expected_w"), [(Behaviour(deaf=True), 6000.0), (Behaviour(clamp_w=5500.0), 5500.0)])
async def test_a_bmc_that_only_seems_to_obey_is_found_out(tmp_path: Path, how: Behaviour, expected_w: float) -> None:
    """A limit that is taken and not applied, or silently raised, shows in the figure and in words; it is never believed."""
    async with opened({"a": how}, tmp_path) as (_, nodes):
        applied = await nodes.apply(setpoint(4000.0))
        assert applied.power_w == expected_w
        assert "reads back as" in applied.detail


async def test_all_bmcs_refuse(tmp_path: Path) -> None:
    """Where nobody takes a cap the setpoint is refused, not half applied."""
    async with opened({"a": Behaviour(refuses=True)}, tmp_path) as (_, nodes):
        with pytest.raises(Refused, match="read only"):
            await nodes.apply(setpoint(4000.0))


async def test_a_wrong_password_is_a_clear_no(tmp_path: Path) -> None:
    """Reading is Refused with the BMC's words, and the account is not locked out by trying again and again."""
    async with farm({"a": Behaviour()}) as served:
        connection = table(served, tmp_path)
        await asyncio.to_thread((tmp_path / "password").write_text, "wrong")
        async with connect(RedfishConfig.model_validate(connection)) as nodes:
            with pytest.raises(Refused, match="Wrong name or password"):
                await nodes.read()
            for _ in range(3):
                with pytest.raises(Refused):
                    await nodes.read()
        assert served["a"].requests == 1


class HalvesTheSecond:
    """A planner that slows one node."""

    def __init__(self) -> None:
        self.seen: Workload | None = None

    def plan(self, workload: Workload, budget_w: float, now_s: float) -> Curtailment:
        """Slow b to a half."""
        self.seen = workload
        return Curtailment({"b": 0.5}, expected_w=budget_w)

    def shed_w(self, workload: Workload) -> tuple[float, ...]:
        """Return figures to be recognised by."""
        return (0.0, 1.0, 2.0, 3.0)


async def test_a_planner_chooses_the_nodes(tmp_path: Path) -> None:
    """With a planner each node is a job with the knob CAP; what it does not name is not touched."""
    planner, behaviours = HalvesTheSecond(), {"a": Behaviour(), "b": Behaviour(), "c": Behaviour()}
    async with opened(behaviours, tmp_path, node_tier={"c": 0}) as (served, nodes):
        nodes.plan_with(planner)
        applied = await nodes.apply(setpoint(15_000.0))
        assert served.caps_w() == {"a": None, "b": 3000.0, "c": None}
        assert applied.power_w == 15_000.0
        assert (await nodes.read()).tier_shed_w == (0.0, 1.0, 2.0, 3.0)
    assert planner.seen is not None
    assert [(job.id, job.knob, job.full_w, job.floor_frac) for job in planner.seen.jobs] == [
        ("a", "cap", 6000.0, 0.5),
        ("b", "cap", 6000.0, 0.5),
    ]
    assert planner.seen.rest_w == 6000.0


async def test_a_planner_cannot_press_below_the_floor(tmp_path: Path) -> None:
    """The floor is the adapter's own guard, whatever a planner says."""
    async with opened({"b": Behaviour()}, tmp_path, cap_floor_frac=0.4) as (served, nodes):
        nodes.plan_with(HalvesTheSecond())
        await nodes.apply(setpoint(1000.0))
        assert served["b"].cap_w == 4000.0


async def test_release_puts_back_what_was_there(tmp_path: Path) -> None:
    """Limits and control modes of before come back, whatever they were; leaving in good order does the same."""
    behaviours = {
        "none": Behaviour(),
        "limited": Behaviour(limit_w=5800.0, demand_w=5800.0),
        "off": Behaviour(style="control", limit_w=7000.0, mode="Disabled"),
        "words": Behaviour(style="control", limit_w=7000.0, mode="Disabled", whole_words=True),
        "auto": Behaviour(style="control", limit_w=9500.0, mode="Automatic"),
        "percent": Behaviour(style="percent", limit_w=9000.0, mode="Manual"),
        "old": Behaviour(style="power", limit_w=9000.0),
    }
    before = {name: (how.limit_w, how.mode) for name, how in behaviours.items()}
    async with opened(behaviours, tmp_path) as (served, nodes):
        for _ in range(2):
            await nodes.apply(setpoint(30_000.0))
            assert all(bmc.cap_w is not None and bmc.cap_w < 5800.0 for bmc in served.bmcs.values())
            assert (served["auto"].how.mode, served["off"].how.mode) == ("Manual", "Manual")
            await nodes.release()
            assert {name: (bmc.how.limit_w, bmc.how.mode) for name, bmc in served.bmcs.items()} == before
        await nodes.apply(setpoint(30_000.0))
    assert {name: (how.limit_w, how.mode) for name, how in behaviours.items()} == before


async def test_release_is_not_held_up_by_a_dead_bmc(tmp_path: Path) -> None:
    """The others are put back, the dead one as soon as it answers; only when none can be put back the release is Unreachable."""
    async with opened({"a": Behaviour(), "b": Behaviour()}, tmp_path, timeout_s=0.5) as (served, nodes):
        await nodes.apply(setpoint(10_000.0))
        served["b"].how.dead = "gone"
        await nodes.release()
        assert (served["a"].cap_w, served["b"].cap_w is None) == (None, False)
        with pytest.raises(Unreachable, match="no limit is as it was: b: "):
            await nodes.release()
        served["b"].how.dead = ""
        await until(lambda: served["b"].cap_w is None)
        await nodes.release()


async def test_a_slow_bmc_does_not_hold_up_a_setpoint(tmp_path: Path) -> None:
    """What is not done in time counts in full and is done in the background; the link is not given up."""
    async with opened({"a": Behaviour(least_s=0.3, most_s=0.4)}, tmp_path, wait_s=0.1) as (served, nodes):
        await nodes.read()
        applied = await nodes.apply(setpoint(4000.0))
        assert applied.power_w == 6000.0
        assert "0 of 1 capped; 1 failed: a: not done yet" in applied.detail
        await until(lambda: (served["a"].cap_w or 9999.0) < 4000.0)
        await nodes.release()
        await until(lambda: served["a"].cap_w is None)


async def test_a_refused_restore_is_an_alarm(tmp_path: Path) -> None:
    """A BMC that does not take its old limit back is named, in its own words."""
    async with opened({"a": Behaviour(), "b": Behaviour()}, tmp_path) as (served, nodes):
        await nodes.apply(setpoint(10_000.0))
        served["b"].how.refuses = True
        with pytest.raises(Refused, match=r"not all limits are as they were: b: .* read only"):
            await nodes.release()
        assert served["a"].cap_w is None
        served["b"].how.refuses = False
        await nodes.release()
        assert served["b"].cap_w is None


async def test_power_follows_a_cap_at_once(tmp_path: Path) -> None:
    """Between two readings of the BMC a node counts for no more than the cap read back, or the feed's other load seems to shrink."""
    async with opened({"a": Behaviour()}, tmp_path, refresh_s=30.0) as (_, nodes):
        assert (await nodes.read()).power_w == 6000.0
        await nodes.apply(setpoint(4000.0))
        sample = await nodes.read()
        assert sample.power_w is not None
        assert sample.power_w <= 4000.0
        assert sample.available_w == 6000.0
        await nodes.release()
        async with asyncio.timeout(20.0):
            while (await nodes.read()).power_w != 6000.0:
                await asyncio.sleep(0.1)


async def test_a_renewal_writes_nothing(tmp_path: Path) -> None:
    """The same budget again, and small changes of the load, leave the limits in the BMCs' flash alone."""
    async with opened({"a": Behaviour(), "b": Behaviour()}, tmp_path) as (served, nodes):
        await nodes.apply(setpoint(10_000.0))
        for _ in range(3):
            assert (await nodes.apply(setpoint(10_000.0))).power_w == 10_000.0
        await nodes.apply(setpoint(10_020.0))
        assert [len(bmc.patches) for bmc in served.bmcs.values()] == [1, 1]


async def test_a_limit_that_somebody_raised_is_set_again(tmp_path: Path) -> None:
    """Hosts re-apply limits of their own: what is read differs from what was set, and it is set again by itself."""
    async with opened({"a": Behaviour()}, tmp_path) as (served, nodes):
        await nodes.apply(setpoint(4000.0))
        served["a"].how.limit_w = 9000.0
        await until(lambda: served["a"].how.limit_w is not None and served["a"].how.limit_w <= 4000.0)


async def test_a_busy_disk_stops_the_first_change(tmp_path: Path) -> None:
    """What cannot be written down is not changed: without the journal nobody could put it back."""
    async with opened({"a": Behaviour()}, tmp_path) as (served, nodes):
        await nodes.read()
        (tmp_path / "journal.json").mkdir()
        with pytest.raises(Refused, match="journal"):
            await nodes.apply(setpoint(4000.0))
        assert served["a"].patches == []
        (tmp_path / "journal.json").rmdir()

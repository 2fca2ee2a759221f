"""A cluster of nodes with agents, over a real broker: budgets, acknowledgements, silence, other senders, restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiomqtt
import pytest

from adapters.gpu_agents import ADAPTER
from tests.adapters.agents_rig import (
    FULL_W,
    REST_W,
    SITE,
    TELEMETRY_S,
    Cluster,
    cluster,
    connected,
    connection,
    eventually,
)
from tests.servers.agent_swarm import swarm
from tests.servers.mosquitto import Mosquitto
from vppd.errors import Refused, Unreachable
from vppd.model import Applied
from vppd.testing.conformance import AdapterConformance, Rig
from vppd.workload import Curtailment, Knob, Workload

pytestmark = pytest.mark.integration


class TestConformance(AdapterConformance):
    """The contract of the ports."""

    @pytest.fixture(autouse=True)
    def _broker(self, mosquitto: Mosquitto) -> None:
        self.broker = mosquitto

    @asynccontextmanager
    async def rig(self) -> AsyncIterator[Rig]:
        """Yield three nodes."""
        setpoint_w = 3 * (4_000.0 + REST_W)
        async with swarm(self.broker.host, self.broker.port, SITE, "abc", telemetry_s=TELEMETRY_S) as agents:

            def hush() -> None:
                for agent in agents.values():
                    agent.is_mute = True

            def follows_w() -> float | None:
                caps_w = [agent.cap_w for agent in agents.values()]
                known_w = [cap_w + REST_W for cap_w in caps_w if cap_w is not None]
                return sum(known_w) if len(known_w) == len(caps_w) else None

            async def end_lease() -> None:
                await eventually(lambda: follows_w() is None)

            yield Rig(ADAPTER, connection(self.broker), hush, setpoint_w, follows_w, 1.0, end_lease)


async def test_what_is_drawn_and_what_could_be_shed(mosquitto: Mosquitto) -> None:
    """Power is the agents' and the rest of each node; a cap goes down to half the default limit, tier 0 gives nothing."""
    async with cluster(mosquitto, node_tier={"b": 0, "[c-z]": 1}) as found:
        sample = await found.sample()
        assert sample.power_w == sample.available_w == sample.upper_w == 3 * (FULL_W + REST_W)
        tier_1_w = FULL_W * (0.1 / 0.958) ** (1 / 1.358)
        assert sample.tier_shed_w == pytest.approx((0.0, tier_1_w, 0.0, FULL_W - 2_800.0))
        assert sample.lower_w == pytest.approx(3 * (FULL_W + REST_W) - sum(sample.tier_shed_w))
        assert (sample.setpoint_w, sample.fault) == (None, "")
        assert [name for name, _ in sample.shed_first] == ["a", "c"]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_nodes_are_capped_alike_and_read_back(mosquitto: Mosquitto, protocol: str) -> None:
    """The budget is shared in equal parts of what each can give; the next samples show it kept."""
    async with cluster(mosquitto, protocol=protocol) as found:
        applied = await found.apply(3 * 4_000.0)
        assert applied == Applied(3 * (4_000.0 + REST_W), "3 of 3 nodes held")
        assert found.caps_w() == [4_000.0] * 3
        sample = await found.until(lambda s: s.power_w == pytest.approx(3 * (4_000.0 + REST_W), rel=0.01))
        assert sample.setpoint_w == 3 * (4_000.0 + REST_W)
        assert sample.available_w == pytest.approx(3 * (FULL_W + REST_W), rel=0.01), "as before the caps"


async def test_the_most_tolerant_give_first_and_nobody_more_than_his_tier(mosquitto: Mosquitto) -> None:
    """Tier 3 goes to its floor before tier 1 gives anything; what nobody may give is told as missing."""
    async with cluster(mosquitto, node_tier={"b": 1, "c": 0}) as found:
        await found.apply(3 * FULL_W - 1_000.0)
        assert found.caps_w() == [FULL_W - 1_000.0, None, None]
        applied = await found.apply(0.0)
        tier_1_w = FULL_W * (0.1 / 0.958) ** (1 / 1.358)
        assert found.caps_w() == pytest.approx([2_800.0, FULL_W - tier_1_w, None], abs=2.0)
        assert applied.power_w == pytest.approx(2_800.0 + 2 * FULL_W - tier_1_w + 3 * REST_W, abs=2.0)
        assert "short by" in applied.detail


async def test_more_than_is_drawn_caps_nobody(mosquitto: Mosquitto) -> None:
    """A budget that does not bind lifts the caps of the one before."""
    async with cluster(mosquitto) as found:
        await found.apply(3 * 4_000.0)
        assert await found.apply(4 * FULL_W) == Applied(4 * FULL_W + 3 * REST_W, "0 of 3 nodes held")
        assert found.caps_w() == [None] * 3


async def test_a_device_that_refuses_is_named_and_counted(mosquitto: Mosquitto) -> None:
    """One GPU keeps its limit: the node is counted with it, and sample and answer say which."""
    async with cluster(mosquitto) as found:
        found.agents["b"].gpus[3].refusal = "locked by the BMC"
        applied = await found.apply(3 * 4_000.0)
        assert applied.power_w == pytest.approx(3 * (4_000.0 + REST_W) + 200.0, abs=15.0)
        assert "GPU-b-3: locked by the BMC" in applied.detail
        assert "GPU-b-3" in (await found.sample()).fault


async def test_all_devices_refusing_is_refused(mosquitto: Mosquitto) -> None:
    """A clear no of everybody is an alarm."""
    async with cluster(mosquitto, ["a"]) as found:
        for gpu in found.agents["a"].gpus:
            gpu.refusal = "no permission"
        with pytest.raises(Refused, match="no permission"):
            await found.apply(4_000.0)


async def test_a_node_that_does_not_acknowledge_counts_in_full(mosquitto: Mosquitto) -> None:
    """Its outcome is unknown: all it could draw is taken to be drawn, and the others are still confirmed."""
    async with cluster(mosquitto, ack_timeout_s=1.0) as found:
        found.agents["b"].is_deaf = True
        applied = await found.apply(3 * 4_000.0)
        assert applied.power_w == 2 * 4_000.0 + 5_600.0 + 3 * REST_W
        assert "b: no acknowledgement" in applied.detail
        assert "2 of 3 nodes held" in applied.detail
        assert "no acknowledgement" in (await found.sample()).fault


async def test_nobody_acknowledging_is_unreachable(mosquitto: Mosquitto) -> None:
    """The outcome of the whole setpoint is unknown."""
    async with cluster(mosquitto, ["a", "b"], ack_timeout_s=0.5) as found:
        for agent in found.agents.values():
            agent.is_deaf = True
        with pytest.raises(Unreachable, match="outcome unknown"):
            await found.apply(4_000.0)


@pytest.mark.parametrize("way", ["mute", "dead"])
async def test_a_silent_node_is_taken_to_draw_all_it_could(mosquitto: Mosquitto, way: str) -> None:
    """Neither its last value nor 0 W: its limit, a fault that names it, and less for the others when there is a budget."""
    async with cluster(mosquitto) as found:
        await found.sample()
        if way == "mute":
            found.agents["c"].is_mute = True
        else:
            found.agents["c"].die()
        sample = await found.until(lambda s: s.fault)
        assert "c: silent" in sample.fault
        assert sample.power_w == 2 * FULL_W + 5_600.0 + 3 * REST_W
        applied = await found.apply(2 * 4_000.0 + 5_600.0)
        assert found.caps_w()[:2] == [4_000.0] * 2
        assert applied.power_w == 2 * 4_000.0 + 5_600.0 + 3 * REST_W
        assert "c: silent" in applied.detail


async def test_silence_of_all_is_unreachable(mosquitto: Mosquitto) -> None:
    """The stream ends when no node speaks any more."""
    async with cluster(mosquitto, ["a"], stale_s=1.0) as found:
        await found.sample()
        found.agents["a"].is_mute = True
        with pytest.raises(Unreachable, match="no agent"):
            await found.until(lambda _: False)


async def test_a_named_node_that_never_spoke_counts(mosquitto: Mosquitto) -> None:
    """It is taken to draw what the configuration says; nodes that are not named do not belong to the asset."""
    async with cluster(mosquitto, ["a", "b", "x1", "x2"], nodes=["a", "x*", "gone"], node_max_w=9_000.0) as found:
        sample = await found.sample()
        assert sample.power_w == 3 * (FULL_W + REST_W) + 9_000.0 + REST_W
        assert sample.fault == "gone: silent, counted with all it could draw"


async def test_what_the_broker_kept_is_history(mosquitto: Mosquitto) -> None:
    """A stored measurement is not believed; a stored word of what is held, by somebody else, is told."""
    async with aiomqtt.Client(mosquitto.host, mosquitto.port) as earlier:
        topic = f"vpp/agent/v1/{SITE}/old"
        old = {"devices": {"GPU-0": {"kind": "gpu", "power_w": 1.0, "max_cap_w": 700.0}}}
        held = {"id": "x", "state": "held", "from": "other/1", "node": {"cap_w": 300.0, "max_cap_w": 700.0}}
        await earlier.publish(f"{topic}/telemetry", json.dumps(old), qos=1, retain=True)
        await earlier.publish(f"{topic}/cap/status", json.dumps(held), qos=1, retain=True)
        await earlier.publish(f"vpp/agent/v1/{SITE}/a/cap/status", b"{", qos=1, retain=True)
    async with cluster(mosquitto, ["a"]) as found:
        sample = await found.until(lambda s: "old" in s.fault)
        assert sample.power_w == FULL_W + 700.0 + 2 * REST_W
        assert sample.setpoint_w is None
        assert "a:" not in sample.fault, "its live status has replaced the senseless one"


async def test_a_restart_finds_what_is_held_and_gives_it_back(mosquitto: Mosquitto) -> None:
    """A new process reads the budget from what the agents say, and releases what it did not order itself."""
    async with swarm(mosquitto.host, mosquitto.port, SITE, "abc", telemetry_s=TELEMETRY_S) as agents:
        async with connected(mosquitto, agents) as before:
            await before.apply(3 * 4_000.0)
        async with connected(mosquitto, agents) as after:
            sample = await after.until(lambda s: s.power_w == pytest.approx(3 * (4_000.0 + REST_W), rel=0.01))
            assert sample.setpoint_w == pytest.approx(3 * (4_000.0 + REST_W), rel=0.01)
            assert sample.fault == ""
            assert sample.available_w is not None
            assert sample.available_w > 1.1 * 3 * (4_000.0 + REST_W), (
                "caps that are filled tell that more would be drawn"
            )
            await after.device.release()
            assert after.caps_w() == [None] * 3
            assert (await after.until(lambda s: s.setpoint_w is None)).fault == ""


async def test_another_sender_is_seen_and_not_fought_with(mosquitto: Mosquitto) -> None:
    """What it changed shows in the setpoint that is kept and in the fault; only a new setpoint of ours takes it back."""
    async with cluster(mosquitto) as found, aiomqtt.Client(mosquitto.host, mosquitto.port) as other:
        await found.apply(3 * 4_000.0)
        order = {"id": "1", "from": "other", "seq": 1, "lease_s": 60.0, "node_cap_w": 5_000.0, "devices": {}}
        await other.publish(f"vpp/agent/v1/{SITE}/b/cap/set", json.dumps(order), qos=1)
        sample = await found.until(lambda s: "held by other" in s.fault)
        assert sample.setpoint_w == pytest.approx(3 * (4_000.0 + REST_W) + 1_000.0, abs=10.0)
        assert found.caps_w() == [4_000.0, 5_000.0, 4_000.0]
        _do_less(found, "a")
        await eventually(lambda: (found.caps_w()[2] or 0.0) > 4_100.0)
        await found.sample()
        assert found.caps_w()[1] == 5_000.0
        await found.apply(3 * 4_000.0)
        assert 4_000.0 < (found.caps_w()[1] or 0.0) < 4_900.0
        assert (await found.until(lambda s: not s.fault)).setpoint_w == 3 * (4_000.0 + REST_W)


async def test_without_renewal_the_nodes_go_back(mosquitto: Mosquitto) -> None:
    """The watch over the budget never lengthens a lease."""
    async with cluster(mosquitto) as found:
        await found.apply(3 * 4_000.0, lease_s=3.0)
        _do_less(found, "a")
        await eventually(lambda: (found.caps_w()[1] or 0.0) > 4_100.0)  # the others may draw more, and are told so
        await found.until(lambda s: s.setpoint_w is None)
        async with asyncio.timeout(5.0):
            await eventually(lambda: found.caps_w() == [None] * 3)
        await found.until(lambda s: s.setpoint_w is None and s.power_w == 2 * FULL_W + 8 * 450.0 + 3 * REST_W)


async def test_a_budget_is_kept_when_work_begins(mosquitto: Mosquitto) -> None:
    """A node that was idle starts to draw: without a new setpoint all are capped so that the sum fits again."""
    async with cluster(mosquitto) as found:
        for gpu in found.agents["c"].gpus:
            gpu.demand_w = 70.0
        await found.until(lambda s: s.power_w == pytest.approx(2 * FULL_W + 560.0 + 3 * REST_W, rel=0.02))
        budget_w = 2 * 4_500.0 + 560.0
        await found.apply(budget_w)
        assert found.caps_w()[:2] == pytest.approx([4_500.0] * 2, abs=60.0)
        for gpu in found.agents["c"].gpus:
            gpu.demand_w = 650.0
        total_w = 3 * REST_W
        await eventually(lambda: found.agents["a"].power_w < 3_600.0)
        await eventually(lambda: sum(a.power_w for a in found.agents.values()) <= 1.03 * budget_w)
        await found.until(lambda s: s.power_w is not None and s.power_w <= 1.03 * (budget_w + total_w))


async def test_an_agent_that_lost_its_order_gets_it_again(mosquitto: Mosquitto) -> None:
    """An agent that gave everything back by itself, as after a restart, is told again before the next renewal."""
    async with cluster(mosquitto) as found:
        await found.apply(3 * 4_000.0)
        found.agents["b"].restart()
        assert found.caps_w()[1] is None
        await eventually(lambda: found.caps_w()[1] == pytest.approx(4_000.0, abs=120.0))


async def test_a_lost_broker_is_unreachable_and_comes_back(mosquitto: Mosquitto) -> None:
    """Orders and samples fail while the link is down; a new connection finds the caps still there."""
    async with cluster(mosquitto) as found:
        await found.apply(3 * 4_000.0)
        mosquitto.pause()
        with pytest.raises(Unreachable):
            await found.apply(3 * 4_100.0)
        mosquitto.resume()
        async with connected(mosquitto, found.agents) as again:
            await _settled(again)
            await again.apply(3 * 4_200.0)
            assert again.caps_w() == [4_200.0] * 3


async def test_releasing_does_not_wait_for_a_node_whose_lease_has_passed(mosquitto: Mosquitto) -> None:
    """While its lease runs, a node that does not confirm is told as unknown; afterwards it has gone back by itself."""
    async with cluster(mosquitto, ["a", "b"], ack_timeout_s=1.0) as found:
        await found.apply(2 * 4_000.0, lease_s=4.0)
        found.agents["b"].is_deaf = True
        with pytest.raises(Unreachable, match="b: no acknowledgement"):
            await found.device.release()
        assert found.caps_w()[0] is None
        await eventually(lambda: found.caps_w() == [None] * 2)
        async with asyncio.timeout(20.0):
            while True:
                try:
                    await found.device.release()
                except Unreachable:
                    await asyncio.sleep(0.2)
                else:
                    break


class ScriptedPlanner:
    """Wishes for what the test says, and remembers what it was shown."""

    def __init__(self, **level_frac: float) -> None:
        self.level_frac = level_frac
        self.shown: Workload | None = None

    def plan(self, workload: Workload, budget_w: float, now_s: float) -> Curtailment:
        """Return the script."""
        self.shown = workload
        return Curtailment(dict(self.level_frac))

    def shed_w(self, workload: Workload) -> tuple[float, ...]:
        """Return figures that nobody else would."""
        return (0.0, 1.0, 2.0, 3.0)


async def test_a_planner_chooses_who_gives(mosquitto: Mosquitto) -> None:
    """Each node is a job with its floor; levels become caps, and what could be shed is what the planner says."""
    async with cluster(mosquitto, node_tier={"c": 0}, floor_frac=0.6) as found:
        planner = ScriptedPlanner(a=0.7, b=0.1)
        found.device.plan_with(planner)
        await _settled(found)
        applied = await found.apply(3 * 3_000.0)
        assert found.caps_w() == pytest.approx([0.7 * FULL_W, 3_360.0, None], abs=4.0), "never below the floor"
        assert applied.power_w == pytest.approx(1.7 * FULL_W + 3_360.0 + 3 * REST_W, abs=4.0)
        assert planner.shown is not None
        jobs = {job.id: job for job in planner.shown.jobs}
        assert jobs.keys() == {"a", "b"}
        assert jobs["a"].full_w == pytest.approx(FULL_W)
        assert jobs["a"].floor_frac == pytest.approx(3_360.0 / FULL_W)
        assert (jobs["a"].tier, jobs["a"].gpus, jobs["a"].knob, jobs["a"].family) == (3, 8, Knob.CAP, "NVIDIA H200")
        assert planner.shown.rest_w == pytest.approx(FULL_W + 3 * REST_W)
        assert (await found.sample()).tier_shed_w == (0.0, 1.0, 2.0, 3.0)


async def test_decoding_gives_by_its_clock(mosquitto: Mosquitto) -> None:
    """GPUs at 250 W fill no cap and give nothing by one; locked clocks bring the power down, and it is learnt by how much."""
    async with cluster(mosquitto, ["a", "b"], demand_w=250.0) as capped:
        assert sum((await capped.sample()).tier_shed_w) == 0.0
    async with cluster(mosquitto, ["a", "b"], demand_w=250.0, knob="clock") as found:
        await _settled(found)
        applied = await found.apply(2 * 8 * 200.0)
        assert applied.power_w == 2 * (8 * 200.0 + REST_W)
        clocks = {gpu.clocks for agent in found.agents.values() for gpu in agent.gpus}
        ((low_mhz, top_mhz),) = (span for span in clocks if span is not None)
        assert low_mhz == 210
        assert 600 <= top_mhz < 1_980
        sample = await found.until(lambda s: s.power_w is not None and s.power_w < 2 * (8 * 215.0 + REST_W))
        assert sample.available_w == pytest.approx(2 * (8 * 250.0 + REST_W), rel=0.03)
        await found.device.release()
        assert all(gpu.clocks is None for agent in found.agents.values() for gpu in agent.gpus)


def _do_less(found: Cluster, name: str) -> None:
    """Give a node less to do than its cap allows, which leaves more for the others."""
    for gpu in found.agents[name].gpus:
        gpu.demand_w = 450.0


async def _settled(found: Cluster) -> None:
    """Return when all nodes have been seen."""
    await found.until(lambda s: not s.fault)

"""The parts of the agents' adapter by themselves: messages, clocks, shares, and caps for other adapters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapters import _agents_wire as wire
from adapters._agent_caps import AgentsConfig, agent_caps
from adapters._agents_clock import GUESS, ClockTable
from adapters._agents_config import GpuAgentsConfig
from adapters._agents_load import Load, Memory, View
from adapters._agents_plan import is_another, share, shed_w
from adapters._agents_wire import Device, Held, Wanted
from adapters._caps import NodeCaps, NodeMeters
from adapters._mqtt import mqtt
from adapters._mqtt_config import MqttConfig
from tests.adapters.agents_rig import FULL_W, SITE, TELEMETRY_S, eventually
from tests.servers.agent_swarm import swarm
from tests.servers.mosquitto import Mosquitto
from vppd.agent.wire import decode_command
from vppd.errors import Garbled, Refused, Unreachable

GPU: dict[str, Any] = {"kind": "gpu", "power_w": 650.5, "cap_w": 700, "max_cap_w": 700.0, "clock_mhz": 1980}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"devices": [1]}',
        b'{"devices": {"GPU-0": 7}}',
        b'{"devices": {"GPU-0": {"power_w": -1.0}}}',
        b'{"devices": {"GPU-0": {"power_w": true}}}',
        b'{"devices": {"GPU-0": {"power_w": "650"}}}',
        b'{"devices": {"GPU-0": {"power_w": NaN}}}',
        b'{"devices": {"GPU-0": {"cap_w": Infinity}}}',
    ],
)
def test_telemetry_that_makes_no_sense_is_garbled(payload: bytes) -> None:
    """Numbers are finite, not negative and no text."""
    with pytest.raises(Garbled):
        wire.telemetry(payload)


def test_a_power_with_a_part_missing_is_missing() -> None:
    """The sum over devices is None when one does not say; the sum that the agent tells is for agents without devices."""
    said = {"power_w": 999.0, "devices": {"GPU-0": GPU, "GPU-1": GPU}}
    assert wire.telemetry(json.dumps(said).encode()).power_w == 1_301.0
    said["devices"] = {"GPU-0": GPU, "GPU-1": {k: v for k, v in GPU.items() if k != "power_w"}}
    assert wire.telemetry(json.dumps(said).encode()).power_w is None
    assert wire.telemetry(b'{"power_w": 999.0}').power_w == 999.0


def test_an_agent_understands_what_is_ordered() -> None:
    """Cap, clocks and lease arrive at the agent's own decoder; nothing named means everything back."""
    said = decode_command(wire.cap_set("i", 7, "vppd/1", Wanted(4_000.04, {"GPU-0": (210, 1_200)}), 30.0))
    assert (said.id, said.seq, said.sender, said.lease_s, said.node_cap_w) == ("i", 7, "vppd/1", 30.0, 4_000.0)
    assert said.devices["GPU-0"].clocks == (210, 1_200)
    assert not said.devices["GPU-0"].says_cap, "the node cap covers it still"
    freed = decode_command(wire.cap_set("i", 8, "vppd/1", Wanted(), 1.0))
    assert (freed.node_cap_w, freed.devices) == (None, {})


@pytest.mark.parametrize(
    "payload",
    [b"{}", b'{"state": "well"}', b'{"state": "held", "node": 7}', b'{"state": "idle", "node": {"cap_w": []}}'],
)
def test_a_status_that_makes_no_sense_is_garbled(payload: bytes) -> None:
    """A state of the three there are, and numbers."""
    with pytest.raises(Garbled):
        wire.status(payload)


@given(st.integers(1, 3_000), st.lists(st.tuples(st.integers(600, 1_980), st.floats(0.0, 1.2)), max_size=30))
def test_a_clock_table_stays_rising_whatever_it_learns(mhz: int, seen: list[tuple[int, float]]) -> None:
    """Higher clocks never save more, full speed is full power, and a clock for a power keeps within it."""
    table = ClockTable()
    for clock_mhz, power_frac in seen:
        table.learn(clock_mhz, power_frac)
    parts = [table.power_frac(m) for m in range(500, 2_100, 20)]
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    part = table.power_frac(mhz)
    assert table.power_frac(table.clock_mhz(part)) <= part + 1e-9


def test_a_clock_table_learns_what_is_near_and_no_nonsense() -> None:
    """Repeated measurements move it to them; one far off belongs to other work."""
    table = ClockTable()
    before = table.power_frac(1_200)
    table.learn(1_200, 0.1)
    assert table.power_frac(1_200) == before
    for _ in range(100):
        table.learn(1_200, 0.85)
    assert table.power_frac(1_200) == pytest.approx(0.85, abs=0.02)
    assert ClockTable(GUESS).power_frac(1_200) == before, "the guess itself stays"


def _load(name: str, tier: int, demand_w: float) -> Load:
    deepest_w = min(2_800.0, demand_w) if tier else demand_w
    return Load(name, tier, demand_w, demand_w, 5_600.0, 2_800.0, deepest_w, None, 1_500.0, ("GPU-0",), "H200")


LOADS = st.lists(st.tuples(st.integers(0, 3), st.floats(0.0, 5_600.0)), min_size=1, max_size=12)


@given(LOADS, st.floats(0.0, 80_000.0))
def test_shares_keep_the_budget_as_far_as_tiers_allow(nodes: list[tuple[int, float]], budget_w: float) -> None:
    """What the nodes then draw is the budget, or all they draw, or all they may not give; tier 0 is never named."""
    loads = {f"n{i}": _load(f"n{i}", tier, demand_w) for i, (tier, demand_w) in enumerate(nodes)}
    view = View(loads, {}, 1_500.0 * len(loads))
    targets = share(view, budget_w)
    drawn_w = view.rest_w + sum(min(x.demand_w, targets.get(n, x.demand_w)) for n, x in loads.items())
    least_w = view.demand_w - sum(shed_w(view))
    assert drawn_w == pytest.approx(min(max(budget_w, least_w), view.demand_w), abs=1.0)
    for name, target_w in targets.items():
        assert loads[name].tier > 0
        assert target_w >= loads[name].deepest_w - 1e-6


@given(LOADS, st.floats(0.0, 80_000.0))
def test_a_tier_gives_only_when_more_tolerant_ones_have_given_all(
    nodes: list[tuple[int, float]], budget_w: float
) -> None:
    """Whoever is named in a tier means that the tiers above are at their floors."""
    loads = {f"n{i}": _load(f"n{i}", tier, demand_w) for i, (tier, demand_w) in enumerate(nodes)}
    view = View(loads, {}, 0.0)
    targets = share(view, budget_w)
    lowest = min((loads[name].tier for name in targets), default=4)
    for name, load in loads.items():
        if load.tier > lowest and load.demand_w > 2_800.0:
            alone = share(View({name: load}, {}, 0.0), 0.0)[name]
            assert targets[name] == pytest.approx(alone)


def test_what_a_capped_device_would_draw_is_remembered() -> None:
    """A filled cap tells nothing of the demand: what was drawn before counts; a cap that is not filled tells all."""
    memory, key, held = Memory(ClockTable()), ("n", "GPU-0"), Held("confirmed", 500.0, 700.0, "")
    free = Device("gpu", "H200", 640.0, 700.0, 200.0, 700.0, 700.0, 1_980)
    assert memory.demand_w(key, free, None, None) == 640.0
    assert memory.demand_w(key, free._replace(power_w=495.0, cap_w=500.0), held, None) == 640.0
    assert memory.demand_w(("n", "new"), free._replace(power_w=495.0, cap_w=500.0), held, None) == 700.0
    assert memory.demand_w(key, free._replace(power_w=450.0, cap_w=500.0), held, None) == 450.0
    assert memory.demand_w(key, free._replace(power_w=420.0, cap_w=420.0), held, None) == 450.0, "no see-saw"
    assert memory.demand_w(key, free._replace(power_w=90.0, cap_w=500.0), held, None) == 90.0
    assert memory.demand_w(key, free._replace(power_w=499.0, cap_w=500.0), held, None) == 640.0, "work has come back"
    unknown = free._replace(power_w=None)
    assert memory.demand_w(("n", "dumb"), unknown, None, None) == 700.0, "missing is not 0"


@pytest.mark.parametrize(
    ("old", "new", "is_new"),
    [
        (None, None, False),
        (None, Wanted(4e3), True),
        (Wanted(4e3), None, True),
        (Wanted(4e3), Wanted(4_050.0), False),
        (Wanted(4e3), Wanted(4_200.0), True),
        (Wanted(None, {"a": (210, 1_000)}), Wanted(None, {"a": (210, 1_010)}), False),
        (Wanted(None, {"a": (210, 1_000)}), Wanted(None, {"a": (210, 1_100)}), True),
        (Wanted(None, {"a": (210, 1_000)}), Wanted(), True),
    ],
)
def test_small_changes_wait_for_the_renewal(old: Wanted | None, new: Wanted | None, is_new: bool) -> None:
    """Two parts in a hundred are noise."""
    assert is_another(old, new, 5_600.0) is is_new


@pytest.mark.parametrize(
    "wrong",
    [
        {"site": "a/b"},
        {"sender": "#"},
        {"tier": 4},
        {"node_tier": {"a": -1}},
        {"knob": "pause"},
        {"clock_table": [[1_000, 0.5]]},
        {"clock_table": [[1_000, 0.5], [900, 0.6]]},
        {"clock_table": [[1_000, 0.5], [1_100, 0.4]]},
        {"stale_s": 0.0},
        {"nodes": "a"},
    ],
)
def test_a_wrong_key_is_found_before_anything_starts(wrong: dict[str, Any]) -> None:
    """Names without wildcards, tiers 0-3, tables that rise."""
    with pytest.raises(ValidationError):
        GpuAgentsConfig.model_validate({"host": "h", "site": "s"} | wrong)


def test_nodes_are_chosen_by_name_and_pattern() -> None:
    """A named node counts before it speaks, a pattern only those that are known; the first tier that fits wins."""
    config = GpuAgentsConfig.model_validate(
        {"host": "h", "site": "s", "nodes": ["login", "gpu-*"], "tier": 1, "node_tier": {"gpu-0": 3, "gpu-*": 2}}
    )
    assert config.chosen(["gpu-0", "gpu-1", "cpu-0"]) == ["gpu-0", "gpu-1", "login"]
    assert [config.tier_of(name) for name in ("gpu-0", "gpu-1", "login")] == [3, 2, 1]
    assert GpuAgentsConfig(host="h", site="s").chosen(["b", "a"]) == ["a", "b"]


# ---- over a broker ---------------------------------------------------------------------------------------------------


def _config(broker: Mosquitto, **more: Any) -> AgentsConfig:
    quick = {"ack_timeout_s": 5.0, "stale_s": 2.0, "timeout_s": 10.0}
    return AgentsConfig.model_validate({"host": broker.host, "port": broker.port, "site": SITE, **quick, **more})


@pytest.mark.integration
async def test_caps_for_other_adapters(mosquitto: Mosquitto) -> None:
    """Agents are node caps and node meters: set, read back, lifted; who is silent is left out and has no power."""
    async with (
        swarm(mosquitto.host, mosquitto.port, SITE, "ab", telemetry_s=TELEMETRY_S) as agents,
        agent_caps(_config(mosquitto)) as caps,
    ):
        nodes: NodeCaps = caps
        assert isinstance(caps, NodeMeters)
        await eventually(lambda: caps.power_w("a") == caps.power_w("b") == FULL_W)
        assert (await nodes.put("a", 4_000.0, None)).cap_w == 4_000.0
        found = await nodes.look(["a", "b", "nobody"])
        assert found.keys() == {"a", "b"}
        assert (found["a"].cap_w, found["a"].min_cap_w, found["b"].cap_w) == (4_000.0, 2_800.0, None)
        await eventually(lambda: caps.power_w("a") == 4_000.0)
        assert (await nodes.put("a", None, None)).cap_w is None
        assert agents["a"].cap_w is None
        agents["b"].is_mute = True
        await eventually(lambda: caps.power_w("b") is None)
        assert (await nodes.look(["a", "b"])).keys() == {"a"}
        assert caps.power_w("nobody") is None


@pytest.mark.integration
async def test_orders_that_nobody_confirms(mosquitto: Mosquitto) -> None:
    """Silence is an unknown outcome, a lease that the agent does not take is refused, and cancelling leaves nothing behind."""
    async with (
        swarm(mosquitto.host, mosquitto.port, SITE, "a", telemetry_s=TELEMETRY_S) as agents,
        agent_caps(_config(mosquitto, ack_timeout_s=0.5)) as caps,
    ):
        with pytest.raises(Unreachable, match="outcome unknown"):
            await caps.put("nobody", 4_000.0, 10.0)
        with pytest.raises(Refused, match="lease_s"):
            await caps.put("a", 4_000.0, 1e6)
        agents["a"].is_deaf = True
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await caps.put("a", 4_000.0, 10.0)
        assert caps._answers == {}


@pytest.mark.integration
async def test_agents_are_heard_again_after_a_lost_link(mosquitto: Mosquitto) -> None:
    """Whoever holds on through an outage has nothing fresh while it lasts, and everything again afterwards."""
    async with agent_caps(_config(mosquitto)) as caps:
        async with swarm(mosquitto.host, mosquitto.port, SITE, "a", telemetry_s=TELEMETRY_S):
            await eventually(lambda: caps.power_w("a") == FULL_W)
        mosquitto.kill()
        await eventually(lambda: caps._lost is not None)
        assert caps.power_w("a") is None
        with pytest.raises(Unreachable):
            await caps.put("a", 4_000.0, 10.0)
        mosquitto.start()
        async with swarm(mosquitto.host, mosquitto.port, SITE, "a", telemetry_s=TELEMETRY_S):
            await eventually(lambda: caps.power_w("a") == FULL_W)
            assert (await caps.put("a", 4_000.0, 10.0)).cap_w == 4_000.0


@pytest.mark.integration
async def test_each_of_many_publications_gets_its_own_answer(mosquitto_factory: Callable[..., Mosquitto]) -> None:
    """With more under way than the broker takes at once, the refused are told so and the others are not."""
    broker = mosquitto_factory(acl="topic write good/#\n", settings="max_inflight_messages 5")
    async with mqtt(MqttConfig(host=broker.host, port=broker.port, timeout_s=10.0)) as link:
        names = [f"{'bad' if i % 3 == 0 else 'good'}/{i}" for i in range(60)]
        publishing = asyncio.gather(*(link.publish(name, b"x") for name in names), return_exceptions=True)
        most = 0
        while not publishing.done():
            most = max(most, len(link._broker.client()._under_way))
            await asyncio.sleep(0)
        said = await publishing
        assert most == 5
        assert [isinstance(answer, Refused) for answer in said] == [name.startswith("bad") for name in names]
        assert [answer for answer in said if not isinstance(answer, Refused)] == [None] * 40

"""What the nodes behind agents draw, what they would draw uncapped, and how deep they may go. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adapters._agent_caps import Node
from adapters._agents_clock import ClockTable
from adapters._agents_config import GpuAgentsConfig
from adapters._agents_wire import Device, Held, Wanted

FULL_FRAC = 0.93
"""A device that draws more of its cap than this is held back by it: classes of work draw 0.95-1.03 of a cap that binds."""
_NEW_FRAC = 0.3
"""Weight of the newest measurement in what an uncapped device is remembered to draw."""
_LIVELY_FRAC = 0.6
"""A device under a locked clock that draws less than this part of what is expected has less to do than before."""


@dataclass(frozen=True, slots=True)
class Load:
    """One node that speaks."""

    name: str
    tier: int
    power_w: float
    """What the devices under the agent's control draw now. [W]"""
    demand_w: float
    """What they would draw if nobody held them back. [W]"""
    most_w: float
    """What they could draw by their own limits. [W]"""
    cap_floor_w: float
    """No cap of the node goes below this. [W]"""
    deepest_w: float
    """The least power to which the knobs bring what they would draw. [W]"""
    cap_w: float | None
    """The cap in force; None for none. [W]"""
    rest_w: float
    """What the node draws besides. [W]"""
    gpus: tuple[str, ...]
    family: str
    """Product name of its GPUs."""


@dataclass(slots=True)
class View:
    """All nodes of the asset at one moment."""

    loads: dict[str, Load] = field(default_factory=dict)
    silent_w: dict[str, float] = field(default_factory=dict)
    """What the devices of nodes that do not speak could draw, which is what they are taken to draw. [W]"""
    rest_w: float = 0.0
    """What is nobody's to cap, of all nodes, silent nodes with all of theirs. [W]"""

    @property
    def power_w(self) -> float:
        """Return what the nodes draw. [W]"""
        return self.rest_w + sum(load.power_w for load in self.loads.values())

    @property
    def demand_w(self) -> float:
        """Return what they would draw uncapped. [W]"""
        return self.rest_w + sum(load.demand_w for load in self.loads.values())


class Memory:
    """What each device drew when nothing held it back."""

    def __init__(self, table: ClockTable) -> None:
        self._table = table
        self._free_w: dict[tuple[str, str], float] = {}
        """What was seen last that no cap explains. [W]"""
        self._usual_w: dict[tuple[str, str], float] = {}
        """What was drawn without any cap. [W]"""

    def demand_w(self, key: tuple[str, str], device: Device, held: Held | None, lock_mhz: int | None) -> float:
        """Return what a device would draw uncapped, by what it draws now, its cap and its locked clock. [W]"""
        prior_w = _prior_w(device, held)
        power_w = _draw_w(device, prior_w)
        if device.cap_w is not None and device.cap_w < prior_w - 1.0:
            return self._behind_cap_w(key, prior_w, power_w, device.cap_w)
        free_w = self._free_w.get(key)
        if lock_mhz is not None and lock_mhz < self._table.highest_mhz:
            return self._behind_lock_w(prior_w, power_w, free_w, lock_mhz)
        self._free_w[key] = self._usual_w[key] = power_w if free_w is None else free_w + _NEW_FRAC * (power_w - free_w)
        return max(self._free_w[key], power_w)

    def learn(self, key: tuple[str, str], power_w: float | None, lock_mhz: int) -> None:
        """Take in what a device draws under a locked clock that has had time to work. [W; MHz]"""
        free_w = self._free_w.get(key)
        if free_w and power_w is not None and power_w >= _LIVELY_FRAC * free_w * self._table.power_frac(lock_mhz):
            self._table.learn(lock_mhz, power_w / free_w)

    def keep(self, names: Mapping[str, object]) -> None:
        """Forget nodes that are not among these."""
        for kept in (self._free_w, self._usual_w):
            for key in [key for key in kept if key[0] not in names]:
                del kept[key]

    def _behind_cap_w(self, key: tuple[str, str], prior_w: float, power_w: float, cap_w: float) -> float:
        if power_w < FULL_FRAC * cap_w:  # it draws all it wants, also when it is capped closer afterwards
            self._free_w[key] = power_w
            return power_w
        known_w = (self._free_w.get(key, 0.0), self._usual_w.get(key, 0.0))
        return max(next((w for w in known_w if w > cap_w), prior_w), power_w)

    def _behind_lock_w(self, prior_w: float, power_w: float, free_w: float | None, lock_mhz: int) -> float:
        part = self._table.power_frac(lock_mhz)
        if free_w is not None and power_w >= _LIVELY_FRAC * part * free_w:
            return max(free_w, power_w)
        return min(power_w / part, prior_w)


def load(config: GpuAgentsConfig, node: Node, memory: Memory, table: ClockTable, ordered: Wanted | None) -> Load | None:
    """Return a node's load; None when its newest telemetry makes no sense."""
    said = node.telemetry()
    if said is None:
        return None
    held = node.status.devices if node.status is not None else {}
    mine, rest_w = _shared_out(said.devices, held)
    gpus = tuple(name for name, device in mine.items() if device.kind == "gpu")
    priors_w = {name: _prior_w(device, held.get(name)) for name, device in mine.items()}
    demand_w = _demand_w(node.name, mine, held, memory, ordered)
    tier, floor_w, all_w = config.tier_of(node.name), _cap_floor_w(config, node, mine), sum(demand_w.values())
    clocked_w = all_w - sum(demand_w[name] for name in gpus) * (1.0 - table.power_frac(config.clock_floor_mhz))
    reach_w = {"cap": floor_w, "clock": clocked_w, "both": min(floor_w, clocked_w)}[config.knob]
    return Load(
        name=node.name,
        tier=tier,
        power_w=sum(_draw_w(device, priors_w[name]) for name, device in mine.items()),
        demand_w=all_w,
        most_w=sum(priors_w.values()),
        cap_floor_w=floor_w,
        deepest_w=min(reach_w, all_w) if tier else all_w,
        cap_w=node.status.in_force_w if node.status is not None else None,
        rest_w=config.node_rest_w + rest_w,
        gpus=gpus,
        family=next((mine[name].name for name in gpus), ""),
    )


def _shared_out(devices: Mapping[str, Device], held: Mapping[str, Held]) -> tuple[Mapping[str, Device], float]:
    """Return the devices that can be capped, and what the others draw. [W]

    An agent tells with its status which devices it may cap; until then all with limits are taken to be.
    """
    mine = {name: d for name, d in devices.items() if (name in held if held else d.most_w is not None)}
    return mine, sum(d.power_w or 0.0 for name, d in devices.items() if name not in mine)


def _demand_w(
    node: str, mine: Mapping[str, Device], held: Mapping[str, Held], memory: Memory, ordered: Wanted | None
) -> dict[str, float]:
    """Return what each device would draw if nothing held it. [W]"""
    locks = ordered.clock_mhz if ordered is not None else {}
    return {
        name: memory.demand_w((node, name), device, held.get(name), locks[name][1] if name in locks else None)
        for name, device in mine.items()
    }


def most_w(config: GpuAgentsConfig, node: Node | None) -> float:
    """Return what the devices of a node that does not speak could draw. [W]"""
    if node is None:
        return config.node_max_w
    if node.status is not None and node.status.max_cap_w:
        return node.status.max_cap_w
    said = node.telemetry()
    limits_w = [d.most_w for d in said.devices.values() if d.most_w is not None] if said else []
    return sum(limits_w) or config.node_max_w


def _cap_floor_w(config: GpuAgentsConfig, node: Node, mine: Mapping[str, Device]) -> float:
    """Return the lowest cap of a node: by the agent, by its devices, and by our configuration. [W]"""
    told_w = node.status.min_cap_w if node.status is not None else None
    least_w = sum(device.min_cap_w or 0.0 for device in mine.values())
    protected_w = config.floor_frac * sum(device.default_cap_w or device.most_w or 0.0 for device in mine.values())
    return max(told_w or 0.0, least_w, protected_w)


def _prior_w(device: Device, held: Held | None) -> float:
    """Return the limit a device has without us. [W]"""
    if held is not None and held.prior_w is not None:
        return held.prior_w
    return next((w for w in (device.default_cap_w, device.most_w, device.power_w) if w is not None), 0.0)


def _draw_w(device: Device, prior_w: float) -> float:
    """Return what a device draws; one that does not say draws what it may. [W]"""
    return device.power_w if device.power_w is not None else device.cap_w if device.cap_w is not None else prior_w

"""A feed with a meter and two batteries that outlive the daemon and remember every write; and the ``vppd.toml`` for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.grid.dispatcher import Key
from vppd.demo.tomlwriter import Value, dump
from vppd.sim.battery import StorageUnit
from vppd.sim.faults import Clock, Outage
from vppd.sim.generation import MeterUnit
from vppd.sim.modbus import HOST, ModbusPort, Unit, serve_modbus
from vppd.sim.physics import FeedState
from vppd.sim.storage import StorageSpec, StorageState, step

BATTERIES = ("bat-1", "bat-2")
LEASE_S = 30.0
RATED_W = 100_000.0
LOAD_W = 300_000.0
SPEC = StorageSpec(RATED_W, RATED_W, RATED_W, 400_000.0, ramp_w_per_s=1e6, reserve_frac=0.1, start_soc_frac=0.6)


@dataclass(frozen=True, slots=True)
class Followed:
    """What a device follows from then on."""

    at_s: float
    setpoint_w: float | None
    """None: nothing. [W, + = charging]"""

    @property
    def at_rest(self) -> bool:
        """Say whether the device does nothing."""
        return not self.setpoint_w


class Battery:
    """A simulated storage unit with a witness beside it."""

    def __init__(self, name: str, clock: Clock, wrote: Callable[[], None]) -> None:
        self.name, self._clock, self._wrote = name, clock, wrote
        self._state, self._seen_s = StorageState(0.0, SPEC.start_soc_frac), clock()
        self.unit = StorageUnit(name, SPEC, lambda: self._state, clock, before_look=self._advance)
        self.followed = [Followed(clock(), None)]
        """Each change of the setpoint, by a write or by the device itself."""
        self.longest_gap_s = 0.0
        """Longest time between two writes while a setpoint was followed. [s]"""
        self._written_s = clock()
        self._changed = asyncio.Event()

    @property
    def power_w(self) -> float:
        """What it draws now. [W, + = charging]"""
        return self.unit.command().target_w

    @property
    def now(self) -> Followed:
        """What it follows now."""
        self._note()
        return self.followed[-1]

    def read(self, address: int, count: int) -> bytes:
        """Return registers."""
        return self.unit.read(address, count)

    def write(self, address: int, data: bytes) -> None:
        """Take registers, and tell the witness."""
        at_rest = self.now.at_rest
        self.unit.write(address, data)
        if not at_rest:
            self.longest_gap_s = max(self.longest_gap_s, self._clock() - self._written_s)
        self._written_s = self._clock()
        if self._note():
            self._wrote()

    async def until(self, is_reached: Callable[[Followed], bool]) -> None:
        """Return once what the device follows is as wanted."""
        while not is_reached(self.now):
            await self._changed.wait()

    def _note(self) -> bool:
        setpoint_w = self.unit.command().target_w if self.unit.setpoint_w() is not None else None
        if setpoint_w == self.followed[-1].setpoint_w:
            return False
        self.followed.append(Followed(self._clock(), setpoint_w))
        self._changed.set()
        self._changed = asyncio.Event()
        return True

    def _advance(self, unit: StorageUnit) -> None:
        now_s = self._clock()
        dt_s, self._seen_s = now_s - self._seen_s, now_s
        command = unit.command()
        self._state = step(SPEC, self._state, command.target_w, command.reserve_frac, dt_s, dt_s)


@dataclass(slots=True)
class SmallPlant:
    """The devices, and where they listen."""

    batteries: dict[str, Battery]
    meter_port: int
    ports: dict[str, int] = field(default_factory=dict)


@asynccontextmanager
async def small_plant(wrote: Callable[[], None]) -> AsyncIterator[SmallPlant]:
    """Serve the devices until the context ends; ``wrote`` is called when a write has changed a setpoint."""
    clock = asyncio.get_running_loop().time
    batteries = {name: Battery(name, clock, wrote) for name in BATTERIES}

    def feed() -> FeedState:
        return FeedState(0.0, 0.0, LOAD_W, LOAD_W + sum(battery.power_w for battery in batteries.values()))

    async with AsyncExitStack() as stack:

        async def serve(unit: Unit) -> int:
            return await stack.enter_async_context(serve_modbus(ModbusPort({1: unit}, {1: Outage(clock)})))

        plant = SmallPlant(batteries, await serve(MeterUnit("meter-a", feed, clock)))
        plant.ports = {name: await serve(battery) for name, battery in batteries.items()}
        yield plant


def write_config(folder: Path, plant: SmallPlant, broker_port: int, http_port: int, issuer: Key) -> Path:
    """Write ``vppd.toml`` with its keys, and return its path."""
    agent = Key("agent-1")
    (folder / "agent.pem").write_bytes(agent.private_pem())
    (folder / "agent.pem").chmod(0o600)
    (folder / "tso.pem").write_bytes(issuer.public_pem())
    most: dict[str, Value] = {"import_max_w": 1e6, "export_max_w": 1e6}
    meter: dict[str, Value] = {"id": "meter-a", "kind": "meter", "connection": _at(plant.meter_port)}
    document: dict[str, Value] = {
        "site": {
            "id": "dc1",
            "agent_id": "dc1-agent",
            "state_dir": str(folder / "state"),
            "socket": str(folder / "vppd.sock"),
            "require_synchronised_clock": False,
            "lease_s": LEASE_S,
            # An order that ends is one write, not several on a ramp, however soon the next cycle comes.
            "ramp_down_w_per_s": 1e9,
            **most,
        },
        "feeds": [{"tag": "main-a", "meter": "meter-a", **most}],
        "assets": [
            {"feed": "main-a", "adapter": "modbus-sunspec", **asset}
            for asset in (meter, *(_battery(name, port) for name, port in plant.ports.items()))
        ],
        "grid": _grid(broker_port, agent, issuer),
        "http": {"listen": f"{HOST}:{http_port}"},
    }
    path = folder / "vppd.toml"
    path.write_text(dump(document), encoding="utf-8")
    return path


def _at(port: int) -> dict[str, Value]:
    return {"host": HOST, "port": port}


def _battery(name: str, port: int) -> dict[str, Value]:
    return {
        "id": name,
        "kind": "battery",
        "rated_charge_w": RATED_W,
        "rated_discharge_w": RATED_W,
        "capacity_wh": SPEC.capacity_wh,
        "reserve_frac": SPEC.reserve_frac,
        "soc_target_frac": 0.5,
        "connection": {**_at(port), "reserve_frac": SPEC.reserve_frac},
    }


def _grid(broker_port: int, agent: Key, issuer: Key) -> dict[str, Value]:
    return {
        "broker": {**_at(broker_port), "client_id": "vppd-dc1", "insecure_lab": True},
        "signing": {"kid": agent.kid, "alg": "ES256", "key_file": "agent.pem"},
        "issuers": [
            {
                "id": "tso",
                "keys": [{"kid": issuer.kid, "alg": "ES256", "public_key_file": "tso.pem"}],
                "grants": [{"resource": "*", "kinds": ["setpoint", "release"], "max_power_w": 1e6}],
            }
        ],
    }

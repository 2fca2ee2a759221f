"""Orders on the one side, kill -9 on the other, and the account of what became of the orders."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.faults.mortal import MortalDaemon
from tests.faults.patient_dispatcher import PatientDispatcher, Sent
from tests.faults.small_plant import LEASE_S, RATED_W, Battery, SmallPlant, small_plant, write_config
from tests.grid.dispatcher import Key
from tests.servers.mosquitto import Mosquitto
from tests.support import ROOT, free_port
from vppd.ledger.reader import read_ledger

UP_S = 60.0
"""Longest start-up or shutdown. [s]"""
CARRIED_OUT_S = 45.0
"""Longest time until an accepted order is seen at its device, kills and all. [s]"""
SHORTEST_W = 5_000
ANY = "any"
"""The moment that hangs on nothing: it may fall into the start-up."""
MOMENTS = (ANY, "published", "receipted", "written")
"""A command was sent, its receipt came, a device took a write: the kill follows within milliseconds."""


class Pulse:
    """Something that happens again and again; ``next`` waits for the next time."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def beat(self) -> None:
        """It happens."""
        self._event.set()
        self._event = asyncio.Event()

    async def next(self) -> None:
        """Return when it happens."""
        await self._event.wait()


@dataclass(slots=True)
class Done:
    """One order of a power of its own, from the dispatcher's side."""

    battery: str
    power_w: int
    order: Sent
    release_s: float = float("inf")
    """When its release was sent. [s]"""


@dataclass
class Account:
    """What was done, and what went wrong."""

    done: list[Done] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    start_ups_s: list[float] = field(default_factory=list)
    start_up_cpu_s: list[float] = field(default_factory=list)
    longest_gap_s: float = 0.0
    receipts: int = 0
    copies: int = 0
    """Receipts that were the same as one before."""


class Campaign:
    """One run: two dispatch desks, one for each battery, and a killer."""

    def __init__(
        self, daemon: MortalDaemon, dispatcher: PatientDispatcher, plant: SmallPlant, seed: int, carried_out_s: float
    ) -> None:
        self._daemon, self._dispatcher, self._plant, self._limit_s = daemon, dispatcher, plant, carried_out_s
        self._rng = random.Random(seed)
        self._powers = iter(self._rng.sample(range(SHORTEST_W, int(0.9 * RATED_W)), 5_000))
        self._over = asyncio.Event()
        self.account = Account()

    async def run(self, kills: int, pulses: dict[str, Pulse], *, until_fault: bool) -> None:
        """Dispatch while the daemon is killed so many times; ``until_fault``: no longer than something has gone wrong."""
        async with asyncio.timeout(UP_S):
            await self._daemon.ready.wait()
            await self._dispatcher.online.wait()
        async with asyncio.TaskGroup() as group:
            for battery in self._plant.batteries.values():
                group.create_task(self._desk(battery))
            for _ in range(kills):
                await self._kill(pulses)
                if until_fault and self.account.faults:
                    break
            self._over.set()

    async def _kill(self, pulses: dict[str, Pulse]) -> None:
        """Wait for a random moment; kill; start again at once."""
        kind = self._rng.choice(tuple(pulses))
        wait_s = self._rng.uniform(0.0, 2.5 if kind == ANY else 0.025)
        if kind != ANY:
            with suppress(TimeoutError):
                async with asyncio.timeout(UP_S):
                    await self._daemon.ready.wait()
                    await pulses[kind].next()
        await asyncio.sleep(wait_s)
        self._daemon.kill()
        self._daemon.start()
        self.account.kills[kind] += 1

    async def _desk(self, battery: Battery) -> None:
        """Order one power after the other from one battery, each until it has been seen there, and release it."""
        while not self._over.is_set():
            power_w = next(self._powers)
            try:
                await self._order(battery, power_w)
            except TimeoutError:
                now = battery.now.setpoint_w
                self.account.faults.append(
                    f"{battery.name}: {power_w} W not carried out or not released; it follows {now} W"
                )

    async def _order(self, battery: Battery, power_w: int) -> None:
        async with asyncio.timeout(self._limit_s):
            done = Done(battery.name, power_w, await self._dispatcher.setpoint(battery.name, power_w))
        self.account.done.append(done)
        if self._rng.random() < 0.3:
            self._dispatcher.repeat(done.order)
        async with asyncio.timeout(self._limit_s):
            await battery.until(lambda followed: followed.setpoint_w == power_w)
        await asyncio.sleep(self._rng.uniform(0.0, 0.5))
        done.release_s = asyncio.get_running_loop().time()
        async with asyncio.timeout(self._limit_s):
            await self._dispatcher.release(battery.name)
            await battery.until(lambda followed: followed.at_rest)


def judge_receipts(dispatcher: PatientDispatcher, account: Account) -> None:
    """Every command was accepted, and every copy of a receipt was the same."""
    account.faults += [f"a receipt for nobody: {text}" for text in dispatcher.strange]
    for command in dispatcher.sent.values():
        if set(command.answers) != {"received", "accepted"}:
            account.faults.append(f"{command.command_id} was answered {sorted(command.answers)}")
        account.faults += [
            f"{command.command_id}: {len(bodies)} different receipts {status}"
            for status, bodies in command.answers.items()
            if len(bodies) > 1
        ]
        account.receipts += command.count
        account.copies += command.count - sum(map(len, command.answers.values()))


def judge_batteries(plant: SmallPlant, account: Account) -> None:
    """Each order was carried out exactly once, from its acceptance to its release, and nothing else was."""
    for battery in plant.batteries.values():
        mine = {d.power_w: d for d in account.done if d.battery == battery.name}
        seen = Counter(f.setpoint_w for f in battery.followed if not f.at_rest)
        account.faults += [f"{battery.name}: {p} W was executed {seen[p]} times" for p in mine if seen[p] != 1]
        account.faults += [f"{battery.name}: {p} W was never ordered" for p in seen if p not in mine]
        for before, after in pairwise(battery.followed):
            done = mine.get(int(before.setpoint_w or 0.0))
            if done is not None and after.at_s < done.release_s:
                account.faults.append(f"{battery.name}: left {done.power_w} W before its release was sent")
        if not battery.now.at_rest:
            account.faults.append(f"{battery.name}: still follows {battery.now.setpoint_w} W")
        if battery.unit.log.reversions:
            account.faults.append(f"{battery.name}: fell back by itself {battery.unit.log.reversions} times")
        account.longest_gap_s = max(account.longest_gap_s, battery.longest_gap_s)
    if account.longest_gap_s > LEASE_S:
        account.faults.append(f"a setpoint was not renewed for {account.longest_gap_s:.1f} s")


def judge_ledger(path: Path, dispatcher: PatientDispatcher, account: Account) -> None:
    """The chain is whole, and every command with a receipt is in it, once."""
    with read_ledger(path) as ledger:
        ledger.verify()
        commands = [r.event.body for r in ledger.events("orders") if r.event.kind == "command_received"]
    kept = Counter(body["command_id"] for body in commands if body["verdict"] == "accepted")
    receipted = [c.command_id for c in dispatcher.sent.values() if c.accepted.is_set()]
    account.faults += [f"{c} has a receipt and is in the ledger {kept[c]} times" for c in receipted if kept[c] != 1]


async def campaign(
    folder: Path,
    command: list[str],
    kills: int,
    seed: int,
    *,
    moments: tuple[str, ...] = MOMENTS,
    until_fault: bool = False,
    carried_out_s: float = CARRIED_OUT_S,
) -> Account:
    """Run the daemon ``command -c FILE`` through so many kills, and return the account."""
    key = Key("tso-1")
    pulses = {name: Pulse() for name in MOMENTS}
    async with AsyncExitStack() as stack:
        broker = stack.enter_context(Mosquitto(folder / "mosquitto"))
        plant = await stack.enter_async_context(small_plant(pulses["written"].beat))
        config = write_config(folder, plant, broker.port, free_port(), key)
        daemon = await stack.enter_async_context(MortalDaemon([*command, "-c", str(config)], folder / "vppd.log", ROOT))
        dispatcher = await stack.enter_async_context(
            PatientDispatcher(broker.port, key, pulses["published"].beat, pulses["receipted"].beat)
        )
        run = Campaign(daemon, dispatcher, plant, seed, carried_out_s)
        await run.run(kills, {name: pulses[name] for name in moments}, until_fault=until_fault)
        account = run.account
        if (code := await daemon.stop(UP_S)) != 0:
            account.faults.append(f"the daemon ended with {code}")
        judge_receipts(dispatcher, account)
        judge_batteries(plant, account)
        judge_ledger(folder / "state" / "ledger.db", dispatcher, account)
        account.start_ups_s, account.start_up_cpu_s = daemon.start_ups_s, daemon.start_up_cpu_s
    return account

"""The script: a load target, a regulation signal, a device that fails during an order, a market - by MQTT, judged at the meter."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from vppd.demo.acts import Line, Result, judge_limit, judge_regulation
from vppd.demo.dispatcher import Dispatcher
from vppd.demo.record import SITE, Record
from vppd.demo.room import Room
from vppd.demo.stall import Sold, Stall
from vppd.errors import DeviceError
from vppd.grid.wander import SIGNAL_S, signals

BASELINE_S = 10.0
SETTLE_S = 20.0
"""Time for the ramp down; judged from then on. [s]"""
SHED_FRAC = 0.25
REDUCE_FRAC = 0.2
REGULATION_FRAC = 0.08
"""Regulation capacity, as part of the baseline. [0-1]"""
RESTORE_S = 120.0
BACK_FRAC = 0.05
"""A load this near its baseline is back. [0-1]"""
CALM_S = 20.0
"""Pause before an act: a ramp ends, and then a baseline is measured. [s]"""
BOUGHT_FRAC = 0.6
"""The market buys this part of what is offered. [0-1]"""
GATE_WITHIN_S = 150.0
"""A gate closes every minute; the first offers may take longer. [s]"""
STATED_WITHIN_S = 45.0
STATED_FRAC = 0.94
"""So much of what was sold must be stated as delivered; the ramp takes the rest. [0-1]"""
SHORTEST_S = 45.0
"""No act is shorter, whatever the speed: ramps and windows do not run faster. [s]"""


@dataclass(slots=True)
class Stage:
    """What an act works with."""

    dispatcher: Dispatcher
    record: Record
    room: Room
    speed: float
    seed: int
    say: Callable[[str], None]
    """Tells the audience what happens now."""
    stall: Stall | None = None
    """Where the market is opened; None where the daemon sells nothing."""

    def mono_s(self) -> float:
        """Return the loop's time. [s]"""
        return asyncio.get_running_loop().time()

    def length_s(self, length_s: float) -> float:
        """Return how long an act of ``length_s`` takes at this speed. [s]"""
        return max(length_s / self.speed, SHORTEST_S)

    def baseline_w(self, name: str) -> float:
        """Return what a feed has drawn in the last seconds, storage apart. [W]"""
        return self.record.baseline_w(name, BASELINE_S)


Act = Callable[[Stage], Awaitable[Result]]


async def load_target(stage: Stage) -> Result:
    """Set every feed a quarter below its baseline by DSX Flex for three minutes, then lift it with null."""
    record, tags = stage.record, stage.record.tags
    baseline_w = {tag: stage.baseline_w(tag) for tag in tags}
    limit_w = {tag: (1.0 - SHED_FRAC) * baseline_w[tag] for tag in tags}
    length_s = stage.length_s(180.0)
    until = stage.dispatcher.now() + timedelta(seconds=length_s + 60.0)
    start_s = stage.mono_s()
    record.targets_w |= {**limit_w, SITE: sum(limit_w.values())}
    await stage.dispatcher.load_target(limit_w, until)
    stage.say(f"every feed {SHED_FRAC:.0%} below its baseline for {length_s:.0f} s")
    await asyncio.sleep(start_s + length_s - stage.mono_s())
    lines: list[Line] = []
    faults: list[str] = []
    for tag in tags:
        points = record.since(tag, start_s)
        line, wrong = judge_limit("load target", tag, points, baseline_w[tag], limit_w[tag], start_s + SETTLE_S)
        lines.append(line)
        faults += wrong
    record.targets_w.clear()
    await stage.dispatcher.load_target(dict.fromkeys(tags), until)
    stage.say("limits lifted, power comes back by its ramp")
    faults += await _restored(stage, baseline_w)
    return Result("load target", tuple(lines), tuple(faults))


async def regulation(stage: Stage) -> Result:
    """Follow a new signal every two seconds for two minutes, around the power the site would draw."""
    record, dispatcher = stage.record, stage.dispatcher
    baseline_w = stage.baseline_w(SITE)
    capacity_w = REGULATION_FRAC * baseline_w
    length_s = stage.length_s(120.0)
    until = dispatcher.now() + timedelta(seconds=length_s + 60.0)
    await dispatcher.order("regulation", dispatcher.parties.vpp_id, capacity_w, until)
    stage.say(f"a regulation signal every {SIGNAL_S:g} s, ±{capacity_w / 1e3:.0f} kW")
    start_s = stage.mono_s()
    for level_frac in signals(stage.seed, int(length_s / SIGNAL_S)):
        dispatcher.signal(level_frac)
        record.targets_w[SITE] = baseline_w + level_frac * capacity_w
        await asyncio.sleep(SIGNAL_S)
    line, faults = judge_regulation(SITE, record.since(SITE, start_s), baseline_w, capacity_w)
    record.targets_w.clear()
    await dispatcher.order("release", dispatcher.parties.vpp_id, None, until)
    stage.say("released")
    faults += await _restored(stage, {})
    return Result("regulation", (line,), tuple(faults))


async def failure(stage: Stage) -> Result:
    """Order a fifth off the site; a third into it the hardest-working storage unit falls silent; the order is kept."""
    record, dispatcher = stage.record, stage.dispatcher
    tags = record.tags
    baselines_w = {tag: stage.baseline_w(tag) for tag in tags}
    baseline_w = sum(baselines_w.values())
    shed_w = REDUCE_FRAC * baseline_w
    length_s = stage.length_s(180.0)
    until = dispatcher.now() + timedelta(seconds=length_s + 60.0)
    start_s = stage.mono_s()
    record.targets_w[SITE] = baseline_w - shed_w
    await dispatcher.order("reduce", dispatcher.parties.vpp_id, shed_w, until)
    stage.say(f"reduce the site by {shed_w / 1e3:.0f} kW for {length_s:.0f} s")
    await asyncio.sleep(start_s + length_s / 3.0 - stage.mono_s())
    unit = min((await stage.room.truth()).storage, key=lambda u: u.power_w).name
    await stage.room.fail(unit, "silent", length_s)
    stage.say(f"{unit} has fallen silent; the rest must carry the order")
    await asyncio.sleep(start_s + length_s - stage.mono_s())
    points = record.since(SITE, start_s)
    line, faults = judge_limit("failure", SITE, points, baseline_w, baseline_w - shed_w, start_s + SETTLE_S)
    record.targets_w.clear()
    await stage.room.fail(unit, "silent", 0.0)
    await dispatcher.order("release", dispatcher.parties.vpp_id, None, until)
    stage.say(f"{unit} answers again; released")
    faults += await _restored(stage, baselines_w)
    return Result("failure", (line,), tuple(faults))


async def market(stage: Stage) -> Result:
    """Open a market: it buys a part of what the daemon offers for the next minute; the award is delivered, stated and paid."""
    assert stage.stall is not None
    async with stage.stall.opened(f"{BOUGHT_FRAC:.0%}"):
        stage.say(f"the market is open and buys {BOUGHT_FRAC:.0%} of what is offered for the next minute")
        sold = await stage.stall.wait(lambda sold: sold.state != "new", GATE_WITHIN_S)
        if sold is None or sold.state != "accepted":
            said = "no offer came" if sold is None else f"the award was {sold.state}: {sold.reason}"
            return Result("market", (), (f"market: {said}",))
        line, faults = await _delivered(stage, sold)
        stage.say("delivered; waiting for the daemon's statement")
        settled = await stage.stall.wait(lambda sold: sold.is_settled, STATED_WITHIN_S)
    faults += _accounted(stage, settled)
    faults += await _restored(stage, {})
    return Result("market", (line,), tuple(faults))


async def _delivered(stage: Stage, sold: Sold) -> tuple[Line, list[str]]:
    """Watch the meter while an award is delivered and return the line of the statement and what was wrong."""
    bought = f"{sold.power_w / 1e3:.0f} of {sold.offered_w / 1e3:.0f} kW at {sold.price} {sold.currency}/MWh"
    stage.say(f"awarded: {bought}, from {sold.start:%H:%M:%S} UTC")
    start_s = stage.mono_s() + (sold.start - stage.dispatcher.now()).total_seconds()
    await asyncio.sleep(start_s - stage.mono_s())
    baseline_w = stage.baseline_w(SITE)
    stage.record.targets_w[SITE] = target_w = baseline_w - sold.power_w
    stage.say(f"delivering {bought}")
    await asyncio.sleep((sold.end - sold.start).total_seconds())
    stage.record.targets_w.clear()
    points = stage.record.since(SITE, start_s)
    return judge_limit("market", SITE, points, baseline_w, target_w, start_s + SETTLE_S)


def _accounted(stage: Stage, sold: Sold | None) -> list[str]:
    """Return what is wrong with the daemon's own statement."""
    if sold is None or sold.delivered_wh is None or sold.obliged_wh is None:
        return ["market: the daemon's statement has not come"]
    stage.say(f"stated {sold.delivered_wh / 1e3:.2f} of {sold.obliged_wh / 1e3:.2f} kWh, {sold.owed} {sold.currency}")
    if sold.delivered_wh < STATED_FRAC * sold.obliged_wh:
        return [f"market: only {sold.delivered_wh / sold.obliged_wh:.1%} of what was sold is stated as delivered"]
    return []


SCRIPT: tuple[tuple[str, Act], ...] = (
    ("load target", load_target),
    ("regulation", regulation),
    ("failure", failure),
    ("market", market),
)


async def play(stage: Stage, done: Callable[[Result], None]) -> list[Result]:
    """Play all acts one after the other and return how they went; a promise broken anywhere fails its act."""
    results: list[Result] = []
    acts = [entry for entry in SCRIPT if entry[1] is not market or stage.stall is not None]
    for number, (name, act) in enumerate(acts, 1):
        before = len(stage.record.breaches)
        try:
            stage.say(f"act {number}, {name}, comes when a baseline has been measured")
            await asyncio.sleep(CALM_S)
            stage.say(f"act {number}: {name}")
            result = await act(stage)
        except DeviceError as error:
            stage.record.targets_w.clear()
            result = Result(name, (), (f"{name}: {error}",))
        broken = tuple(stage.record.breaches[before:])
        results.append(Result(result.name, result.lines, result.faults + broken))
        done(results[-1])
    return results


async def _restored(stage: Stage, baselines_w: dict[str, float]) -> list[str]:
    """Wait until the room is as it was and return what is not, after the time there is for it."""
    deadline_s = stage.mono_s() + RESTORE_S
    while True:
        truth = await stage.room.truth()
        wrong = [f"not restored: {text}" for text in truth.held]
        wrong += [
            f"{tag}: the load has not come back to its baseline"
            for tag, baseline_w in baselines_w.items()
            if stage.record.baseline_w(tag, 5.0) < (1.0 - BACK_FRAC) * baseline_w
        ]
        if truth.cancelled:
            return [*wrong, f"{truth.cancelled} jobs were killed"]
        if not wrong or stage.mono_s() > deadline_s:
            return wrong
        await asyncio.sleep(1.0)

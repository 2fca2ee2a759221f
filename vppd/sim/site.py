"""The site as a living thing: physics, the devices' registers, the halls' boards, and the truth about all of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vppd.sim.battery import StorageUnit
from vppd.sim.faults import Clock, Outage
from vppd.sim.generation import MeterUnit, PvUnit
from vppd.sim.jobs import Epoch, HallBoard
from vppd.sim.physics import Commands, FeedState, Physics, PvState, SitePlan, SiteState, default_plan
from vppd.sim.registers import SunSpecUnit
from vppd.sim.storage import StorageState

STEP_S = 0.1
"""Wall time between two steps of the physics. [s]"""
BMS = "bms"
"""Name of the building bus among the things that can fail."""


class Site:
    """Everything simulated, without its sockets: step it in wall time or as fast as you like."""

    def __init__(
        self,
        seed: int,
        clock: Clock,
        epoch: Epoch,
        *,
        plant_s_per_s: float = 1.0,
        plan: SitePlan | None = None,
    ) -> None:
        self.seed = seed
        self.plant_s_per_s = plant_s_per_s
        self.plan = plan or default_plan()
        self.physics = Physics(self.plan, seed)
        self.state: SiteState = self.physics.start()
        self.clock = clock
        self.epoch = epoch
        self.storage = {name: self._storage_unit(name) for name in self.plan.storage}
        self.pv = {name: self._pv_unit(name) for name in self.plan.pv}
        self.meters = {meter_of(tag): self._meter_unit(tag) for tag in self.plan.feeds}
        self.halls = {
            name: HallBoard(self.physics.halls[name], self.state.halls[name], clock, epoch) for name in self.plan.halls
        }
        self.outages = {name: Outage(clock) for name in (*self.units, *self.halls, BMS)}

    @property
    def units(self) -> Mapping[str, SunSpecUnit]:
        """Return every Modbus device by name."""
        return {**self.meters, **self.storage, **self.pv}

    def step(self, dt_s: float = STEP_S) -> None:
        """Move the site on by ``dt_s`` of wall time, under what it has been told by now. [s]"""
        commands = Commands(
            halls={name: board.commands() for name, board in self.halls.items()},
            storage={name: unit.command() for name, unit in self.storage.items()},
            pv_limit_w={name: unit.limit_w() for name, unit in self.pv.items()},
        )
        self.state = self.physics.step(self.state, commands, dt_s, dt_s * self.plant_s_per_s)
        for name, board in self.halls.items():
            board.sync(self.state.halls[name])

    def feed_of(self, name: str) -> str:
        """Return the feed an asset hangs on."""
        places = {
            **self.plan.halls,
            **{n: feed for n, (feed, _) in (*self.plan.storage.items(), *self.plan.pv.items())},
        }
        return places[name]

    def truth(self) -> dict[str, Any]:
        """Return what is really so: meters, devices, halls, and what was written to them."""
        return {
            "t_s": self.state.t_s,
            "plant_t_s": self.state.plant_t_s,
            "feeds": {tag: _feed_truth(feed) for tag, feed in self.state.feeds.items()},
            "devices": {
                **{name: self._storage_truth(name, unit) for name, unit in self.storage.items()},
                **{name: self._pv_truth(name, unit) for name, unit in self.pv.items()},
                **{name: unit.log.counts() for name, unit in self.meters.items()},
            },
            "halls": {name: self._hall_truth(board) for name, board in self.halls.items()},
            "faults": {name: fault.value for name, outage in self.outages.items() if (fault := outage.now())},
        }

    def entries(self, name: str) -> list[dict[str, Any]]:
        """Return the log of what changed in a device or hall. Raises KeyError for an unknown name."""
        log = self.halls[name].log if name in self.halls else self.units[name].log
        return list(log.entries)

    def _storage_truth(self, name: str, unit: StorageUnit) -> dict[str, Any]:
        """Return a storage unit as it is."""
        state, command = self.state.storage[name], unit.command()
        return {
            "power_w": state.power_w,
            "soc_frac": state.soc_frac,
            "reserve_frac": command.reserve_frac,
            "setpoint_w": unit.setpoint_w(),
            **unit.log.counts(),
        }

    def _pv_truth(self, name: str, unit: PvUnit) -> dict[str, Any]:
        """Return a PV plant as it is."""
        state, limit_w = self.state.pv[name], unit.limit_w()
        return {
            "power_w": -state.output_w,
            "available_w": -state.available_w,
            "setpoint_w": -limit_w if math.isfinite(limit_w) else None,
            **unit.log.counts(),
        }

    def _hall_truth(self, board: HallBoard) -> dict[str, Any]:
        """Return a hall as it is, with the progress of its jobs."""
        progress = board.progress()
        jobs = [
            {
                "job_id": job.job_id,
                "tier": job.place.tier,
                "state": job.state,
                "held": job.held,
                "stops": job.stops,
                "comment": job.comment,
                "done_gpu_s": progress.get(job.job_id, (job.work_gpu_s, 0.0))[0],
            }
            for job in board.jobs.values()
        ]
        return {**board.summary(), "tier_power_w": board.tier_power_w(), "job_list": jobs}

    def _storage_unit(self, name: str) -> StorageUnit:
        """Return the registers of a storage unit."""

        def state() -> StorageState:
            return self.state.storage[name]

        return StorageUnit(name, self.plan.storage[name][1], state, self.clock)

    def _pv_unit(self, name: str) -> PvUnit:
        """Return the registers of a PV plant."""

        def state() -> PvState:
            return self.state.pv[name]

        return PvUnit(name, self.plan.pv[name][1], state, self.clock)

    def _meter_unit(self, tag: str) -> MeterUnit:
        """Return the registers of a feed's meter."""

        def state() -> FeedState:
            return self.state.feeds[tag]

        return MeterUnit(meter_of(tag), state, self.clock)


def meter_of(tag: str) -> str:
    """Return the name of a feed's meter."""
    return f"poi-{tag.rpartition('-')[2]}"


def _feed_truth(feed: FeedState) -> dict[str, float]:
    """Return a feed as its meter and its building services see it. [W, Wh]"""
    return {
        "power_w": feed.power_w,
        "racks_w": feed.racks_w,
        "cooling_w": feed.cooling_w,
        "imported_wh": feed.imported_wh,
        "exported_wh": feed.exported_wh,
    }

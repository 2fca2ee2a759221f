"""What is held at which device: told, read back, asserted again, given back. Blocks; one thread at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import structlog

from vppd.agent.device import TOLERANCE_W, Clocks, Device, Reading
from vppd.agent.plan import Standing, Wanted, plan, range_w
from vppd.agent.restore import Prior, PriorFile, give_back
from vppd.agent.wire import Command, Outcome
from vppd.errors import DeviceError, Refused, Unreachable

log = structlog.get_logger()

_CLOCK_SLACK_MHZ = 45
"""A clock so far above its lock means the lock has gone: clocks move in steps of 15 MHz. [MHz]"""
_TELL_EVERY = 60
"""Of reverts that come again and again, the first and every so-manieth is logged."""


@dataclass(slots=True)
class _Held:
    """One device in our hand."""

    cap_w: float | None = None
    clocks: Clocks | None = None
    reverts: int = 0


class Holder:
    """The devices of this node and what we hold them to."""

    def __init__(
        self, file: PriorFile, floor_frac: float, controlled: Iterable[str], clocks: Clocks | None = None
    ) -> None:
        """``controlled`` are the kinds that may be told anything; ``clocks`` what the site locks without us. [MHz]"""
        self._file, self._floor_frac, self._controlled, self._clocks = file, floor_frac, frozenset(controlled), clocks
        self.devices: Mapping[str, Device] = {}
        self._priors: dict[str, Prior] = {}
        self._saved: dict[str, Prior] = {}
        self._held: dict[str, _Held] = {}
        self._readings: dict[str, Reading] = {}
        self._lost: set[str] = set()
        self.outcomes: dict[str, Outcome] = {}
        """How every device stands that may be controlled, as last seen."""

    def adopt(self) -> None:
        """Take over what an earlier agent left behind: it is to be put back. Raises Garbled or Unreachable (the file)."""
        self._priors = self._file.load()
        self._saved = dict(self._priors)
        if self._priors:
            log.warning("agent_limits_left_behind", devices=sorted(self._priors))

    @property
    def clear(self) -> bool:
        """Say whether every device is as it was before us."""
        return not self._priors

    @property
    def gpus_lost(self) -> bool:
        """Say whether there are GPUs and none of them answers."""
        gpus = [name for name, device in self.devices.items() if device.kind == "gpu"]
        return bool(gpus) and not any(name in self._readings for name in gpus)

    @property
    def cap_w(self) -> float | None:
        """Return what the capped devices may draw together; None while none is capped. [W]"""
        caps_w = [held.cap_w for held in self._held.values() if held.cap_w is not None]
        return sum(caps_w) if caps_w else None

    def range_w(self) -> tuple[float, float]:
        """Return the least and the most all devices together may be capped to. [W]"""
        return range_w(self._standings()[0])

    def apply(self, command: Command) -> None:
        """Do what the command says, device by device; ``outcomes`` tells how it went.

        What is lowered is lowered first, so that the node as a whole never gets more than it had or shall have.
        """
        standings, unread = self._standings()
        wanted = plan(command, standings)
        outcomes = {
            name: Outcome("rejected", detail="no such device under control here") for name in command.devices
        } | unread
        try:
            self._remember(wanted, standings)
        except Unreachable as error:
            # Nothing may be changed that could not be put back after a crash.
            wanted = {name: Wanted(refused=str(error)) for name in wanted}
        for name in sorted(wanted, key=lambda n: _rise_w(wanted[n], standings[n])):
            outcomes[name] = self._tell(name, wanted[name])
        self.outcomes = outcomes
        self._save_at_leisure()

    def look(self) -> tuple[dict[str, tuple[Device, Reading]], tuple[str, ...]]:
        """Return all readings, and the devices where our limit had gone and was set again."""
        seen: dict[str, tuple[Device, Reading]] = {}
        for name, device in self.devices.items():
            reading = self._read(device)
            if reading is not None:
                seen[name] = device, reading
        self._readings = {name: reading for name, (_, reading) in seen.items()}
        return seen, tuple(name for name, reading in self._readings.items() if self._reverted(name, reading))

    def restore(self) -> bool:
        """Put everything back; say whether that is done. What failed is tried again with the next call."""
        for name in sorted(self._priors):
            self.outcomes[name] = self._give_back(name)
        self.outcomes = {name: outcome for name, outcome in self.outcomes.items() if name in self.devices}
        self._save_at_leisure()
        return self.clear

    def refresh(self) -> None:
        """See how every device stands that we do not hold, for a status without a command."""
        standings, unread = self._standings()
        self.outcomes |= unread
        for name, standing in standings.items():
            if name not in self._priors:
                self.outcomes[name] = Outcome("confirmed", None, standing.prior_w)

    # ---- one device ------------------------------------------------------------------------------------------------

    def _standings(self) -> tuple[dict[str, Standing], dict[str, Outcome]]:
        """Return how the devices stand that may be controlled, and what is to be said of those that do not answer."""
        standings: dict[str, Standing] = {}
        unread: dict[str, Outcome] = {}
        for name, device in self.devices.items():
            limits = device.limits
            if device.kind not in self._controlled or limits is None:
                continue
            try:
                now_w = device.cap_w()
            except DeviceError as error:
                unread[name] = Outcome("unknown", self._cap_of(name), self._prior_of(name), str(error))
                continue
            prior_w = self._prior_of(name)
            floor_w = max(limits.min_w, self._floor_frac * limits.default_w)
            reading = self._readings.get(name, Reading())
            standings[name] = Standing(
                floor_w, now_w if prior_w is None else prior_w, limits.max_w, reading.power_w, now_w
            )
        return standings, unread

    def _remember(self, wanted: Mapping[str, Wanted], standings: Mapping[str, Standing]) -> None:
        """Write what there was, before any of it is changed. Raises Unreachable: then nothing may be changed."""
        priors = dict(self._priors)
        for name, want in wanted.items():
            if want.cap_w is None and want.clocks is None:
                continue
            prior = priors.get(name, Prior())
            if want.cap_w is not None:
                before_w = standings[name].prior_w if prior.cap_w is None else prior.cap_w
                least_w = want.cap_w if prior.least_w is None else min(prior.least_w, want.cap_w)
                prior = replace(prior, cap_w=before_w, least_w=least_w)
            priors[name] = replace(prior, clocks=prior.clocks or want.clocks is not None)
        self._save(priors)
        self._priors = priors

    def _tell(self, name: str, want: Wanted) -> Outcome:
        if want.refused:
            if want.cap_w is not None:
                self._tell(name, replace(want, refused=""))
            return Outcome("rejected", self._cap_of(name), self._prior_of(name), want.refused)
        if want.cap_w is None and want.clocks is None:
            return self._give_back(name)
        held, device = self._held.setdefault(name, _Held()), self.devices[name]
        try:
            detail = self._tell_cap(device, held, want.cap_w)
            detail = self._tell_clocks(device, held, want.clocks) or detail
        except Refused as error:
            self._forget_untouched(name)
            return Outcome("rejected", held.cap_w, self._prior_of(name), str(error))
        except DeviceError as error:
            # It may have been done or not: hold on, so that the next look sets it again and the end puts it back.
            held.cap_w, held.clocks = want.cap_w, want.clocks
            return Outcome("unknown", held.cap_w, self._prior_of(name), str(error))
        return Outcome("confirmed", held.cap_w, self._prior_of(name), detail)

    def _tell_clocks(self, device: Device, held: _Held, clocks: Clocks | None) -> str:
        if clocks is not None:
            device.lock_clocks(clocks)
        elif held.clocks is not None or self._priors[device.name].clocks:
            give_back(device, Prior(clocks=True), clocks=self._clocks)
            self._priors[device.name] = replace(self._priors[device.name], clocks=False)
        held.clocks = clocks
        return "" if clocks is None else f"clocks locked to {clocks[0]}-{clocks[1]} MHz"

    def _tell_cap(self, device: Device, held: _Held, cap_w: float | None) -> str:
        """Set the limit and read it back; return what else is to be said. Raises Refused when it does not stay."""
        prior = self._priors[device.name]
        if cap_w is None:
            give_back(device, replace(prior, clocks=False), held.cap_w)
            self._priors[device.name] = replace(prior, cap_w=None, least_w=None)
            held.cap_w = None
            return ""
        found_w = device.cap_w()
        is_lower = held.cap_w is not None and found_w < held.cap_w - TOLERANCE_W
        if is_lower and found_w < cap_w:
            held.cap_w = cap_w
            return f"somebody else limits it to {found_w:g} W"
        if found_w != cap_w:
            device.set_cap(cap_w)
            found_w = device.cap_w()
        if found_w > cap_w + TOLERANCE_W:
            raise Refused(f"{cap_w:g} W were set, but it reads {found_w:g} W")
        held.cap_w = cap_w
        return ""

    def _give_back(self, name: str) -> Outcome:
        prior, held = self._priors.get(name), self._held.get(name)
        if prior is None:
            return Outcome("confirmed", None, self._seen_w(name))
        try:
            if name not in self.devices:
                raise Refused("is not there")
            give_back(self.devices[name], prior, held.cap_w if held else None, self._clocks)
        except DeviceError as error:
            self._note_lost(name, error)
            return Outcome("unknown", self._cap_of(name), prior.cap_w, f"not restored: {error}")
        self._lost.discard(name)
        del self._priors[name]
        self._held.pop(name, None)
        log.debug("agent_restored", device=name, limit_w=prior.cap_w)
        return Outcome("confirmed", None, prior.cap_w if prior.cap_w is not None else self._seen_w(name))

    def _reverted(self, name: str, reading: Reading) -> bool:
        """Say whether somebody had undone what we hold; it is set again then, and read back."""
        held = self._held.get(name)
        if held is None:
            return False
        raised = held.cap_w is not None and reading.cap_w is not None and reading.cap_w > held.cap_w + TOLERANCE_W
        clock_mhz = reading.clock_mhz or 0
        freed = held.clocks is not None and clock_mhz > held.clocks[1] + _CLOCK_SLACK_MHZ
        if not raised and not freed:
            return False
        held.reverts += 1
        self.outcomes[name] = self._tell(name, Wanted(held.cap_w, held.clocks))
        if held.reverts % _TELL_EVERY == 1:
            log.warning(
                "agent_limit_reverted",
                device=name,
                found_w=reading.cap_w,
                cap_w=held.cap_w,
                clock_mhz=reading.clock_mhz,
                times=held.reverts,
                outcome=self.outcomes[name].outcome,
            )
        outcome = self.outcomes[name]
        self.outcomes[name] = replace(outcome, detail=outcome.detail or f"set again {held.reverts} times")
        return True

    def _forget_untouched(self, name: str) -> None:
        """After a clear no: a device that never took anything from us has nothing to be put back."""
        held = self._held[name]
        if held.cap_w is None and held.clocks is None:
            del self._held[name]
            self._priors.pop(name, None)

    def _read(self, device: Device) -> Reading | None:
        try:
            reading = device.read()
        except DeviceError as error:
            self._note_lost(device.name, error)
            return None
        if device.name in self._lost and device.name not in self._priors:
            log.info("agent_device_recovered", device=device.name)
            self._lost.discard(device.name)
        return reading

    def _note_lost(self, name: str, error: DeviceError) -> None:
        if name not in self._lost:
            log.warning("agent_device_lost", device=name, reason=str(error), error=type(error).__name__)
            self._lost.add(name)

    def _save_at_leisure(self) -> None:
        """Drop what has been put back; a file that still has it does no harm, and the next call tries again."""
        try:
            self._save(self._priors)
        except Unreachable as error:
            log.warning("agent_prior_limits_not_written", reason=str(error))

    def _save(self, priors: Mapping[str, Prior]) -> None:
        if priors != self._saved:
            self._file.save(priors)
            self._saved = dict(priors)

    def _cap_of(self, name: str) -> float | None:
        held = self._held.get(name)
        return held.cap_w if held else None

    def _prior_of(self, name: str) -> float | None:
        prior = self._priors.get(name)
        return prior.cap_w if prior else None

    def _seen_w(self, name: str) -> float | None:
        reading = self._readings.get(name)
        return reading.cap_w if reading else None


def _rise_w(want: Wanted, standing: Standing) -> float:
    to_w = standing.prior_w if want.cap_w is None else want.cap_w
    return to_w - (to_w if standing.cap_w is None else standing.cap_w)

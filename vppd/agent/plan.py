"""From a command to what each device is told: limits, floors, refusals. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum

from vppd.agent.device import TOLERANCE_W, Clocks
from vppd.agent.sharing import Need, need, share
from vppd.agent.wire import Ask, Command


@dataclass(frozen=True, slots=True)
class Standing:
    """How a device that may be controlled stands."""

    floor_w: float
    """Never capped below this: the device's least, or the part of its default that the configuration protects. [W]"""
    prior_w: float
    """Its limit without us, and the most we let it have: a cap only ever lowers. [W]"""
    max_w: float
    draw_w: float | None = None
    cap_w: float | None = None
    """The limit it has now. [W]"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a device is to have; None is what it had before us."""

    cap_w: float | None = None
    clocks: Clocks | None = None
    refused: str = ""
    """Why the command is refused for this device, which then keeps what it has, or gets its share of the node cap."""


def plan(command: Command, standings: Mapping[str, Standing]) -> dict[str, Wanted]:
    """Return what every device of the node is to have. A device nobody names and no node cap covers gets None.

    A device named with a cap gets that one; one named with null is left out of the node cap.
    """
    wanted = {name: _named(command.devices.get(name), standing) for name, standing in standings.items()}
    if command.node_cap_w is None:
        return wanted
    sharing = [name for name in standings if _is_shared(command.devices.get(name), wanted[name])]
    named_w = fsum(w.cap_w or 0.0 for name, w in wanted.items() if name not in sharing)
    shares = share(command.node_cap_w - named_w, {name: _need(standings[name]) for name in sharing})
    for name, share_w in shares.items():
        # A share that is all the device may have anyway is a cap too: others must not raise the limit meanwhile.
        wanted[name] = Wanted(share_w, wanted[name].clocks, wanted[name].refused)
    return wanted


def range_w(standings: Mapping[str, Standing]) -> tuple[float, float]:
    """Return the least and the most that all devices together may be capped to. [W]"""
    least_w = fsum(min(s.floor_w, s.prior_w) for s in standings.values())
    return least_w, fsum(s.prior_w for s in standings.values())


def _named(ask: Ask | None, standing: Standing) -> Wanted:
    if ask is None:
        return Wanted()
    if ask.cap_w is None:
        return Wanted(None, ask.clocks)
    if not standing.floor_w - TOLERANCE_W <= ask.cap_w <= standing.max_w + TOLERANCE_W:
        return Wanted(refused=f"{ask.cap_w:g} W is outside {standing.floor_w:g} to {standing.max_w:g} W")
    return Wanted(min(ask.cap_w, standing.prior_w), ask.clocks)


def _is_shared(ask: Ask | None, want: Wanted) -> bool:
    """A device whose own cap is refused counts too: the node cap is a promise that it must not break."""
    return ask is None or not ask.says_cap or bool(want.refused)


def _need(standing: Standing) -> Need:
    least_w = min(standing.floor_w, standing.prior_w)
    return need(least_w, standing.prior_w, standing.draw_w, standing.cap_w)

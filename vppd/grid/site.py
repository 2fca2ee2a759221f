"""What the dispatch interface must know: the site's names, who may order what, and how strict to be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vppd.grid.fields import stamp
from vppd.grid.reasons import Defect, Reason
from vppd.grid.signing import KeyRing
from vppd.model import Order, OrderKind

EVERYTHING = "*"


@dataclass(frozen=True, slots=True)
class Site:
    """The names that an order may use."""

    vpp_id: str
    agent_id: str
    feeds: tuple[str, ...]
    assets: tuple[str, ...] = ()

    def knows(self, resource: str) -> bool:
        """Say whether the site, a feed or an asset has this name."""
        return resource == self.vpp_id or resource in self.feeds or resource in self.assets


@dataclass(frozen=True, slots=True)
class Grant:
    """What an issuer may order of a resource; without a grant it may order nothing."""

    resource: str
    """Site id, feed tag or asset id, each for itself; * for all."""
    kinds: frozenset[OrderKind]
    max_power_w: float
    min_power_w: float = 0.0
    max_duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """Bounds on what is read and believed."""

    max_payload_bytes: int = 16_384
    max_depth: int = 8
    max_age_s: float = 900.0
    """A DSX Flex command has no expiry of its own; its envelope may be this old. [s]"""
    max_signal_age_s: float = 10.0
    """A regulation signal may be this old. [s]"""
    skew_s: float = 5.0
    """How far the sender's clock may be behind ours. [s]"""
    future_s: float = 30.0
    """How far the sender's clock may be ahead of ours. [s]"""
    awards_from: str = ""
    """The issuer whose awards are taken; empty: nobody's are."""


@dataclass(frozen=True, slots=True)
class Registry:
    """All that admission is judged by."""

    site: Site
    keys: KeyRing
    grants: Mapping[str, tuple[Grant, ...]]
    """Grants by issuer; an issuer not in here is unknown."""
    rules: Rules = field(default_factory=Rules)


def authorise(order: Order, grants: tuple[Grant, ...]) -> None:
    """Raise Defect (unauthorised, naming what is missing) unless one grant covers the whole order."""
    of_kind = _for_kind(order, grants)
    if order.kind is OrderKind.RELEASE:
        return
    in_range = _for_power(order, of_kind)
    if not any(_short_enough(order, grant) for grant in in_range):
        longest_s = max(g.max_duration_s or 0.0 for g in in_range)
        raise _denied(f"{_span(order)} on {order.resource!r} is longer than the {longest_s:g} s that are granted")


def _for_kind(order: Order, grants: Iterable[Grant]) -> list[Grant]:
    """Return the grants for such an order on its resource. Raises Defect when there are none."""
    on_resource = [g for g in grants if g.resource in (EVERYTHING, order.resource)]
    if not on_resource:
        raise _denied(f"issuer {order.issuer!r} has no grant for resource {order.resource!r}")
    of_kind = [g for g in on_resource if order.kind in g.kinds]
    if not of_kind:
        raise _denied(f"issuer {order.issuer!r} has no grant for {order.kind.value} on {order.resource!r}")
    return of_kind


def _for_power(order: Order, grants: Iterable[Grant]) -> list[Grant]:
    """Return those of the grants that allow its power. Raises Defect when there are none."""
    power_w = order.power_w or 0.0
    found = [g for g in grants if g.min_power_w <= power_w <= g.max_power_w]
    if not found:
        allowed = ", ".join(f"{g.min_power_w:g} to {g.max_power_w:g} W" for g in grants)
        raise _denied(
            f"{order.kind.value} of {power_w:g} W on {order.resource!r} is outside what is granted: {allowed}"
        )
    return found


def _short_enough(order: Order, grant: Grant) -> bool:
    if grant.max_duration_s is None:
        return True
    end = order.interval.end
    return end is not None and (end - order.interval.start).total_seconds() <= grant.max_duration_s


def _span(order: Order) -> str:
    end = order.interval.end
    return f"{order.kind.value} until {stamp(end)}" if end else f"{order.kind.value} without an end"


def _denied(sentence: str) -> Defect:
    return Defect(Reason.UNAUTHORISED, sentence)

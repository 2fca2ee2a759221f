"""Proposals to one range: higher priority narrows, lower chooses within what is left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vppd.model import Bounds


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one source wants of one node or asset."""

    source: str
    priority: int
    bounds: Bounds


def arbitrate(feasible: Bounds, proposals: Iterable[Proposal]) -> Bounds:
    """Return the range that honours every proposal, highest priority first, and never leaves ``feasible``. [W]

    A proposal that lies wholly outside what is left ends at the nearest edge: nobody overrules the top.
    """
    left = feasible
    for proposal in sorted(proposals, key=lambda p: (-p.priority, p.source)):
        left = Bounds(left.clamp(proposal.bounds.lower_w), left.clamp(proposal.bounds.upper_w))
    return left

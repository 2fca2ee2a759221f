"""What the market says to power plants and believes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vppd.grid.issuer import Command, Issuer, Word, believed
from vppd.grid.reasons import Defect, Reason
from vppd.grid.signing import KeyRing
from vppd.grid.strict_json import Json

SESSION_S = 3600
"""So long the broker keeps offers for a market that is away: an offer made then is in the book after a restart. [s]"""
_COMMANDS = {
    "award": ("vpp.bid.award.v1", "bid/award", "bid"),
    "order": ("vpp.order.set.v1", "order/set", "order"),
}


class Wire(Protocol):
    """Where commands go out."""

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Send; what cannot go out now goes when the line is back."""
        ...


@dataclass(slots=True)
class Clerk:
    """Signs what the market says and believes only what the power plants signed."""

    issuer: Issuer
    sellers: Mapping[str, tuple[str, KeyRing]]
    """Agent id and keys of each power plant, by its name in topics."""

    @property
    def now(self) -> Callable[[], datetime]:
        """Return the market's clock."""
        return self.issuer.now

    def command(self, vpp: str, purpose: str, data: dict[str, Json]) -> Command:
        """Return a signed command to a power plant; ``purpose`` is award or order."""
        type_, rest, subject = _COMMANDS[purpose]
        signed: dict[str, Json] = {**data, "seq": self.issuer.next_seq(), "audience": vpp}
        return self.issuer.command(type_, self.issuer.topic(vpp, rest), subject, signed)

    def read(self, topic: str, payload: bytes) -> tuple[str, Word]:
        """Return which power plant said what. Raises Defect for what is not its own signed word."""
        vpp = topic.split("/")[2] if topic.startswith("vpp/v1/") and topic.count("/") >= 3 else ""
        if vpp not in self.sellers:
            raise Defect(Reason.UNKNOWN_ISSUER, f"no power plant {vpp[:64]!r} takes part")
        return vpp, believed(payload, *self.sellers[vpp])

    def topics(self) -> list[str]:
        """Return what the market listens to."""
        return ["vpp/v1/+/bid/offer", self.issuer.topic("+", "receipt"), "vpp/v1/+/statement"]

"""What admission says of a message, and what it must know of earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vppd.core.bidding.bid import Offered
from vppd.grid.dsx_flex import Enforcement
from vppd.grid.reasons import Reason
from vppd.grid.vpp_v1 import Award, Regulation
from vppd.model import Obligation, Order, Outbound

COMMANDS = "command"
SIGNALS = "regulation"
"""Sequences of an issuer: orders and awards share one, regulation signals have their own."""


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a message; empty where it could not be read."""

    topic: str
    digest: str
    """SHA-256 of the whole payload."""
    protocol: str = ""
    type: str = ""
    issuer: str = ""
    """The issuer in the topic when it is a known one; proven only if ``authenticated``."""
    command_id: str = ""
    correlation_id: str = ""
    traceparent: str = ""
    authenticated: bool = False
    """The signature holds and its key belongs to ``issuer``."""
    jws_digest: str = ""
    """Digest of the signed data; empty unless authenticated."""
    order_id: str = ""
    """Order or award id that the sender chose; empty for DSX Flex."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message to be carried out: exactly one of the contents is there, and with an award what follows from it."""

    about: About
    orders: tuple[Order, ...] = ()
    """Of an award: the order that carries it out when it is a scheduled one."""
    regulation: Regulation | None = None
    award: Award | None = None
    obligation: Obligation | None = None
    """What the award obliges to."""
    enforcement: Enforcement | None = None
    seq: int | None = None

    @property
    def is_command(self) -> bool:
        """Say whether it must be on disk and receipted before it acts; signals and reports need not."""
        return bool(self.orders) or self.award is not None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A command we have: send the same receipts again and do nothing else."""

    about: About
    receipts: tuple[Outbound, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that changes nothing."""

    about: About
    reason: Reason
    sentence: str


Verdict = Accepted | Duplicate | Rejected


@dataclass(frozen=True, slots=True)
class Stored:
    """An earlier command as the ledger has it."""

    digest: str
    """SHA-256 of its payload."""
    live: bool
    """Not superseded, finished, aborted or expired; a release always is: sent again, it can do nothing."""
    receipts: tuple[Outbound, ...] = ()


class Seen(Protocol):
    """What the ledger knows of earlier messages.

    Only accepted commands may be answered from here, except by ``rejection``. The envelope is not signed, so a rejected
    message must block neither its id nor its signed data: anybody could spoil a good command by sending a bent copy first.
    """

    def command(self, issuer: str, command_id: str) -> Stored | None:
        """Return the accepted command of that issuer with that CloudEvents id."""
        ...

    def rejection(self, digest: str) -> Stored | None:
        """Return the authenticated command with exactly this payload that was rejected lately."""
        ...

    def has_signed(self, jws_digest: str) -> bool:
        """Say whether a command with this signed data was ever accepted."""
        ...

    def has_signal(self, jws_digest: str) -> bool:
        """Say whether a regulation signal with this signed data was taken lately; asked of those without seq or time."""
        ...

    def has_order(self, order_id: str) -> bool:
        """Say whether an order or award with this id was ever accepted, from whomever."""
        ...

    def offered(self, bid_id: str) -> Offered | None:
        """Return what was told to the market last of a bid, and how much of it has been awarded."""
        ...

    def winner(self, exclusive_group: str) -> str | None:
        """Return the bid of an exclusive group that has been awarded."""
        ...

    def last_seq(self, issuer: str, sequence: str) -> int | None:
        """Return the highest accepted seq of the issuer in COMMANDS or SIGNALS."""
        ...


@dataclass(frozen=True, slots=True)
class Conditions:
    """What stands against taking any order now."""

    clock_ok: bool = True
    hold: str = ""
    """Why no new orders are taken; empty when they are."""

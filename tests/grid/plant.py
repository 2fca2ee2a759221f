"""The plant's side in tests: what is pinned and granted, and a memory of earlier messages."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache

from tests.grid.dispatcher import NOW, Key
from vppd.core.bidding.bid import Offered
from vppd.grid.admit import admit
from vppd.grid.envelope import Sender
from vppd.grid.ids import SeededIds
from vppd.grid.receipts import receipts
from vppd.grid.signing import KeyRing, PinnedKey, Signer
from vppd.grid.site import Grant, Registry, Rules, Site
from vppd.grid.verdict import COMMANDS, SIGNALS, Accepted, Conditions, Rejected, Stored, Verdict
from vppd.model import Inbound, OrderKind

SITE = Site("dc1", "dc1-agent", ("main-a", "main-b"), ("ups-1", "cluster-1"))
ALL_KINDS = frozenset(OrderKind)


@cache
def key(kid: str) -> Key:
    """Return the key of that name, made once; a name with rsa in it stands for an RSA key."""
    return Key(kid, "RS256" if "rsa" in kid else "ES256")


def pinned(issuer: str, kid: str) -> PinnedKey:
    """Return the pinned public half of ``key(kid)``."""
    return PinnedKey.from_pem(issuer, kid, "RS256" if "rsa" in kid else "ES256", key(kid).public_pem())


@cache
def registry() -> Registry:
    """Return a plant that knows tso (everything up to 1 MW), a small aggregator and one without grants."""
    small = Grant("main-a", frozenset({OrderKind.REDUCE}), 50e3, 1e3, max_duration_s=3600.0)
    return Registry(
        SITE,
        KeyRing((pinned("tso", "tso-1"), pinned("tso", "tso-rsa"), pinned("agg", "agg-1"), pinned("nil", "nil-1"))),
        {"tso": (Grant("*", ALL_KINDS, 1e6),), "agg": (small,), "nil": ()},
    )


def with_awards() -> Registry:
    """Return the plant with awards enabled."""
    return replace(registry(), rules=Rules(awards_from="tso"))


@cache
def sender() -> Sender:
    """Return the plant's own voice."""
    return Sender("dc1", "dc1-agent", Signer.from_pem("dc1-2026", "ES256", key("dc1-2026").private_pem()), SeededIds(1))


@dataclass
class Memory:
    """A ``Seen`` that remembers as the ledger's projection does."""

    commands: dict[tuple[str, str], Stored] = field(default_factory=dict)
    rejections: dict[str, Stored] = field(default_factory=dict)
    signed: set[str] = field(default_factory=set)
    signals: set[str] = field(default_factory=set)
    orders: set[str] = field(default_factory=set)
    seqs: dict[tuple[str, str], int] = field(default_factory=dict)
    offers: dict[str, Offered] = field(default_factory=dict)
    winners: dict[str, str] = field(default_factory=dict)

    def command(self, issuer: str, command_id: str) -> Stored | None:
        """Return the accepted command with that id."""
        return self.commands.get((issuer, command_id))

    def rejection(self, digest: str) -> Stored | None:
        """Return the rejected command with that payload."""
        return self.rejections.get(digest)

    def has_signed(self, jws_digest: str) -> bool:
        """Say whether that signed data was accepted."""
        return jws_digest in self.signed

    def has_signal(self, jws_digest: str) -> bool:
        """Say whether that signal was taken."""
        return jws_digest in self.signals

    def has_order(self, order_id: str) -> bool:
        """Say whether that order id was used."""
        return order_id in self.orders

    def offered(self, bid_id: str) -> Offered | None:
        """Return what was offered."""
        return self.offers.get(bid_id)

    def winner(self, exclusive_group: str) -> str | None:
        """Return which bid of the group was awarded."""
        return self.winners.get(exclusive_group)

    def last_seq(self, issuer: str, sequence: str) -> int | None:
        """Return the highest seq."""
        return self.seqs.get((issuer, sequence))

    def learn(self, verdict: Verdict) -> None:
        """Take in a verdict."""
        about = verdict.about
        stored = Stored(about.digest, True, receipts(verdict, NOW, sender()))
        if isinstance(verdict, Rejected) and about.authenticated:
            self.rejections[about.digest] = stored
        if not isinstance(verdict, Accepted):
            return
        if verdict.regulation is not None:
            self.signals.add(about.jws_digest)
        if verdict.is_command:
            self.commands[about.issuer, about.command_id] = stored
            self.signed.add(about.jws_digest)
            self.orders |= {about.order_id} - {""}
        if verdict.seq is not None:
            self.seqs[about.issuer, COMMANDS if verdict.is_command else SIGNALS] = verdict.seq

    def close(self, issuer: str, command_id: str) -> None:
        """Note that the command's orders are over."""
        self.commands[issuer, command_id] = replace(self.commands[issuer, command_id], live=False)


def judge(
    message: Inbound,
    memory: Memory | None = None,
    *,
    plant: Registry | None = None,
    conditions: Conditions | None = None,
    later_s: float = 0.0,
) -> Verdict:
    """Return the verdict, and let ``memory`` learn it."""
    memory = Memory() if memory is None else memory
    verdict = admit(message, NOW + timedelta(seconds=later_s), plant or registry(), memory, conditions)
    memory.learn(verdict)
    return verdict

"""What the ledger's events add up to: a fold, so that a restart knows what the process before it knew.

Event kinds and their bodies:

stream ``orders``
    ``command_received`` {command_id, issuer, topic, protocol, verdict, reason, digest, jws_digest?, seq?, orders, award?, receipts}
    ``order_state`` {order_id, state: scheduled | active | completed | aborted, reason}
stream ``outbox``
    ``published`` {ref: id of the event whose receipts went out}
streams ``bids`` and ``statements``
    see ``trades``
stream ``setpoints``
    ``intent`` {intent_id, asset_id, power_w, cause}, ``outcome`` {intent_id, outcome, power_w, detail}
stream ``plant``
    ``operator`` {action: release | resume, by}, ``activation`` {order_id, at, base_w}

Any event may carry ``receipts``: [{topic, payload, qos?, retain?}], messages owed to the dispatcher. Unknown kinds
are left alone: a newer vppd may have written them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Self, TypeVar

from vppd.errors import Garbled
from vppd.ledger.trades import Trades
from vppd.model import Order, Outbound, Outcome, Recorded

K = TypeVar("K")

CLOSED = frozenset({"completed", "aborted"})
"""States in which an order asks for nothing any more."""


@dataclass(frozen=True, slots=True)
class Command:
    """One inbound command as it was answered; its receipts are in the event."""

    event_id: int
    issuer: str
    command_id: str
    verdict: str
    reason: str
    digest: str
    order_ids: tuple[str, ...]
    award_id: str = ""


@dataclass(frozen=True, slots=True)
class Activation:
    """When an order took effect, and the power it started from."""

    order_id: str
    at: datetime
    base_w: float


@dataclass(frozen=True, slots=True)
class Owed:
    """Messages of one event that the broker has not acknowledged yet."""

    event_id: int
    messages: tuple[Outbound, ...]


@dataclass(frozen=True, slots=True)
class OpenIntent:
    """The newest setpoint of an asset of which nobody knows whether the device took it."""

    event_id: int
    intent_id: str
    asset_id: str
    power_w: float | None
    """None: the asset was to be released. [W]"""
    cause: str


class Projection:
    """The state after some prefix of the ledger; ``fold`` moves it on, views of it are frozen."""

    def __init__(self) -> None:
        self.last_id = 0
        """The newest event that has been folded."""
        self.released = False
        """The operator has released the plant and not resumed."""
        self.trades = Trades()
        """What was offered and awarded."""
        self._orders: dict[str, Order] = {}
        self._states: dict[str, str] = {}
        self._activations: dict[str, Activation] = {}
        self._owed: dict[int, Owed] = {}
        self._seq: dict[str, int] = {}
        self._commands: dict[tuple[str, str], Command] = {}
        self._signed: dict[str, Command] = {}
        self._intents: dict[str, OpenIntent] = {}
        self._intent_of: dict[str, str] = {}
        self._folds: dict[tuple[str, str], Callable[[Recorded, Mapping[str, Any]], None]] = {
            ("orders", "command_received"): self._command_received,
            ("orders", "order_state"): self._order_state,
            ("bids", "offered"): self.trades.take_offer,
            ("bids", "revised"): self.trades.take_offer,
            ("bids", "withdrawn"): self.trades.take_offer,
            ("statements", "award"): self.trades.take_statement,
            ("statements", "statement"): self.trades.take_statement,
            ("outbox", "published"): self._published,
            ("setpoints", "intent"): self._intent,
            ("setpoints", "outcome"): self._outcome,
            ("plant", "operator"): self._operator,
            ("plant", "activation"): self._activation,
        }

    def fold(self, recorded: Recorded) -> Self:
        """Take one more event into account, in order; events seen before change nothing. Raises Garbled."""
        if recorded.id <= self.last_id:
            return self
        event = recorded.event
        try:
            fold = self._folds.get((event.stream, event.kind))
            if fold is not None:
                fold(recorded, event.body)
            self._owe(recorded, event.body.get("receipts") or ())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Garbled(f"ledger event {recorded.id} ({event.kind}) cannot be understood: {error!r}") from error
        self.last_id = recorded.id
        return self

    @property
    def orders(self) -> tuple[Order, ...]:
        """Accepted orders that have not been closed, in order of acceptance."""
        return tuple(self._orders.values())

    @property
    def states(self) -> Mapping[str, str]:
        """State of each open order by its id: accepted, scheduled or active."""
        return MappingProxyType(self._states)

    @property
    def activations(self) -> Mapping[str, Activation]:
        """Open orders that have taken effect, by id."""
        return MappingProxyType(self._activations)

    @property
    def outbox(self) -> tuple[Owed, ...]:
        """Messages still owed to the dispatcher, oldest first."""
        return tuple(self._owed.values())

    @property
    def open_intents(self) -> tuple[OpenIntent, ...]:
        """The newest intent of each asset that has no certain outcome: read the device before writing again."""
        return tuple(self._intents.values())

    def last_seq(self, issuer: str) -> int | None:
        """Return the highest sequence number accepted from ``issuer``."""
        return self._seq.get(issuer)

    def command(self, issuer: str, command_id: str) -> Command | None:
        """Return what ``issuer`` sent under this id: the accepted command if there is one, else the first."""
        return self._commands.get((issuer, command_id))

    def command_signed(self, jws_digest: str) -> Command | None:
        """Return the command with this signed part, whatever its envelope said: the accepted one, else the first."""
        return self._signed.get(jws_digest)

    def is_live(self, command: Command) -> bool:
        """Say whether any order of the command is still open; an award can do nothing twice, so it always is."""
        return bool(command.award_id) or any(order_id in self._orders for order_id in command.order_ids)

    def _owe(self, recorded: Recorded, receipts: Iterable[Mapping[str, Any]]) -> None:
        messages = tuple(
            Outbound(r["topic"], r["payload"].encode(), r.get("qos", 1), r.get("retain", False)) for r in receipts
        )
        if messages:
            self._owed[recorded.id] = Owed(recorded.id, messages)

    def _command_received(self, recorded: Recorded, body: Mapping[str, Any]) -> None:
        accepted = body["verdict"] == "accepted"
        orders = [Order.from_body(order) for order in body["orders"]] if accepted else []
        award = (body.get("award") if accepted else None) or {}
        command = Command(
            recorded.id,
            body["issuer"],
            body["command_id"],
            body["verdict"],
            body["reason"],
            body["digest"],
            tuple(order.order_id for order in orders),
            award.get("award_id", ""),
        )
        _remember(self._commands, (command.issuer, command.command_id), command)
        if body.get("jws_digest"):
            _remember(self._signed, body["jws_digest"], command)
        for order in orders:
            self._orders[order.order_id] = order
            self._states[order.order_id] = "accepted"
            self._count(order.issuer, order.seq)
        if award:
            self.trades.take_award(recorded, award)
            self._count(command.issuer, body.get("seq"))

    def _count(self, issuer: str, seq: int | None) -> None:
        """Raise the high-water mark of an issuer's sequence."""
        if seq is not None:
            self._seq[issuer] = max(seq, self._seq.get(issuer, seq))

    def _order_state(self, _: Recorded, body: Mapping[str, Any]) -> None:
        order_id, state = body["order_id"], body["state"]
        if state in CLOSED:
            for table in (self._orders, self._states, self._activations):
                table.pop(order_id, None)
        elif order_id in self._orders:
            self._states[order_id] = state

    def _published(self, _: Recorded, body: Mapping[str, Any]) -> None:
        self._owed.pop(body["ref"], None)

    def _intent(self, recorded: Recorded, body: Mapping[str, Any]) -> None:
        intent_id, asset_id = body["intent_id"], body["asset_id"]
        self._intents.pop(self._intent_of.get(asset_id, ""), None)
        self._intent_of[asset_id] = intent_id
        self._intents[intent_id] = OpenIntent(recorded.id, intent_id, asset_id, body["power_w"], body.get("cause", ""))

    def _outcome(self, _: Recorded, body: Mapping[str, Any]) -> None:
        if body["outcome"] != Outcome.UNKNOWN:
            self._intents.pop(body["intent_id"], None)

    def _operator(self, _: Recorded, body: Mapping[str, Any]) -> None:
        self.released = {"release": True, "resume": False}[body["action"]]

    def _activation(self, _: Recorded, body: Mapping[str, Any]) -> None:
        if body["order_id"] in self._orders:
            at = datetime.fromisoformat(body["at"])
            self._activations[body["order_id"]] = Activation(body["order_id"], at, body["base_w"])


def _remember(table: dict[K, Command], key: K, command: Command) -> None:
    """Keep the first command, but let an accepted one take the place of a rejected one: anybody can fake an id."""
    known = table.setdefault(key, command)
    if known.verdict != "accepted" and command.verdict == "accepted":
        table[key] = command


def project(events: Iterable[Recorded]) -> Projection:
    """Return what ``events`` add up to. Raises Garbled."""
    projection = Projection()
    for recorded in events:
        projection.fold(recorded)
    return projection

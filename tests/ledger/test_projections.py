"""The fold over the ledger: what a restart knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vppd.errors import Garbled
from vppd.ledger.projections import Activation, Owed, Projection, project
from vppd.ledger.sqlite import open_ledger
from vppd.model import Event, Interval, Order, OrderKind, Outbound, Outcome, Recorded

AT = datetime(2026, 7, 1, tzinfo=UTC)


class History:
    """Writes events down by their kind, numbered as a ledger would."""

    def __init__(self) -> None:
        self.events: list[Recorded] = []
        self._ids = count(1)

    def add(self, stream: str, kind: str, **body: Any) -> int:
        """Note an event and return its number."""
        self.events.append(Recorded(next(self._ids), Event(stream, kind, AT, body), ""))
        return self.events[-1].id

    def command(self, *orders: Order, verdict: str = "accepted", command_id: str = "c1", **more: Any) -> int:
        """Note a command of issuer tso."""
        body = {"issuer": "tso", "command_id": command_id, "verdict": verdict, "reason": "", "digest": "d"} | more
        return self.add("orders", "command_received", orders=[order.to_body() for order in orders], **body)

    def state(self, order_id: str, state: str) -> None:
        """Note a step in an order's life."""
        self.add("orders", "order_state", order_id=order_id, state=state, reason="")

    def sum(self) -> Projection:
        """Return what all of it adds up to."""
        return project(self.events)


def _order(order_id: str, seq: int | None = None) -> Order:
    return Order(order_id, "tso", OrderKind.LIMIT, "main-a", Interval(AT, AT + timedelta(hours=1)), 5e5, seq=seq)


@pytest.fixture
def history() -> History:
    """An empty history."""
    return History()


def test_an_empty_ledger_says_nothing() -> None:
    """Nothing is open, owed or known at the beginning."""
    empty = project([])
    assert (empty.orders, empty.outbox, empty.open_intents, empty.released) == ((), (), (), False)
    assert empty.last_seq("tso") is None
    assert empty.command("tso", "c1") is None


def test_accepted_orders_are_open_until_completed_or_aborted(history: History) -> None:
    """Orders come back equal and in order of acceptance; closed ones are gone."""
    a, b, c = _order("a"), _order("b"), _order("c")
    history.command(a, b)
    history.command(c, command_id="c2")
    history.state("a", "scheduled")
    history.state("b", "active")
    assert history.sum().orders == (a, b, c)
    assert history.sum().states == {"a": "scheduled", "b": "active", "c": "accepted"}
    history.state("a", "completed")
    history.state("c", "aborted")
    assert history.sum().orders == (b,)
    history.state("c", "active")
    assert history.sum().orders == (b,), "a late state does not open an order again"


def test_rejected_commands_open_nothing(history: History) -> None:
    """A rejected command is remembered with its reason, but asks for nothing and moves no sequence."""
    history.command(_order("a", seq=9), verdict="rejected", reason="expired")
    command = history.sum().command("tso", "c1")
    assert command is not None
    assert (command.verdict, command.reason, command.order_ids) == ("rejected", "expired", ())
    assert history.sum().orders == ()
    assert history.sum().last_seq("tso") is None


def test_the_highest_sequence_stays(history: History) -> None:
    """The high-water mark per issuer never falls, also when its orders are closed."""
    history.command(_order("a", seq=7))
    history.command(_order("b", seq=5), command_id="c2")
    history.state("a", "completed")
    assert history.sum().last_seq("tso") == 7
    assert history.sum().last_seq("other") is None


def test_a_command_is_live_while_an_order_of_it_is_open(history: History) -> None:
    """A duplicate of a live command is answered again, one of a closed command is a replay."""
    number = history.command(_order("a"), _order("b"), jws_digest="j")
    history.state("a", "completed")
    state = history.sum()
    command = state.command("tso", "c1")
    assert command is not None
    assert command == state.command_signed("j")
    assert command.event_id == number
    assert state.is_live(command)
    history.state("b", "completed")
    assert not history.sum().is_live(command)


@pytest.mark.parametrize("verdicts", [("rejected", "accepted"), ("accepted", "rejected")])
def test_a_faked_command_does_not_hide_the_real_one(history: History, verdicts: tuple[str, str]) -> None:
    """Under one id the accepted command is the one that is found, whichever came first."""
    for verdict in verdicts:
        history.command(_order("a"), verdict=verdict, digest=verdict, jws_digest="j")
    for command in (history.sum().command("tso", "c1"), history.sum().command_signed("j")):
        assert command is not None
        assert command.digest == "accepted"


def test_receipts_are_owed_until_published(history: History) -> None:
    """Any event may owe messages; they are owed, oldest first, until the broker has taken them."""
    first = history.command(receipts=[{"topic": "r", "payload": "1"}, {"topic": "r", "payload": "é"}])
    last = history.add("statements", "statement", receipts=[{"topic": "s", "payload": "2", "qos": 0, "retain": True}])
    owed = Owed(first, (Outbound("r", b"1"), Outbound("r", "é".encode())))
    assert history.sum().outbox == (owed, Owed(last, (Outbound("s", b"2", 0, retain=True),)))
    history.add("outbox", "published", ref=first)
    assert [owed.event_id for owed in history.sum().outbox] == [last]


def test_an_intent_is_open_until_its_outcome_is_certain(history: History) -> None:
    """Unknown is no outcome; a newer intent for the asset takes the place of the older."""
    for number, asset in enumerate(["ups-1", "ups-2", "ups-1"]):
        history.add("setpoints", "intent", intent_id=f"i{number}", asset_id=asset, power_w=-1e3 * number, cause="o")
    assert {intent.intent_id for intent in history.sum().open_intents} == {"i1", "i2"}
    history.add("setpoints", "outcome", intent_id="i1", outcome=Outcome.UNKNOWN.value, power_w=None, detail="")
    assert {intent.intent_id for intent in history.sum().open_intents} == {"i1", "i2"}
    history.add("setpoints", "outcome", intent_id="i1", outcome=Outcome.CONFIRMED.value, power_w=-1e3, detail="")
    history.add("setpoints", "outcome", intent_id="i0", outcome=Outcome.CONFIRMED.value, power_w=0.0, detail="late")
    assert [(i.intent_id, i.asset_id, i.power_w) for i in history.sum().open_intents] == [("i2", "ups-1", -2e3)]


def test_the_operators_release_outlives_a_restart(history: History) -> None:
    """Released stays released until the operator resumes."""
    history.add("plant", "operator", action="release", by="uid 1000")
    assert history.sum().released
    history.add("plant", "operator", action="resume", by="uid 1000")
    assert not history.sum().released


def test_an_activation_belongs_to_an_open_order(history: History) -> None:
    """The power an order started from is known while the order is open."""
    history.command(_order("a"))
    history.add("plant", "activation", order_id="a", at=AT.isoformat(), base_w=7.5e5)
    assert history.sum().activations == {"a": Activation("a", AT, 7.5e5)}
    history.state("a", "completed")
    assert history.sum().activations == {}


def test_unknown_kinds_are_left_alone(history: History) -> None:
    """A newer vppd may have written what this one does not know."""
    history.add("weather", "forecast", anything=1)
    assert history.sum().last_id == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("order_state", {"state": "active"}),
        ("command_received", {"verdict": "accepted"}),
        ("noted", {"receipts": ["nothing"]}),
    ],
)
def test_a_body_without_its_fields_is_garbled(history: History, kind: str, body: dict[str, Any]) -> None:
    """A fold that cannot be made names the event and stops."""
    history.add("orders", kind, **body)
    with pytest.raises(Garbled, match="event 1"):
        history.sum()


def test_views_cannot_be_changed(history: History) -> None:
    """Nobody changes the fold but the ledger."""
    history.command(_order("a"))
    with pytest.raises(TypeError):
        history.sum().states["a"] = "completed"  # type: ignore[index]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["open", "active", "completed"])), max_size=30))
def test_folding_on_equals_folding_from_the_start(steps: list[tuple[str, str]]) -> None:
    """Event by event, with every event seen twice, or all at once: the sum is the same."""
    history, running = History(), Projection()
    for number, (order_id, step) in enumerate(steps):
        if step == "open":
            history.command(_order(f"{order_id}{number}", seq=number), command_id=f"c{number}")
        else:
            history.state(f"{order_id}{number - 1}", step)
        running.fold(history.events[-1]).fold(history.events[-1])
    whole = history.sum()
    assert (running.orders, dict(running.states)) == (whole.orders, dict(whole.states))
    assert running.last_seq("tso") == whole.last_seq("tso")


async def test_a_restart_adds_up_what_the_file_holds(tmp_path: Path) -> None:
    """Through the real ledger the fold gives the same orders, and catches up from where it was."""
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        body = {"issuer": "tso", "command_id": "c", "verdict": "accepted", "reason": "", "digest": "d"}
        await ledger.append(Event("orders", "command_received", AT, body | {"orders": [_order("a", 3).to_body()]}))
        state = project(ledger.events())
        assert [order.order_id for order in state.orders] == ["a"]
        done = {"order_id": "a", "state": "completed", "reason": "end"}
        await ledger.append(Event("orders", "order_state", AT, done))
        for recorded in ledger.events(after=state.last_id):
            state.fold(recorded)
        assert [len(state.orders), state.last_seq("tso"), state.last_id] == [0, 3, 2]

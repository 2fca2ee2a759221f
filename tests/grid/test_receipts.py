"""Who is told what about a command."""

from __future__ import annotations

import json
from typing import Any

from tests.grid.dispatcher import NOW, TRACE, Key, event, inbound, order_data, signal_data, targets, watts
from tests.grid.plant import Memory, judge, key, sender
from tests.grid.schemas import check
from tests.grid.test_admit import accepted, load_target, order, signal
from vppd.grid.receipts import receipts
from vppd.grid.verdict import Conditions, Verdict
from vppd.model import Inbound


def answered(verdict: Verdict) -> list[dict[str, Any]]:
    """Return the data of the receipts, each checked against its schema."""
    return [check(message) for message in receipts(verdict, NOW, sender())]


def test_an_accepted_order_has_received_then_accepted() -> None:
    """Both carry the command's id, digest, correlation and trace, on the issuer's own topic."""
    message = order(data := order_data())
    content = json.loads(message.payload)
    messages = receipts(judge(message), NOW, sender())
    first, second = (check(m) for m in messages)
    assert (first["status"], second["status"]) == ("received", "accepted")
    assert {m.topic for m in messages} == {"vpp/v1/dc1/issuer/tso/receipt"}
    assert all(m.qos == 1 and not m.retain for m in messages)
    assert second["command_id"] == content["id"]
    assert second["order_id"] == data["order_id"]
    assert second["order_ids"] == [data["order_id"]]
    envelope = json.loads(messages[0].payload)
    assert envelope["correlationid"] == content["correlationid"]
    assert envelope["traceparent"].split("-")[1] == TRACE.split("-")[1]


def test_a_load_target_is_receipted_too() -> None:
    """DSX Flex has no answer of its own; ours names the orders it became."""
    verdict = accepted(judge(load_target(correlationid=None)))
    _, second = answered(verdict)
    assert second["order_ids"] == [o.order_id for o in verdict.orders]
    assert second["correlation_id"] == second["command_id"]
    assert "order_id" not in second


def test_a_long_list_of_orders_is_left_out() -> None:
    """A receipt stays small."""
    entry = {"interval": {}, "load_constraint": watts(5)}
    verdict = accepted(judge(load_target(targets(*[entry] * 40))))
    assert len(verdict.orders) == 80
    assert "order_ids" not in answered(verdict)[1]


def test_a_refused_order_has_received_then_rejected_with_the_reason() -> None:
    """The reason is a code and a sentence."""
    first, second = answered(judge(order(), conditions=Conditions(hold="starting")))
    assert (first["status"], second["status"], second["reason"]) == ("received", "rejected", "hold")
    assert "reason" not in first
    assert second["detail"] == "no new orders are taken now: starting"


def test_nobody_is_told_that_a_forgery_was_received() -> None:
    """Without a proven signature there is a rejection only, with the digest of the forged bytes."""
    message = load_target(jws=Key("x").jws(targets(), kid="tso-1"))
    (only,) = answered(verdict := judge(message))
    assert (only["status"], only["reason"]) == ("rejected", "bad_signature")
    assert only["command_digest"] == verdict.about.digest


def test_garbage_is_answered_to_the_issuer_of_the_topic() -> None:
    """A message without a readable id is named by its digest."""
    (only,) = answered(judge(inbound("vpp/v1/dc1/issuer/tso/order/set", b"garbage")))
    assert only["reason"] == "malformed"
    assert "command_id" not in only


def test_an_unknown_issuer_is_not_answered() -> None:
    """There is no topic of somebody we do not know."""
    stranger = event("grid.loadtarget.set.v1", key("tso-1").jws(targets()))
    assert receipts(judge(inbound("grid/v1/isv/evil/loadtarget/set", stranger)), NOW, sender()) == ()


def test_a_retained_command_is_answered() -> None:
    """The reject reason is always published."""
    message = load_target()
    (only,) = answered(judge(Inbound(message.topic, message.payload, 1, True)))
    assert only["reason"] == "retained"


def test_signals_are_answered_only_when_refused() -> None:
    """A signal every two seconds needs no receipt."""
    assert answered(judge(signal(signal_data()))) == []
    assert answered(judge(signal(signal_data(signal=2))))[-1]["reason"] == "bad_power"


def test_a_duplicate_gets_the_stored_receipts_byte_for_byte() -> None:
    """Nothing is signed anew for a command we have."""
    memory, message = Memory(), order()
    judge(message, memory)
    first = next(iter(memory.commands.values())).receipts
    assert receipts(judge(message, memory), NOW, sender()) == first

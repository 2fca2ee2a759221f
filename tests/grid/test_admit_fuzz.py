"""Damaged and invented messages: never taken for what they are not, and never an exception."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.grid.dispatcher import LOAD_TARGET_TOPIC, ORDER_TOPIC, order_data, targets, watts, when
from tests.grid.plant import Memory, judge, key
from tests.grid.test_admit import load_target, order
from vppd.grid.verdict import Accepted, Duplicate, Rejected
from vppd.model import Inbound, Order

TOPICS = (LOAD_TARGET_TOPIC, ORDER_TOPIC, "vpp/v1/dc1/issuer/tso/regulation", "vpp/v1/dc1/issuer/tso/bid/award")
MESSAGES = {
    "dsx": load_target(targets({"interval": {"end_time": when(3600)}, "load_constraint": watts(4e5)})),
    "dsx rsa": load_target(kid="tso-rsa"),
    "vpp": order(order_data(ramp_s=30, priority=50, product="afrr")),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def essence(orders: tuple[Order, ...]) -> list[tuple[Any, ...]]:
    """Return what the plant would do, without the names the unsigned envelope gives."""
    return [(o.issuer, o.kind, o.resource, o.interval.end, o.power_w, o.ramp_s, o.priority, o.seq) for o in orders]


def flipped(message: Inbound, position: int, bit: int) -> Inbound:
    """Return the message with one bit of its payload turned over."""
    raw = bytearray(message.payload)
    raw[position] ^= 1 << bit
    return Inbound(message.topic, bytes(raw), message.qos, False)


def test_no_single_flipped_bit_is_taken_after_the_original() -> None:
    """Every bit of every byte: with the original in the ledger, no damaged copy is accepted or even called a duplicate."""
    for name in ("dsx", "vpp"):
        message, memory = MESSAGES[name], Memory()
        judge(message, memory)
        for position in range(len(message.payload)):
            for bit in range(8):
                verdict = judge(flipped(message, position, bit), _Frozen(memory))
                assert isinstance(verdict, Rejected), (name, position, bit, verdict)


def test_a_flipped_bit_on_first_sight_never_changes_what_is_ordered() -> None:
    """The envelope is not signed, so a copy with another id may come first - but it can order nothing else."""
    for name, message in MESSAGES.items():
        original = judge(message)
        assert isinstance(original, Accepted)
        start = message.payload.index(b'"data": "') + 9
        for position in range(len(message.payload)):
            verdict = judge(flipped(message, position, position % 8))
            if isinstance(verdict, Accepted):
                assert position < start, (name, position)
                assert essence(verdict.orders) == essence(original.orders)


class _Frozen(Memory):
    """A memory that learns nothing, so that each damaged copy meets the original alone."""

    def __init__(self, other: Memory) -> None:
        super().__init__(other.commands, other.rejections, other.signed, other.signals, other.orders, other.seqs)

    def learn(self, verdict: object) -> None:
        """Forget it."""


@given(payload=st.binary(max_size=400), topic=st.sampled_from(TOPICS))
def test_noise_is_rejected(payload: bytes, topic: str) -> None:
    """Bytes that nobody signed are rejected, whatever they are."""
    assert isinstance(judge(Inbound(topic, payload, 1, False)), Rejected)


@given(content=JSON, topic=st.sampled_from(TOPICS))
def test_invented_json_is_rejected(content: Any, topic: str) -> None:
    """Well-formed JSON of any shape is rejected without an exception."""
    assert isinstance(judge(Inbound(topic, json.dumps(content).encode(), 1, False)), Rejected)


@given(name=st.sampled_from(sorted(json.loads(MESSAGES["dsx"].payload))), value=JSON)
def test_an_envelope_with_any_value_in_any_place_raises_nothing(name: str, value: Any) -> None:
    """One attribute replaced by anything at all gives a verdict."""
    content = {**json.loads(MESSAGES["dsx"].payload), name: value}
    verdict = judge(Inbound(LOAD_TARGET_TOPIC, json.dumps(content).encode(), 1, False))
    assert isinstance(verdict, Accepted | Rejected | Duplicate)


@given(name=st.sampled_from(sorted(order_data())), value=JSON)
def test_signed_data_with_any_value_in_any_place_raises_nothing(name: str, value: Any) -> None:
    """A dispatcher that is broken, but signs properly, gets a verdict."""
    data = {**order_data(), name: value}
    verdict = judge(order(data))
    if isinstance(verdict, Accepted):
        assert verdict.orders[0].power_w is None or 0.0 <= verdict.orders[0].power_w <= 1e6


@settings(max_examples=50)
@given(data=JSON)
def test_signed_data_of_any_shape_raises_nothing(data: Any) -> None:
    """The same for data that is no order at all."""
    for message in (load_target(jws=key("tso-1").jws(data)), order(None if data is None else {"x": data})):
        assert not isinstance(judge(message), Duplicate)

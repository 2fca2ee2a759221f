"""Canonical records and the links between them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vppd.errors import Garbled
from vppd.ledger.chain import GENESIS, event_of, link, record_of
from vppd.model import Event

AT = datetime(2026, 7, 1, 12, 0, 0, 250_000, tzinfo=UTC)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcé", max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(body=st.dictionaries(st.text("abcdé", max_size=4), PLAIN, max_size=4), key=st.text("ab/", max_size=5))
def test_an_event_comes_back_as_it_went_in(body: dict[str, object], key: str) -> None:
    """Record and event are two forms of the same thing, for every plain JSON body."""
    event = Event("orders", "command_received", AT, body, key)
    assert event_of(record_of(event)) == event
    assert record_of(event_of(record_of(event))) == record_of(event)


def test_the_order_of_keys_does_not_matter() -> None:
    """Equal events have equal bytes."""
    first, second = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    assert record_of(Event("s", "k", AT, first)) == record_of(Event("s", "k", AT, second))


def test_a_link_is_the_documented_hash() -> None:
    """Anybody can check a chain with SHA-256 alone."""
    assert link(GENESIS, b"abc") == hashlib.sha256(bytes(32) + b"\0\0\0\0\0\0\0\x03" + b"abc").digest()


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(Event("s", "k", AT, {"power_w": float("nan")}), id="nan"),
        pytest.param(Event("s", "k", AT, {"power_w": float("inf")}), id="infinity"),
        pytest.param(Event("s", "k", AT.replace(tzinfo=None)), id="naive-time"),
        pytest.param(Event("s", "k", AT, {"at": AT}), id="not-json"),
    ],
)
def test_what_json_cannot_hold_is_a_bug_of_the_caller(event: Event) -> None:
    """NaN, naive times and objects never reach the file."""
    with pytest.raises((ValueError, TypeError)):
        record_of(event)


@pytest.mark.parametrize("record", [b"", b"\xff", b"[]", b"{}", b'{"at":1,"body":{},"key":"","kind":"","stream":""}'])
def test_an_unreadable_record_is_garbled(record: bytes) -> None:
    """A record that nobody of us wrote is refused as such."""
    with pytest.raises(Garbled):
        event_of(record)

"""Recorded frames are written quickly, and to the byte as they always were."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vppd.core.state import Phase, Progress
from vppd.model import Interval, Order, OrderKind
from vppd.runtime import encoding
from vppd.runtime.encoding import Encoder
from vppd.runtime.record import decode, encode
from vppd.snapshot import Health, Snapshot
from vppd.testing.cycles import START, World

ENUMS: Mapping[str, type[Enum]] = {"OrderKind": OrderKind, "Phase": Phase}
LATER = {"Late": frozenset({"b", "c"})}


@dataclass(frozen=True)
class Late:
    """A type that got fields later."""

    a: object = None
    b: object = None
    c: object = None


def encoder() -> Encoder:
    """Return an encoder of the test's own."""
    return Encoder(ENUMS, LATER, kept=(Order, Progress))


def tagged(value: object, arrays: list[NDArray[Any]]) -> Any:
    """Return what frames are made of, said as plainly as possible."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"$a": [value.dtype.str, list(value.shape)]}
    if isinstance(value, datetime):
        return {"$t": value.isoformat()}
    if isinstance(value, Enum):
        name = type(value).__name__
        return {"$e": [name, value.value]} if name in ENUMS else value.value
    if isinstance(value, tuple):
        return {"$l": [tagged(one, arrays) for one in value]}
    if isinstance(value, Mapping):
        return {"$m": [[key, tagged(one, arrays)] for key, one in sorted(value.items())]}
    if isinstance(value, np.generic):
        return value.item()
    if not is_dataclass(value):
        return value
    found = [(field.name, getattr(value, field.name)) for field in fields(value)]
    while found and found[-1][0] in LATER.get(type(value).__name__, ()) and found[-1][1] is None:
        found.pop()
    return {"$d": type(value).__name__, "f": [tagged(one, arrays) for _, one in found]}


def order(number: int) -> Order:
    """Return an order that is equal to no other."""
    return Order(f"order-{number}", "tso", OrderKind.LIMIT, "dc1", Interval(START), 1e3 * number)


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.datetimes(timezones=st.just(UTC)),
    st.sampled_from([*OrderKind, *Phase]), st.integers(0, 2**40).map(np.int64), st.floats().map(np.float64),
    st.booleans().map(np.bool_), st.integers(0, 3).map(lambda n: np.arange(2.0 * n).reshape(2, n)),
    st.integers(0, 9).map(order), st.integers(0, 9).map(lambda n: Progress(Phase.ACTIVE, START, float(n))),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(), inner, max_size=4).map(MappingProxyType),
        st.builds(Late, inner, inner, inner),
    ),
    max_leaves=20,
)


@given(st.lists(VALUES, max_size=5))
def test_it_is_to_the_byte_what_it_would_be_said_plainly(values: list[object]) -> None:
    """Whatever is written, in whatever order, with whatever has been kept: text and arrays are those of the plain way."""
    writes = encoder()
    for value in [*values, *values]:
        arrays: list[NDArray[Any]] = []
        plainly: list[NDArray[Any]] = []
        assert writes.text(value, arrays) == json.dumps(tagged(value, plainly), separators=(",", ":"))
        assert [a.tobytes() for a in arrays] == [a.tobytes() for a in plainly]


def test_a_snapshot_comes_back_as_it_was() -> None:
    """A plant with orders under way, once and once more: the second time most of it is known."""
    world = World()
    world.step(5)
    for k in range(3):
        world.order(OrderKind.LIMIT, "main-a", 300e3 + k)
    for _ in range(3):
        snapshot = Snapshot(
            world.at, world.mono_s, world.readings.copy(), tuple(world.orders), health=Health(ready=True)
        )
        for value in (snapshot, world.step()):
            again = decode(encode(value))
            assert encode(again) == encode(value)
        assert decode(encode(snapshot)).orders == snapshot.orders


def test_an_object_in_the_place_of_another_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is known by its identity, and identities come again: thousands of orders live and die in the same memory."""
    monkeypatch.setattr(encoding, "KEPT_MOST", 10)
    writes = encoder()
    for k in range(1_000):
        assert f'"order-{k}"' in writes.text(order(k), [])


def test_what_is_kept_is_bounded_and_what_is_used_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site that runs for months writes many orders; those that are open are known all the time."""
    monkeypatch.setattr(encoding, "KEPT_MOST", 10)
    writes, open_order = encoder(), order(0)
    first = writes.text(open_order, [])
    for k in range(1, 1_000):
        writes.text(order(k), [])
        assert writes.text(open_order, []) is first, "it was written again"
        assert writes.kept <= 20


def test_a_change_is_another_object_and_is_written() -> None:
    """Frozen values change by being replaced."""
    writes, before = encoder(), Progress(Phase.ACTIVE, datetime(2026, 1, 1, tzinfo=UTC), 5.0)
    assert writes.text(before, []) != writes.text(replace(before, start_w=6.0), [])

"""The garbage collector leaves the daemon's own objects alone, and forgets them again when asked."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from vppd.runtime.memory import settle_memory


class Ring:
    """An object that only a collection can free."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """Leave the collector as it was."""
    yield
    gc.unfreeze()


def test_what_lives_is_left_out_of_later_collections() -> None:
    """After settling, the oldest generation is as good as empty."""
    kept = [Ring() for _ in range(10_000)]
    settle_memory()
    assert gc.get_freeze_count() >= len(kept)
    assert len(gc.get_objects(generation=2)) < len(kept)


def test_settling_again_frees_what_died_meanwhile() -> None:
    """Rings that were alive at the first settling and died since are collected at the second."""
    ring = Ring()
    seen = weakref.ref(ring)
    settle_memory()
    del ring
    gc.collect()
    assert seen() is not None
    settle_memory()
    assert seen() is None

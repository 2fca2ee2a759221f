"""The register layouts are SunSpec's, and what is not implemented says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sunspec2

from vppd.sim.sunspec import LAYOUTS, Bank

MODELS = Path(sunspec2.__file__).parent / "models" / "json"
TYPES = {
    "i16": {"int16"},
    "u16": {"uint16", "raw16", "count"},
    "e16": {"enum16"},
    "b16": {"bitfield16"},
    "sf": {"sunssf"},
    "pad": {"pad"},
    "i32": {"int32"},
    "u32": {"uint32"},
    "b32": {"bitfield32"},
    "acc32": {"acc32"},
    "u64": {"uint64"},
}


def published(model: int) -> list[dict[str, Any]]:
    """Return the points of a published model after ID and L, groups flattened once."""
    group = json.loads((MODELS / f"model_{model}.json").read_text())["group"]
    points: list[dict[str, Any]] = [*group["points"][2:]]
    for inner in group.get("groups", []):
        points += inner["points"]
    return points


def laid_out(model: int) -> list[tuple[str, str]]:
    """Return name (empty for a filler) and type of each point of our layout."""
    entries = []
    for entry in LAYOUTS[model].split():
        name, _, kind = entry.rpartition(":")
        times, _, kind = kind.rpartition("*")
        entries += [(name, kind)] * int(times or 1)
    return entries


@pytest.mark.parametrize("model", sorted(LAYOUTS))
def test_layouts_are_the_published_ones(model: int) -> None:
    """Every point stands where the published model has it, with its type and size."""
    theirs, ours = published(model), laid_out(model)
    assert len(ours) == len(theirs)
    for point, (name, kind) in zip(theirs, ours, strict=True):
        assert name in ("", point["name"])
        if kind.startswith("str"):
            assert (point["type"], point["size"]) == ("string", int(kind[3:]))
        else:
            assert point["type"] in TYPES[kind]


def test_a_bank_is_one_chain_from_marker_to_end() -> None:
    """The marker, each model with its length, the end marker: nothing between."""
    bank = Bank((1, 203))
    data = bank.read(0, len(bank))
    assert data[:8] == b"SunS\x00\x01\x00\x42"
    assert data[2 * 70 : 2 * 70 + 4] == b"\x00\xcb\x00\x69"
    assert data[-4:] == b"\xff\xff\x00\x00"
    assert len(bank) == 2 + 68 + 107 + 2


def test_numbers_and_texts_come_back() -> None:
    """What is put in a bank is read from it."""
    bank = Bank((1, 704))
    bank.put(704, WSet=-12345, WSetEna=1)
    bank.put_text(1, Mn="vppd")
    assert (bank.get(704, "WSet"), bank.get(704, "WSetEna")) == (-12345, 1)
    assert bank.read(bank.point(1, "Mn").offset // 2, 16).rstrip(b"\0") == b"vppd"

"""What was done to an object, kept on the object itself: written in the same patch as the change, so that any later process restores it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters._k8s_kinds import Body, Fields, Thing, at, merged
from adapters._k8s_time import parsed_s, text
from vppd.errors import Garbled

HELD = "vpp.held"
"""Annotation with the prior state; also a label, by which an object is found that has lost its tier meanwhile."""
RESTS = "vpp.rests-until"
"""Annotation: not to be paused again before."""
_SLASH = "/metadata/annotations/"


@dataclass(frozen=True, slots=True)
class Held:
    """The prior state of one object."""

    was: Fields
    """What the fields were. JSON pointer -> value, None where there was none."""
    wrote: Fields
    """What we wrote instead."""
    since_s: float
    """When, by the server's clock. [s since 1970]"""
    by: str
    load: Mapping[str, int] = field(default_factory=dict)
    """GPUs, thousandths of CPUs, and pods that it had."""

    def written(self) -> str:
        """Return what the annotation holds."""
        body = {"was": self.was, "set": self.wrote, "since": text(self.since_s), "by": self.by, "load": self.load}
        return json.dumps(body, separators=(",", ":"), sort_keys=True)


def held(thing: Thing) -> Held | None:
    """Return the prior state of an object that is held, None when it is not. Raises Garbled."""
    note = thing.annotations.get(HELD)
    if note is None:
        return None
    try:
        body = json.loads(note)
        load = {str(k): int(v) for k, v in body["load"].items()}
        return Held(dict(body["was"]), dict(body["set"]), _since_s(body["since"]), str(body["by"]), load)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Garbled(f"{thing.key}: its annotation {HELD} cannot be read") from error


def hold(thing: Thing, fields: Fields, now_s: float, by: str, load: Mapping[str, int]) -> dict[str, Any] | None:
    """Return the patch that holds an object with these fields, None when it is so already. Raises Garbled.

    The patch names the object's version: when somebody has changed the object meanwhile, the server answers with a conflict.
    """
    before = held(thing)
    if before is not None and dict(before.wrote) == dict(fields) and in_force(thing.body, fields):
        return None
    # A field that somebody has changed since is theirs: what they wrote is what is to come back.
    kept = {p: v for p, v in before.was.items() if at(thing.body, p) == before.wrote[p]} if before else {}
    was = {pointer: kept.get(pointer, at(thing.body, pointer)) for pointer in fields}
    since_s, load = (before.since_s, before.load) if before and kept else (now_s, load)
    note = Held(was, fields, since_s, by, load)
    undone = {p: v for p, v in kept.items() if p not in fields}
    return _patch(thing, {**undone, **fields}, note.written(), "true")


def restore(thing: Thing, rests_until: str = "") -> dict[str, Any] | None:
    """Return the patch that gives an object back, None when it is not held. Raises Garbled.

    A field that is no longer what we wrote is somebody's own decision: it stays as it is.
    """
    before = held(thing)
    if before is None:
        return {"metadata": {"labels": {HELD: None}}} if HELD in thing.labels else None
    fields = {p: before.was.get(p) for p, value in before.wrote.items() if at(thing.body, p) == value}
    patch = _patch(thing, fields, None, None)
    if rests_until:
        patch["metadata"]["annotations"][RESTS] = rests_until
    return patch


def is_overridden(thing: Thing) -> bool:
    """Say whether somebody else has decided otherwise about an object that we hold. Raises Garbled."""
    before = held(thing)
    return before is not None and not in_force(thing.body, before.wrote)


def in_force(body: Body, fields: Fields) -> bool:
    """Say whether all fields are as they should be."""
    return not missing(body, fields)


def missing(body: Body, fields: Fields) -> str:
    """Return which field is not as it should be, empty when all are."""
    for pointer, value in fields.items():
        if at(body, pointer) != value:
            name = pointer.removeprefix(_SLASH).replace("~1", "/").strip("/").replace("/", ".")
            return f"{name} reads back {json.dumps(at(body, pointer))}, not {json.dumps(value)}"
    return ""


def _since_s(written: str) -> float:
    """Return when. [s since 1970] Raises ValueError."""
    since_s = parsed_s(written)
    if since_s < 0.0:
        raise ValueError(f"{written!r} is no time")
    return since_s


def _patch(thing: Thing, fields: Fields, note: str | None, label: str | None) -> dict[str, Any]:
    patch = merged(fields)
    metadata = patch.setdefault("metadata", {})
    metadata["resourceVersion"] = str(thing.body["metadata"]["resourceVersion"])
    metadata.setdefault("annotations", {})[HELD] = note
    metadata.setdefault("labels", {})[HELD] = label
    return patch

"""JSON as two honest programs would both read it: anything ambiguous is refused, and the size of everything is bounded."""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn

from vppd.grid.reasons import Defect, Reason

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
"""A JSON value."""

MAX_DEPTH = 8
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_LONGEST_NUMBER = 32


def parse_object(raw: bytes, max_depth: int = MAX_DEPTH) -> dict[str, Json]:
    """Return the one JSON object in ``raw``.

    Raises Defect (malformed) for bad UTF-8, duplicate keys, NaN or infinity, numbers beyond a double, lone surrogates,
    control characters and nesting deeper than ``max_depth``.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Defect(Reason.MALFORMED, f"byte {error.start} is not UTF-8") from error
    _check_depth(text, max_depth)
    try:
        value: Json = json.loads(
            text,
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except json.JSONDecodeError as error:
        raise Defect(Reason.MALFORMED, f"is not JSON: {error.msg} at character {error.pos}") from error
    if not isinstance(value, dict):
        raise Defect(Reason.MALFORMED, "is not a JSON object")
    _check_text(value)
    return value


def dump(value: Json) -> bytes:
    """Return ``value`` as compact UTF-8 JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


def _check_depth(text: str, max_depth: int) -> None:
    depth = 0
    for sign in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if sign in "[{" else -1
        if depth > max_depth:
            raise Defect(Reason.MALFORMED, f"is nested deeper than {max_depth} levels")


def _check_text(value: Json) -> None:
    if isinstance(value, str):
        if not value.isascii() and any(0xD800 <= ord(sign) <= 0xDFFF for sign in value):
            raise Defect(Reason.MALFORMED, "holds a lone surrogate")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key)
            _check_text(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_text(inner)


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Defect(Reason.MALFORMED, "has the same key twice in one object")
    return found


def _no_constant(word: str) -> NoReturn:
    raise Defect(Reason.MALFORMED, f"holds {word}, which is not JSON")


def _finite(digits: str) -> float:
    value = float(digits) if len(digits) <= _LONGEST_NUMBER else math.inf
    if not math.isfinite(value):
        raise Defect(Reason.MALFORMED, "holds a number beyond the range of a double")
    return value


def _whole(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise Defect(Reason.MALFORMED, "holds a number beyond the range of a double")
    return int(digits)

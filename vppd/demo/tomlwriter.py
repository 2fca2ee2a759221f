"""Plain values as TOML: just enough for the file that the demo writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

Value = str | bool | int | float | Sequence["Value"] | Mapping[str, "Value"]


def dump(document: Mapping[str, Value]) -> str:
    """Return ``document`` as TOML; lists of tables become ``[[...]]``, tables within them stay inline."""
    return "\n".join(_table("", document)).strip() + "\n"


def _table(path: str, table: Mapping[str, Value]) -> list[str]:
    """Return a table's own keys first, then the tables below it, as TOML asks for."""
    own = [f"{_key(k)} = {_inline(v)}" for k, v in table.items() if not _below(v)]
    lines = ["", f"[{path}]", *own] if path and (own or not table) else own
    for key, value in table.items():
        name = f"{path}.{_key(key)}" if path else _key(key)
        if isinstance(value, Mapping):
            lines += _table(name, value)
        elif _below(value):
            lines += _tables(name, value)
    return lines


def _tables(path: str, entries: Value) -> list[str]:
    lines: list[str] = []
    assert isinstance(entries, Sequence)
    for entry in entries:
        assert isinstance(entry, Mapping)
        lines += ["", f"[[{path}]]"]
        lines += [f"{_key(k)} = {_inline(v)}" for k, v in entry.items() if not _is_list_of_tables(v)]
        for key, value in entry.items():
            if _is_list_of_tables(value):
                lines += _tables(f"{path}.{_key(key)}", value)
    return lines


def _below(value: Value) -> bool:
    return isinstance(value, Mapping) or _is_list_of_tables(value)


def _is_list_of_tables(value: Value) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and bool(value)
        and all(isinstance(entry, Mapping) for entry in value)
    )


def _inline(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_inline(v)}" for k, v in value.items()) + " }"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return repr(value)


def _key(key: str) -> str:
    return (
        key
        if key.replace("-", "").replace("_", "").isalnum() and key.isascii()
        else json.dumps(key, ensure_ascii=False)
    )

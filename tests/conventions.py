"""House rules that no linter knows, as functions from source text to findings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

UNITS = (
    "_w", "_wh", "_ws", "_w_per_s", "_per_w", "_per_wh", "_w2", "_va", "_var", "_v", "_a", "_ah", "_hz", "_s", "_per_s",
    "_h", "_days", "_c", "_frac", "_bar", "_m3", "_kg", "_g", "_g_per_wh", "_per_g", "_per_t", "_g_per_kwh",
    "_per_mwh", "_j",
)  # fmt: skip
"""Endings a float's name may have. ``_h`` and ``_g_per_wh``, ``_per_t`` are for markets and carbon."""

EDGE_UNITS = ("_ms", "_us", "_kw", "_mw", "_kwh", "_mwh", "_pct")
"""Further endings at the edge, in adapters: what a device or a message says, before it is converted."""

EXACT = frozenset(
    {
        "value",
        "scale",
        "offset",
        "signal",
        "share",
        "factor",
        "weight",
        "probability",
        "lower",
        "upper",
        "gauss",
        "speed",
        "gpus",
        "cpus",
        "replicas",
        "worth",
        "bound",
        "cost",
        "pinball",
    }
)
"""Whole names of floats that have no unit (a ratio, a signal) or whose unit travels beside them."""

CLOCK_CALLS = frozenset(
    {
        "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.perf_counter_ns",
        "time.sleep", "time.localtime", "time.gmtime", "datetime.now", "datetime.utcnow", "datetime.today", "date.today",
        "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.date.today",
    }
)  # fmt: skip
BAD_FILE_WORDS = ("utils", "util", "helpers", "helper", "manager", "base")
BROAD = frozenset({"Exception", "BaseException"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One breach of a rule and where it is."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def unitless_floats(path: str, source: str) -> list[Finding]:
    """Return float fields and arguments whose name tells no unit."""
    return [
        Finding(path, node.lineno, f"float {name!r} has no unit in its name")
        for node, name, annotation in _annotated(ast.parse(source))
        if _holds_float(annotation) and not _has_unit(name, edge=path.startswith("adapters/"))
    ]


def clock_calls(path: str, source: str) -> list[Finding]:
    """Return uses of the wall or monotonic clock by module functions, called or passed on."""
    tree = ast.parse(source)
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime")
        for alias in node.names
    }
    renamed = {
        alias.asname: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.asname and alias.name in ("time", "datetime")
    }
    names = imported | renamed
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            first, _, rest = ast.unparse(node).partition(".")
            called = names.get(first, first) + ("." + rest if rest else "")
            if called in CLOCK_CALLS:
                found.append(Finding(path, node.lineno, f"{called} outside runtime/clock.py"))
    return found


def broad_excepts(path: str, source: str) -> list[Finding]:
    """Return handlers that catch everything."""
    return [
        Finding(path, node.lineno, "broad except")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ExceptHandler) and (node.type is None or BROAD & _names(node.type))
    ]


def prints(path: str, source: str) -> list[Finding]:
    """Return calls of print()."""
    return [
        Finding(path, node.lineno, "print")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def long_bodies(path: str, source: str, at_most: int = 40) -> list[Finding]:
    """Return functions whose body, without its docstring, has more lines than allowed."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if lines > at_most:
                found.append(Finding(path, node.lineno, f"{node.name} has {lines} lines, at most {at_most}"))
    return found


def bad_file_name(path: Path) -> bool:
    """Say whether a module is named after nothing in particular."""
    return bool(set(path.stem.strip("_").lower().split("_")) & set(BAD_FILE_WORDS))


def _annotated(tree: ast.AST) -> Iterator[tuple[ast.AnnAssign | ast.arg, str, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name | ast.Attribute):
            name = node.target.id if isinstance(node.target, ast.Name) else node.target.attr
            yield node, name, node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            for arg in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                if arg.annotation is not None:
                    yield arg, arg.arg, arg.annotation


def _holds_float(annotation: ast.expr) -> bool:
    """Say whether the annotation is float, perhaps optional or Annotated; containers name their own items."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) in ("Annotated", "Final", "ClassVar"):
        inner = annotation.slice
        return _holds_float(inner.elts[0] if isinstance(inner, ast.Tuple) else inner)
    if isinstance(annotation, ast.BinOp):
        return _holds_float(annotation.left) or _holds_float(annotation.right)
    return isinstance(annotation, ast.Name) and annotation.id in ("float", "PositiveFloat", "NonNegative", "Fraction")


def _has_unit(name: str, *, edge: bool) -> bool:
    low = name.lower()
    return (
        low.endswith(UNITS)
        or (edge and low.endswith(EDGE_UNITS))
        or low.lstrip("_") in EXACT
        or low.lstrip("_") in {unit[1:] for unit in UNITS}
    )


def _names(node: ast.expr) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}

"""What every table of a configuration is made of, and how its mistakes are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vppd.errors import ConfigError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it is, what is wrong, what would be right."""

    key: str
    reason: str
    allowed: str = ""

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}" + (f" (allowed: {self.allowed})" if self.allowed else "")


class InvalidConfig(ConfigError):
    """A configuration file with all its mistakes."""

    def __init__(self, path: Path, problems: tuple[Problem, ...]) -> None:
        self.path, self.problems = path, problems
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


class Table(BaseModel):
    """A TOML table: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def twice(names: Sequence[str]) -> list[str]:
    """Return the names that stand more than once, sorted."""
    return sorted(name for name, times in Counter(names).items() if times > 1)


def problems_of(error: ValidationError, prefix: str = "") -> tuple[Problem, ...]:
    """Return pydantic's findings in our words."""
    return tuple(_problem(entry, prefix) for entry in error.errors(include_url=False))


def _problem(entry: Any, prefix: str) -> Problem:
    key = prefix + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in entry["loc"]).lstrip(".")
    context = entry.get("ctx") or {}
    allowed = str(context["expected"]) if "expected" in context else ""
    if entry["type"] == "extra_forbidden":
        return Problem(key, "unknown key", "see config/vppd.example.toml for the keys there are")
    limits = [
        f"{word} {context[k]}" for k, word in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")) if k in context
    ]
    limits += [f"what matches {context['pattern']}"] if "pattern" in context else []
    return Problem(key or "-", entry["msg"], allowed or ", ".join(limits))

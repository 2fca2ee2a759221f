"""Reading a JSON document strictly: every key is asked for once, every mistake is kept with its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

import numpy as np

from vppd.snapshot import Floats

MOST = 1e15
"""No number in a problem is larger: beyond it a solver's tolerances mean nothing."""
MOST_STEPS = 10_000


class Table:
    """One JSON object being read: every key is asked for once, what is left over is unknown."""

    def __init__(self, raw: object, path: str, mistakes: list[str]) -> None:
        self.path, self.mistakes = path, mistakes
        self._left: dict[str, object] = dict(raw) if isinstance(raw, Mapping) else {}
        if not isinstance(raw, Mapping):
            mistakes.append(f"{path or '-'}: must be an object")

    def wrong(self, key: str, reason: str) -> None:
        """Note a mistake."""
        self.mistakes.append(f"{self._key(key)}: {reason}")

    def done(self) -> None:
        """Note what nobody asked for."""
        for key in self._left:
            self.wrong(key, "unknown key")

    def number(
        self,
        key: str,
        *,
        lower: float = -MOST,
        upper: float = MOST,
        strict: bool = False,
        value: float | None = None,
    ) -> float:
        """Return a finite number from ``lower`` to ``upper``, above ``lower`` if strict; ``value`` where it is absent."""
        if key not in self._left and value is not None:
            return value
        found = self._left.pop(key, None)
        if not is_number(found):
            self.wrong(key, "must be a finite number" if found is not None else "is missing")
            return 1.0
        if not lower <= found <= upper or (strict and found == lower):
            limits = [f"{'>' if strict else '>='} {lower:g}"] * (lower > -MOST) + [f"<= {upper:g}"] * (upper < MOST)
            self.wrong(key, f"is {found:g}, must be " + ", ".join(limits))
            return 1.0
        return float(found)

    def has(self, key: str) -> bool:
        """Say whether the key is there and was not read yet."""
        return key in self._left

    def peek(self, key: str) -> object:
        """Return what is there without reading it."""
        return self._left.get(key)

    def count(self, key: str, least: int, most: int, value: int) -> int:
        """Return a whole number from ``least`` to ``most``; ``value`` where it is absent."""
        found = self._left.pop(key, value)
        if isinstance(found, bool) or not isinstance(found, int):
            self.wrong(key, "must be a whole number")
        elif not least <= found <= most:
            self.wrong(key, f"is {found}, must be from {least} to {most}")
        else:
            return found
        return value

    def one_of(self, key: str, *options: str) -> str:
        """Return one of the words."""
        found = self._left.pop(key, None)
        if not isinstance(found, str) or found not in options:
            self.wrong(key, "must be " + " or ".join(map(repr, options)) if found is not None else "is missing")
            return options[0]
        return found

    def texts(self, key: str) -> list[str]:
        """Return a list of names."""
        found = self._left.pop(key, None)
        if not isinstance(found, list) or not all(isinstance(entry, str) for entry in found):
            self.wrong(key, "must be a list of names" if found is not None else "is missing")
            return []
        return found

    def step(self, key: str, least: int, most: int) -> int:
        """Return the number of a step, counted from 0."""
        found = self._left.pop(key, None)
        if isinstance(found, bool) or not isinstance(found, int):
            self.wrong(key, "must be a whole number" if found is not None else "is missing")
            return max(least, 0)
        if not least <= found <= most:
            self.wrong(key, f"is {found}, must be from {least} to {most} (steps count from 0, the last is included)")
            return max(least, 0)
        return found

    def series(self, key: str, steps: int | None, *, lower: float = -MOST) -> Floats:
        """Return one finite number per step."""
        found = self._left.pop(key, None)
        if not isinstance(found, list):
            self.wrong(key, "must be a list of numbers" if found is not None else "is missing")
            return np.zeros(steps or 1)
        bad = [k for k, value in enumerate(found) if not is_number(value) or value < lower]
        if bad:
            self.wrong(f"{key}[{bad[0]}]", "must be a finite number" + f" >= {lower:g}" * (lower > -MOST))
            return np.zeros(steps if steps is not None else len(found))
        if steps is not None and len(found) != steps:
            self.wrong(key, f"has {len(found)} entries, price_import_per_wh has {steps}")
            return np.zeros(steps)
        return np.array(found, dtype=np.float64)

    def text(self, key: str) -> str:
        """Return a name, not empty."""
        found = self._left.pop(key, None)
        if not isinstance(found, str) or not found:
            self.wrong(key, "must be text" if found is not None else "is missing")
            return self.path
        return found

    def flag(self, key: str) -> bool:
        """Return true or false."""
        found = self._left.pop(key, None)
        if not isinstance(found, bool):
            self.wrong(key, "must be true or false" if found is not None else "is missing")
            return True
        return found

    def table(self, key: str) -> Table:
        """Return an object within this one."""
        found = self._left.pop(key, None)
        if found is None:
            self.wrong(key, "is missing")
            return Table({}, self._key(key), [])
        return Table(found, self._key(key), self.mistakes)

    def tables(self, key: str) -> list[Table]:
        """Return the objects of a list; a list that is absent is empty."""
        found = self._left.pop(key, [])
        if not isinstance(found, list):
            self.wrong(key, "must be a list")
            return []
        return [Table(entry, f"{self._key(key)}[{k}]", self.mistakes) for k, entry in enumerate(found)]

    def _key(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def is_number(value: object) -> TypeGuard[int | float]:
    """Say whether ``value`` is a number, neither NaN nor beyond what is believable."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST

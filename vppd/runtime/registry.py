"""Finds adapters by entry point and loads those that the configuration names, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel, ValidationError

from vppd.config.plant import AssetConfig
from vppd.config.table import Problem, problems_of
from vppd.errors import ConfigError
from vppd.ports import Adapter

GROUP = "vppd.adapters"

Connect = Callable[[], AbstractAsyncContextManager[object]]
Installed = Callable[[], Iterable[EntryPoint]]


class Unusable(ConfigError):
    """Assets whose adapter or connection cannot be used, all of them at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def entry_points_of_group() -> Iterable[EntryPoint]:
    """Return the adapters' entry points of every installed distribution."""
    return entry_points(group=GROUP)


def installed(found: Installed = entry_points_of_group) -> tuple[str, ...]:
    """Return the names of the installed adapters; none of them is imported."""
    return tuple(sorted({point.name for point in found()}))


def connections(assets: Sequence[AssetConfig], found: Installed = entry_points_of_group) -> Mapping[str, Connect]:
    """Return how to open each asset, by its id. Raises Unusable with every mistake in every asset."""
    points = tuple(found())
    loaded: dict[str, Adapter[Any] | Problem] = {}
    opened: dict[str, Connect] = {}
    problems: list[Problem] = []
    for i, asset in enumerate(assets):
        if asset.adapter not in loaded:
            loaded[asset.adapter] = _load(asset.adapter, points)
        adapter = loaded[asset.adapter]
        if isinstance(adapter, Problem):
            problems.append(replace(adapter, key=f"assets[{i}].adapter"))
            continue
        try:
            opened[asset.id] = partial(adapter.connect, _validated(adapter, asset.connection))
        except ValidationError as error:
            problems += _explained(error, adapter, f"assets[{i}].connection")
        except ConfigError as error:
            problems.append(Problem(f"assets[{i}].connection", str(error)))
    if problems:
        raise Unusable(problems)
    return opened


def _load(name: str, points: Sequence[EntryPoint]) -> Adapter[Any] | Problem:
    """Return the adapter of that name, or what is wrong with it; the key is the caller's to fill in."""
    named = [point for point in points if point.name == name]
    if not named:
        known = ", ".join(sorted({point.name for point in points})) or "none is installed"
        return Problem("", f"there is no adapter {name!r}", known)
    if len({point.value for point in named}) > 1:
        sources = ", ".join(sorted(f"{p.value} of {p.dist.name if p.dist else '?'}" for p in named))
        return Problem("", f"{name!r} is offered more than once: {sources}", "one distribution with that adapter")
    try:
        adapter = named[0].load()
    except (ImportError, AttributeError) as error:
        return Problem("", f"{name!r} cannot be loaded: {error}")
    if not isinstance(adapter, Adapter):
        return Problem("", f"{named[0].value} is a {type(adapter).__name__}, not a vppd.ports.Adapter")
    return adapter


def _validated(adapter: Adapter[Any], table: Mapping[str, Any]) -> BaseModel:
    model: type[BaseModel] = adapter.config
    return model.model_validate(dict(table))


def _explained(error: ValidationError, adapter: Adapter[Any], prefix: str) -> list[Problem]:
    """Return pydantic's findings under the asset's key, an unknown key with those that there are."""
    known = ", ".join(sorted(adapter.config.model_fields))
    found = (replace(problem, key=f"{prefix}.{problem.key}") for problem in problems_of(error))
    return [replace(p, allowed=known) if p.reason == "unknown key" else p for p in found]

"""Tests that share one running demo are acts of one session: they stay in the order they are written in."""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Undo the shuffling inside modules that say ``IN_ORDER``."""
    modules = {getattr(item, "module", None) for item in items}
    for module in modules:
        if getattr(module, "IN_ORDER", False):
            places = [i for i, item in enumerate(items) if getattr(item, "module", None) is module]
            for place, item in zip(places, sorted((items[i] for i in places), key=_written), strict=True):
                items[place] = item


def _written(item: pytest.Item) -> tuple[str, int]:
    """Return what orders tests: the parameter of the module's fixture, then the line."""
    parameter = item.callspec.id if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ""
    return parameter, item.location[1] or 0

"""The site, its feeds and its assets as places that an OpenADR server asks about. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vppd.snapshot import Bools, Plant


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A node of the tree of limits, or one asset."""

    name: str
    node: int
    """-1: it is an asset."""
    asset: int
    """-1: it is a node."""
    assets: Bools
    """(n,) what is there."""
    path: tuple[str, ...]
    """Its name and those of the nodes above."""

    def concerns(self, other: Place) -> bool:
        """Say whether one of the two lies within the other."""
        return self.name in other.path or other.name in self.path


def place_of(name: str, plant: Plant) -> Place:
    """Return the node or the asset of this name. Raises KeyError."""
    if name in plant.nodes:
        node = plant.nodes.index(name)
        there = np.array([name in _path(int(of), plant) for of in plant.node], dtype=np.bool_)
        return Place(name, node, -1, there, _path(node, plant))
    if name in plant.asset_ids:
        asset = plant.asset_ids.index(name)
        there = np.arange(len(plant.asset_ids)) == asset
        return Place(name, -1, asset, there, (name, *_path(int(plant.node[asset]), plant)))
    raise KeyError(name)


def outermost(names: Iterable[str], plant: Plant) -> tuple[str, ...]:
    """Return the names that lie within no other of them: what may be added up without counting anything twice. Raises KeyError."""
    places = {name: place_of(name, plant) for name in names}
    return tuple(name for name, place in places.items() if not any(above in places for above in place.path[1:]))


def _path(node: int, plant: Plant) -> tuple[str, ...]:
    found: list[str] = []
    while node >= 0:
        found.append(plant.nodes[node])
        node = int(plant.parent[node])
    return tuple(found)

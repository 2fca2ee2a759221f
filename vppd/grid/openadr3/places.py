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


class Places:
    """The places of a plant by name, each worked out once."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._paths = [_path(node, plant) for node in range(len(plant.nodes))]
        self._known: dict[str, Place] = {}

    def of(self, name: str) -> Place:
        """Return the node or the asset of this name. Raises KeyError."""
        if name not in self._known:
            self._known[name] = self._node(name) if name in self._plant.nodes else self._asset(name)
        return self._known[name]

    def outermost(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the names that lie within no other of them: what may be added up without counting anything twice. Raises KeyError."""
        places = {name: self.of(name) for name in names}
        return tuple(name for name, place in places.items() if not any(above in places for above in place.path[1:]))

    def _node(self, name: str) -> Place:
        node = self._plant.nodes.index(name)
        beneath = np.array([name in path for path in self._paths], dtype=np.bool_)
        return Place(name, node, -1, beneath[self._plant.node], self._paths[node])

    def _asset(self, name: str) -> Place:
        if name not in self._plant.asset_ids:
            raise KeyError(name)
        asset = self._plant.asset_ids.index(name)
        there = np.arange(len(self._plant.asset_ids)) == asset
        return Place(name, -1, asset, there, (name, *self._paths[self._plant.node[asset]]))


def _path(node: int, plant: Plant) -> tuple[str, ...]:
    found: list[str] = []
    while node >= 0:
        found.append(plant.nodes[node])
        node = int(plant.parent[node])
    return tuple(found)

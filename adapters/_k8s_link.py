"""What the cluster has, as this asset sees it: kinds, labelled objects, nodes, and the server's clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from adapters._k8s_config import KubernetesConfig
from adapters._k8s_held import HELD
from adapters._k8s_kinds import KINDS, Body, Kind, Resource, Thing, Way, found_groups
from adapters._k8s_power import Node, node_of
from vppd.errors import Garbled, Refused

T = TypeVar("T")

_NODES_S = 60.0
_COMPANION_OF = {
    "HorizontalPodAutoscaler": frozenset({"Deployment", "StatefulSet"}),
    "ScaledObject": frozenset({"Deployment", "StatefulSet"}),
}


class Missing(Refused):
    """There is no such object."""


class Forbidden(Refused):
    """We have not the right to do that."""


class Conflict(Refused):
    """The object has changed since it was read."""


class Outdated(Refused):
    """The server no longer knows that version."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON object and the server's time."""

    body: dict[str, Any]
    date_s: float | None
    """[s since 1970]"""


class Requests(Protocol):
    """What the link needs of a client."""

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """Return what the server says. Raises Unreachable, Refused or Garbled."""
        ...

    async def patch(self, path: str, body: Mapping[str, Any]) -> Answer:
        """Apply a merge patch and return the object as stored. Raises Unreachable, Refused or Garbled."""
        ...

    def pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Answer]:
        """Yield a list page by page. Raises Unreachable, Refused or Garbled."""
        ...

    def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield changes. Raises Unreachable, Refused or Garbled."""
        ...


class Link:
    """Reads and writes objects of the kinds that this server has."""

    def __init__(self, config: KubernetesConfig, client: Requests) -> None:
        self._config = config
        self._client = client
        self._kinds = _chosen(config)
        self._resources: dict[str, Resource] = {}
        self._known_until_s = -1.0
        self._nodes: tuple[Node, ...] = ()
        self._nodes_until_s = -1.0
        self._offset_s: float | None = None
        self.forbidden: dict[str, str] = {}
        """Kinds that we may not list, and what the server said."""

    @property
    def now_s(self) -> float:
        """Return the time by the server's clock, to the second. [s since 1970]"""
        if self._offset_s is None:
            raise Garbled("the API server never said what time it is")
        return asyncio.get_running_loop().time() + self._offset_s

    def has(self, kind: str) -> bool:
        """Say whether the server has a kind."""
        return kind in self._resources

    async def look(self, sweep: bool = True) -> list[Thing]:
        """Return all objects that are opted in, and what belongs to them. Raises Unreachable, Refused or Garbled.

        ``sweep``: also what is held without being opted in any more.
        """
        await self._discover()
        main = [r for r in self._resources.values() if r.kind.way is not Way.COMPANION]
        selectors = (f"{self._config.tier_label} in (1,2,3)", *((HELD,) if sweep else ()))
        things = await self._all((r, s) for r in main for s in selectors)
        things += await self._all(self._beside(things, sweep))
        return list({thing.uid: thing for thing in things}.values())

    def _beside(self, things: list[Thing], sweep: bool) -> list[tuple[Resource, str]]:
        """Return what belongs to things: all of the kinds that they need, and of others what is held."""
        companions = [r for r in self._resources.values() if r.kind.way is Way.COMPANION]
        kinds = {thing.kind.name for thing in things}
        needed = {r.kind.name for r in companions if self._is_needed(r.kind, kinds, things)}
        return [(r, "" if r.kind.name in needed else HELD) for r in companions if sweep or r.kind.name in needed]

    async def again(self, thing: Thing) -> Thing:
        """Return an object as it is now. Raises Missing, Unreachable, Refused or Garbled."""
        return Thing(thing.resource, self._timed(await self._client.get(thing.path)))

    async def patch(self, thing: Thing, patch: Body) -> Thing:
        """Patch an object and return it as stored. Raises Conflict, Missing, Unreachable, Refused or Garbled."""
        return Thing(thing.resource, self._timed(await self._client.patch(thing.path, patch)))

    async def nodes(self) -> tuple[Node, ...]:
        """Return the nodes, at most a minute old. Raises Unreachable, Refused or Garbled."""
        config, now_s = self._config, asyncio.get_running_loop().time()
        if config.node_idle_w == 0.0 and config.gpu_idle_w == 0.0:
            return ()
        if now_s >= self._nodes_until_s:
            query = {"labelSelector": config.node_selector} if config.node_selector else {}
            try:
                pages = self._client.pages("/api/v1/nodes", query)
                self._nodes = tuple([node_of(config, item) async for page in pages for item in page.body["items"]])
                self.forbidden.pop("Node", None)
            except Forbidden as error:
                self.forbidden["Node"] = str(error)
            self._nodes_until_s = now_s + _NODES_S
        return self._nodes

    def scopes(self) -> tuple[str, ...]:
        """Return the namespaces to ask one by one; one empty name is all of them."""
        return self._config.namespaces or ("",)

    # ---- inside ----------------------------------------------------------------------------------------------------

    async def _discover(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._known_until_s:
            return
        answer = await self._client.get("/apis")
        self._timed(answer)
        groups = found_groups(answer.body)
        found: dict[str, Resource] = {}
        plurals: dict[str, frozenset[str]] = {}
        for kind in self._kinds:
            for version in (v for v in kind.versions if v in groups.get(kind.group, ())):
                path = f"/apis/{kind.group}/{version}"
                if path not in plurals:
                    plurals[path] = await self._plurals(path)
                if kind.plural in plurals[path]:
                    found[kind.name] = Resource(kind, version)
                    break
        self._resources = found
        self.forbidden = {name: why for name, why in self.forbidden.items() if name == "Node"}
        self._known_until_s = now_s + self._config.rediscover_s

    async def _plurals(self, path: str) -> frozenset[str]:
        try:
            answer = await self._client.get(path)
        except Missing:  # gone between the two questions
            return frozenset()
        return frozenset(str(item["name"]) for item in answer.body.get("resources", ()))

    def _is_needed(self, kind: Kind, kinds: set[str], things: Iterable[Thing]) -> bool:
        """Say whether all objects of a companion kind are needed: they carry no label of ours."""
        if kind.name in _COMPANION_OF:
            return bool(_COMPANION_OF[kind.name] & kinds)
        return any(is_queued(thing) for thing in things)

    async def _all(self, wanted: Iterable[tuple[Resource, str]]) -> list[Thing]:
        lists = await together(
            self._list(resource, scope, selector)
            for resource, selector in wanted
            for scope in (self.scopes() if resource.kind.namespaced else ("",))
        )
        return [thing for found in lists for thing in found]

    async def _list(self, resource: Resource, scope: str, selector: str) -> list[Thing]:
        if resource.kind.name in self.forbidden:
            return []
        query = {"labelSelector": selector} if selector else {}
        found: list[Thing] = []
        try:
            async for page in self._client.pages(resource.path(scope), query):
                found += [Thing(resource, item) for item in page.body["items"] or ()]
                self._timed(page)
        except Missing:  # its definition was removed: the next discovery knows
            self._known_until_s = -1.0
        except Forbidden as error:
            self.forbidden[resource.kind.name] = str(error)
        return found

    def _timed(self, answer: Answer) -> dict[str, Any]:
        if answer.date_s is not None:
            self._offset_s = answer.date_s - asyncio.get_running_loop().time()
        return answer.body


def is_queued(thing: Thing) -> bool:
    """Say whether Kueue decides when this runs."""
    return thing.kind.way is Way.PAUSE and bool(thing.labels.get("kueue.x-k8s.io/queue-name"))


def _chosen(config: KubernetesConfig) -> tuple[Kind, ...]:
    if not config.kinds:
        return tuple(kind for kind in KINDS if kind.namespaced or not config.namespaces)
    return tuple(kind for kind in KINDS if kind.name in config.kinds or kind.way is Way.COMPANION)


async def together(doing: Iterable[Awaitable[T]]) -> list[T]:
    """Wait for all of them and return what they return. Raises what the first of them raised."""
    done = await asyncio.gather(*doing, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return [result for result in done if not isinstance(result, BaseException)]

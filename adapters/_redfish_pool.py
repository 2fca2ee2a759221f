"""Hundreds of BMCs at once: dead ones are left alone, slow ones are waited for in the background, the others never wait for either.

BMCs have no lease: while this process lives the pool lifts caps whose time is over. After its death the limits stay as they are
until the next process finds them in the journal, holds them for ``orphan_lease_s``, and puts them back.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters._caps import Cap
from adapters._redfish_bmc import Bmc
from adapters._redfish_config import BmcPoolConfig
from adapters._redfish_journal import Books, Journal, Kept
from adapters._redfish_lanes import Lanes, Pace
from adapters._redfish_link import Account, BmcLink
from adapters._redfish_node import SLACK_W, Node, Patience
from adapters._redfish_tls import anybody, by_authority, by_fingerprint
from vppd.errors import ConfigError, DeviceError, Refused, Unreachable

TEND_S = 1.0
_CLOSE_S = 10.0
_BRIEF_S = 0.5
"""Where all are due at once, those that are quick are waited for."""
_STALE_ROUNDS = 3.0
_STALE_LEAST_S = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one node's cap."""

    cap: Cap | None = None
    """What holds now, as read back; None: nobody knows."""
    error: DeviceError | None = None
    pending: bool = False
    """It is under way, or will be as soon as the BMC answers again."""

    def holds(self, cap_w: float | None) -> bool:
        """Say whether the node is capped at this or lower; for None, whether the cap is lifted."""
        if self.cap is None or self.error is not None:
            return False
        return cap_w is None or (self.cap.cap_w is not None and self.cap.cap_w <= cap_w + SLACK_W)


class BmcPool:
    """The caps and the power of a set of nodes, by name."""

    def __init__(self, config: BmcPoolConfig, journal: Journal) -> None:
        self.lanes = Lanes(config.at_once)
        self._config = config
        self._journal = journal
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: dict[str, asyncio.Task[None]] = {}
        """What is under way with each node."""
        self._broken: BaseException | None = None
        patience = Patience(config.node_timeout_s, config.retry_most_s, config.refresh_s)
        self._nodes = {name: Node(name, bmc, journal, patience) for name, bmc in _bmcs(config, self.lanes).items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Return all nodes."""
        return tuple(self._nodes)

    @property
    def books(self) -> Books:
        """Return what the journal has: the nodes that are touched, and how they were."""
        return self._journal.books

    @property
    def journal_writes(self) -> int:
        """Return how often the journal has been written: many changes share one write."""
        return self._journal.writes

    async def look(self, names: Iterable[str]) -> dict[str, Cap]:
        """Return the caps of nodes; one that has not answered within ``wait_s`` is left out. Raises Refused for an unknown name."""
        nodes = [self._node(name) for name in names]
        await self._wait([self._start(node) for node in nodes if node.is_due()], self._config.wait_s)
        return {node.name: node.bmc.cap() for node in nodes if self._is_known(node)}

    async def put(self, name: str, cap_w: float | None, valid_for_s: float | None) -> Cap:
        """Cap a node, or (None) put its limits back as they were; return what then holds. [W; s]

        A cap is never higher than the one that was there before. Raises Unreachable (outcome unknown; it goes on in the
        background for as long as the cap is valid), Refused or Garbled.
        """
        outcome = (await self.put_all({name: cap_w}, valid_for_s))[name]
        if outcome.error is not None:
            raise outcome.error
        assert outcome.cap is not None
        return outcome.cap

    async def put_all(
        self,
        cap_w: Mapping[str, float | None],
        valid_for_s: float | None,
        wait_s: float | None = None,
        insist: bool = False,
    ) -> dict[str, Outcome]:
        """Cap many nodes at once, and return what became of each after ``wait_s`` at most; insist: also where a BMC refused. [W; s]"""
        until_s = _now_s() + (math.inf if valid_for_s is None else valid_for_s)
        nodes = [self._node(name) for name in cap_w]
        for node in nodes:
            node.want(cap_w[node.name], until_s, insist)
        moving = [self._start(node) for node in nodes if node.is_off and node.rests_s <= 0.0]
        await self._wait(moving, self._config.wait_s if wait_s is None else wait_s)
        return {node.name: self.outcome(node.name) for node in nodes}

    def outcome(self, name: str) -> Outcome:
        """Return what has become of the newest wish for a node."""
        node = self._node(name)
        if not node.is_off:
            return Outcome(node.cap)
        if node.problem is not None and node.rests_s > 0.0:
            return Outcome(error=type(node.problem)(f"{node.problem}; asked again in {node.rests_s:.0f} s"))
        return Outcome(error=Unreachable(f"{node.name}: not done yet"), pending=True)

    def power_w(self, name: str) -> float | None:
        """Return what a node draws; None when its BMC has not said so lately. [W]"""
        node = self._node(name)
        return node.power_w if self._is_known(node) else None

    def cap(self, name: str) -> Cap | None:
        """Return a node's cap as read lately; None when nobody knows."""
        node = self._node(name)
        return node.bmc.cap() if self._is_known(node) else None

    def max_cap_w(self, name: str) -> float | None:
        """Return the highest cap a node's BMC allows; None when it has not told. [W]"""
        return self._node(name).bmc.max_cap_w()

    def kept(self, name: str) -> Kept | None:
        """Return how a touched node was before; None: it is as its owner left it."""
        return self._node(name).kept

    def problems(self) -> dict[str, DeviceError]:
        """Return what is wrong, by node."""
        found = {name: node.problem for name, node in self._nodes.items() if node.problem is not None}
        lost = sorted(set(self.books.kept) - set(self._nodes))
        return found | {n: Refused(f"{n}: was capped, and is not in the configuration any more") for n in lost}

    async def news(self, wait_s: float) -> None:
        """Ask all BMCs that are due; wait for them only where nothing is fresh. [s] Raises what all of them fail by, if all do."""
        self.check()
        nodes = self._nodes.values()
        asked = {self._start(node): node for node in nodes if node.is_due()}
        if not any(node.is_fresh(self._config.refresh_s) for node in nodes):
            known = any(self._is_known(node) for node in nodes)
            await self._wait(list(asked), min(wait_s, _BRIEF_S) if known else wait_s)
            await self._first(asked)
        self.check()
        if not any(self._is_known(node) for node in nodes):
            raise self._silence()

    async def _first(self, asked: Mapping[asyncio.Task[None], Node]) -> None:
        """Wait, where nobody has answered in time, for the first who does: silence is told."""
        late = {task for task in asked if not task.done()}
        while late and len(late) == len(asked):
            _, late = await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
            asked = {task: node for task, node in asked.items() if task in late or self._is_known(node)}

    async def save(self) -> None:
        """Write the books down. Raises Refused."""
        await self._journal.save()

    def check(self) -> None:
        """Raise what has gone wrong in the background and is no matter of BMCs."""
        if self._broken is not None:
            raise self._broken

    # ---- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take over what an earlier process has left, and begin to tend."""
        until_s = _now_s() + (self.books.lease_s or self._config.orphan_lease_s)
        for node in self._nodes.values():
            if node.kept is not None:
                node.want(node.kept.cap_w, until_s)
        self._spawn(self._tend())

    async def close(self, restore: bool) -> None:
        """Stop; put every limit back first, unless the next connection is to find them as they are."""
        if restore and self._broken is None:
            touched = {name: None for name in self.books.kept if name in self._nodes}
            with contextlib.suppress(Refused):
                await self.put_all(touched, None, _CLOSE_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(node.bmc.link.close(self._config.timeout_s / 2.0) for node in self._nodes.values()))

    async def _tend(self) -> None:
        """Lift caps whose time is over, go on with what is not done, and look again where it is time."""
        while True:
            await asyncio.sleep(TEND_S)
            now_s = _now_s()
            for node in self._nodes.values():
                if now_s >= node.until_s:
                    node.want(None, math.inf)
                if (node.is_off and node.rests_s <= 0.0) or node.is_due():
                    self._start(node)

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _node(self, name: str) -> Node:
        if name not in self._nodes:
            raise Refused(f"there is no BMC {name!r}")
        return self._nodes[name]

    def _is_known(self, node: Node) -> bool:
        return node.is_fresh(max(_STALE_ROUNDS * self._config.refresh_s, _STALE_LEAST_S))

    def _start(self, node: Node) -> asyncio.Task[None]:
        """Return the task that looks at a node and brings it to where it is wanted."""
        task = self._busy.get(node.name)
        if task is None:
            task = self._busy[node.name] = self._spawn(self._attend(node))
            task.add_done_callback(lambda _: self._busy.pop(node.name, None))
        return task

    async def _attend(self, node: Node) -> None:
        """Do what is to be done about a node; what fails stays with the node."""
        with contextlib.suppress(DeviceError):
            while node.is_off and node.rests_s <= 0.0:
                await node.move()
            if node.is_due():
                await node.look()

    def _spawn(self, doing: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken = error

    @staticmethod
    async def _wait(tasks: list[asyncio.Task[None]], wait_s: float) -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=wait_s)

    def _silence(self) -> DeviceError:
        """Return why nothing is known: Refused when all BMCs refuse, else Unreachable."""
        problems = [node.problem for node in self._nodes.values() if node.problem is not None]
        why = f"none of {len(self._nodes)} BMCs answers" + (f": {problems[0]}" if problems else "")
        refused = bool(problems) and all(isinstance(problem, Refused) for problem in problems)
        return Refused(why) if refused and len(problems) == len(self._nodes) else Unreachable(why)


@asynccontextmanager
async def open_pool(config: BmcPoolConfig) -> AsyncIterator[BmcPool]:
    """Open a pool; on the way out all limits are put back, except after a lost link: then the next connection goes on.

    Raises ConfigError, or Refused when the journal cannot be read.
    """
    journal = await asyncio.to_thread(Journal, config.journal)
    try:
        pool = BmcPool(config, journal)
        pool.start()
        restore = True
        try:
            yield pool
        except DeviceError:
            restore = False
            raise
        finally:
            await pool.close(restore)
    finally:
        journal.close()


def _bmcs(config: BmcPoolConfig, lanes: Lanes) -> dict[str, Bmc]:
    account = Account(config.user_name, _password(config.password_file), config.auth == "session")
    context = anybody() if config.insecure else by_authority(config.ca_file)
    found = {}
    for name, url in config.addresses().items():
        verify: ssl.SSLContext = by_fingerprint(config.fingerprints[name]) if name in config.fingerprints else context
        link = BmcLink(name, url, account, verify, config.timeout_s, Pace(config.requests_per_s, config.burst))
        link.through(lanes)
        found[name] = Bmc(link, config.limit_by, config.other_w, config.percent_of_w)
    return found


def _password(path: Path) -> str:
    """Return the password in a file. Raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"password_file: {path} cannot be read: {error}") from error


def _now_s() -> float:
    return asyncio.get_running_loop().time()

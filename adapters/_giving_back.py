"""The end of a connection to a cluster: what we hold is given back, unless the next connection is to go on with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from vppd.errors import DeviceError


class Cluster(Protocol):
    """What takes over what an earlier connection held, and gives it back."""

    async def start(self) -> None:
        """Begin."""
        ...

    async def close(self, restore: bool) -> None:
        """End; ``restore``: with everything as it was before."""
        ...


C = TypeVar("C", bound=Cluster)


@asynccontextmanager
async def giving_back(cluster: C) -> AsyncIterator[C]:
    """Have a cluster at work; on the way out everything is given back, except after a lost link: then the next connection goes on."""
    restore = True
    try:
        await cluster.start()
        yield cluster
    except DeviceError:
        restore = False
        raise
    finally:
        await cluster.close(restore)

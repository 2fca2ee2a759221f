"""One control plane for all tests here, one namespace for each."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.kubernetes.room import Room
from tests.servers.kubernetes import KubernetesServer, running_kubernetes
from tests.support import ROOT


@pytest.fixture(scope="session")
def kubernetes() -> Iterator[KubernetesServer]:
    """A control plane in which vppd has the rights of deploy/kubernetes/rbac.yaml."""
    with running_kubernetes() as server:
        server.apply(ROOT / "deploy" / "kubernetes" / "rbac.yaml")
        yield server


@pytest.fixture
def room(kubernetes: KubernetesServer) -> Iterator[Room]:
    """A namespace of its own, emptied at the end."""
    name = f"t{secrets.token_hex(4)}"
    kubernetes.make("/api/v1/namespaces", {"metadata": {"name": name}})
    room = Room(kubernetes, name)
    yield room
    room.clear()

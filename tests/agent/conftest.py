"""Stand-in GPUs, and a broker for a whole module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.rig import Node
from tests.agent.stub import Stub, compiled
from tests.servers.mosquitto import Mosquitto


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the stand-in for NVIDIA's library."""
    return compiled(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def gpus(tmp_path: Path, nvml_library: Path) -> Iterator[Stub]:
    """Eight GPUs at 700 W, each of which would draw 650 W."""
    with Stub(tmp_path, nvml_library) as stub:
        yield stub


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker that all tests of a module share; their nodes have names of their own."""
    with Mosquitto(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def node(tmp_path: Path, gpus: Stub, broker: Mosquitto) -> Iterator[Node]:
    """A node whose agent is not started yet, with somebody who gives it orders."""
    with Node(tmp_path, gpus, broker.port) as node:
        yield node

"""What pods and nodes ask for, and what they draw by the model. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from adapters._k8s_config import KubernetesConfig
from adapters._k8s_kinds import Body
from vppd.errors import Garbled

_SUFFIX: dict[str, Decimal | int] = {
    "": 1,
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": 1000,
    "M": 10**6,
    "G": 10**9,
    "Ki": 1024,
    "Mi": 1024**2,
    "Gi": 1024**3,
}
"""Counts of CPUs and GPUs do not get larger than this."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod that draws power: it runs, or is about to end."""

    uid: str
    namespace: str
    name: str
    labels: Mapping[str, str]
    address: str
    gpus: int
    millicpus: int
    ending: bool
    ready: bool


@dataclass(frozen=True, slots=True)
class Node:
    """One node."""

    name: str
    gpus: int
    on: bool


@dataclass(frozen=True, slots=True)
class Load:
    """What some pods ask for together."""

    gpus: int = 0
    millicpus: int = 0
    pods: int = 0

    def power_w(self, config: KubernetesConfig) -> float:
        """Return what it draws beyond an idle node. [W]"""
        return self.gpus * (config.gpu_w - config.gpu_idle_w) + self.millicpus / 1000.0 * config.cpu_w

    @property
    def weight(self) -> float:
        """Return its GPUs, or its CPUs where it has none."""
        return self.gpus or self.millicpus / 1000.0 or 1.0

    def note(self) -> dict[str, int]:
        """Return it as plain values."""
        return asdict(self)


def noted(note: Mapping[str, int]) -> Load:
    """Return the load that ``Load.note`` described."""
    return Load(note.get("gpus", 0), note.get("millicpus", 0), note.get("pods", 0))


def load_of(pods: Iterable[Pod]) -> Load:
    """Return what these pods ask for."""
    pods = tuple(pods)
    return Load(sum(pod.gpus for pod in pods), sum(pod.millicpus for pod in pods), len(pods))


def idle_w(config: KubernetesConfig, nodes: Iterable[Node]) -> float:
    """Return what the nodes draw with nothing running. [W]"""
    return sum(config.node_idle_w + node.gpus * config.gpu_idle_w for node in nodes if node.on)


def quantity(text: Any) -> Decimal:
    """Return a quantity as Kubernetes writes it, e.g. 500m or 2. Raises Garbled."""
    plain = str(text).strip()
    number = plain.rstrip("numkKMGi")
    try:
        return Decimal(number) * _SUFFIX[plain[len(number) :]]
    except (InvalidOperation, KeyError) as error:
        raise Garbled(f"{text!r} is no quantity of CPUs or GPUs") from error


def used(config: KubernetesConfig, flavors: Iterable[Body]) -> Load:
    """Return what a queue says its admitted work uses. Raises Garbled."""
    totals = [(r["name"], quantity(r.get("total", 0))) for flavor in flavors for r in flavor.get("resources") or ()]
    gpus = sum(n for name, n in totals if name in config.gpu_resources)
    return Load(math.ceil(gpus), math.ceil(1000 * sum(n for name, n in totals if name == "cpu")))


def pod_of(config: KubernetesConfig, body: Body) -> Pod | None:
    """Return a pod that draws power, None when it does not run. Raises Garbled."""
    meta, status = body["metadata"], body.get("status") or {}
    if status.get("phase") != "Running":
        return None
    gpus = cpus = Decimal()
    for container in body["spec"]["containers"]:
        resources = container.get("resources") or {}
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        gpus += sum(quantity(asked[name]) for name in config.gpu_resources if name in asked)
        cpus += quantity(asked.get("cpu", 0))
    return Pod(
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        labels=meta.get("labels") or {},
        address=str(status.get("podIP", "")),
        gpus=math.ceil(gpus),
        millicpus=math.ceil(1000 * cpus),
        ending="deletionTimestamp" in meta,
        ready=any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ()),
    )


def node_of(config: KubernetesConfig, body: Body) -> Node:
    """Return a node. Raises Garbled."""
    status = body.get("status") or {}
    there = status.get("capacity") or {}
    ready = [c.get("status") for c in status.get("conditions") or () if c.get("type") == "Ready"]
    gpus = sum(quantity(there[name]) for name in config.gpu_resources if name in there)
    return Node(body["metadata"]["name"], math.ceil(gpus), ready == ["True"])

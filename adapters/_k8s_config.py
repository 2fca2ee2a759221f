"""``[assets.connection]`` of a Kubernetes cluster."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters._inference_config import InferenceConfig
from adapters._k8s_kinds import BY_NAME

Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
FlexTier = Annotated[int, Field(ge=1, le=3)]

MIN_PAUSE_S = 30.0
"""A job that may not be paused for as long as this is not paused at all."""


class KubernetesConfig(BaseModel):
    """How the cluster is reached, what may be touched, and what its pods and nodes draw: nothing in Kubernetes measures that."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kubeconfig: Path | None = None
    """Credentials as kubectl knows them; or ``in_cluster = true``."""
    in_cluster: bool = False
    """Use the service account of the pod that vppd runs in."""
    context: str = ""
    """Context of the kubeconfig; empty: its current one."""
    namespaces: tuple[str, ...] = ()
    """Only these belong to this asset; empty: all."""
    kinds: tuple[str, ...] = ()
    """Kinds to handle, by name, e.g. ``Deployment``; empty: all known ones that the server has, and with ``namespaces`` those in them."""
    timeout_s: Positive = 2.0
    """Wait for one answer of the API server."""
    at_once: Annotated[int, Field(ge=1, le=256)] = 16
    """Requests in flight at a time."""
    rediscover_s: Positive = 300.0
    """How often the server is asked for new kinds."""

    tier_label: Annotated[str, Field(min_length=1)] = "vpp.flex-tier"
    """Only objects that carry it, with 1, 2 or 3, are ever touched."""
    least_annotation: str = "vpp.least-replicas"
    """A workload's own floor of replicas."""
    restart_annotation: str = "vpp.restart-s"
    """How long a job draws power after a pause before it gets on with its work."""
    checkpoint_annotation: str = "vpp.checkpoint-s"
    """Work that a job loses by a pause."""
    holder: Annotated[str, Field(min_length=1)] = "vppd"
    """Who held an object, as its annotation ``vpp.held`` says."""

    least_replicas: Annotated[int, Field(ge=0)] = 1
    """Floor of replicas where neither the workload nor an autoscaler names one."""
    max_pause_s: dict[FlexTier, NonNegative] = Field(default_factory=lambda: {1: 0.0, 2: 600.0, 3: 1800.0})
    """Longest pause at a time by tier; pods are ended by it, so the work must have checkpoints."""
    tend_s: Positive = 2.0
    """How often what is in force is compared with what the cluster does."""
    stagger_s: NonNegative = 0.2
    """Rest between two workloads when they go on."""
    release_within_s: Positive = 5.0
    """Restoring everything takes no longer than this by staggering."""
    orphan_lease_s: Positive = 30.0
    """What an earlier process held is given back after this time, when nobody has said what to do with it."""

    gpu_w: Positive = 700.0
    """A GPU at work. [W]"""
    gpu_idle_w: NonNegative = 65.0
    cpu_w: NonNegative = 4.0
    """A requested CPU core at work. [W]"""
    node_idle_w: NonNegative = 400.0
    """A node with nothing running, without its GPUs. [W]"""
    node_selector: str = ""
    """Label selector of the nodes of this asset; empty: all."""
    gpu_resources: tuple[str, ...] = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe")
    """Resource names that count as one GPU each."""

    inference: dict[str, InferenceConfig] = Field(default_factory=dict)
    """Services whose latency is watched, by name or namespace/name: their replicas fall no further than it allows."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.kubeconfig is None) == (not self.in_cluster):
            raise ValueError("give either a kubeconfig or in_cluster = true")
        if self.in_cluster and self.context:
            raise ValueError("context belongs to a kubeconfig, not to in_cluster = true")
        unknown = [name for name in self.kinds if name not in BY_NAME]
        if unknown:
            raise ValueError(f"kinds: {', '.join(unknown)} unknown; known are {', '.join(BY_NAME)}")
        if find_spec("kubernetes_asyncio") is None:
            raise ValueError("the adapter needs its extra: pip install 'vppd[kubernetes]'")
        if self.gpu_w < self.gpu_idle_w:
            raise ValueError("gpu_w must not be below gpu_idle_w")
        return self

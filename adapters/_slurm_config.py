"""``[assets.connection]`` of a Slurm cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Tier = Annotated[int, Field(ge=0, le=3)]
FlexTier = Annotated[int, Field(ge=1, le=3)]

MIN_PAUSE_S = 30.0
"""A job that may not be stopped for as long as this is not stopped at all."""


class SlurmConfig(BaseModel):
    """How the cluster is reached, what may be touched, and what its nodes draw when nothing measures them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    url: str = ""
    """Where slurmrestd answers, without the ``/slurm/v...`` part; empty: by command line alone."""
    user_name: str = "root"
    token_file: Path | None = None
    """JWT for slurmrestd; read again when it changes."""
    renew_token: bool = False
    """Mint tokens by ``scontrol token``, at the start, at half life and when one is refused."""
    token_life_s: Annotated[int, Field(ge=60)] = 1800
    timeout_s: Positive = 1.5
    """Wait for one answer of slurmrestd or of a cap agent."""
    command_line: bool = False
    """Use the Slurm commands of this machine: when REST does not answer, and for what it cannot do."""
    command_folder: str = ""
    """Where scontrol, squeue and scancel are; empty: on the PATH."""
    command_timeout_s: Positive = 5.0
    slurm_conf: Path | None = None

    partitions: tuple[str, ...] = ()
    """Jobs and nodes of these belong to this asset; empty: all of the cluster."""
    default_tier: Tier = 0
    qos_tier: dict[str, Tier] = Field(default_factory=dict)
    """Tier by QOS, for jobs without ``vpp:tier=N`` in their comment."""
    partition_tier: dict[str, Tier] = Field(default_factory=dict)
    """Tier by partition, for jobs that neither comment nor QOS place."""

    stop_method: Literal["sigstop", "suspend", "hold"] = "sigstop"
    """sigstop keeps a job's CPUs, suspend frees them, hold touches pending jobs alone."""
    freeze_partitions: tuple[str, ...] = ()
    """Set DOWN while the budget binds, so that nothing starts; elsewhere pending jobs are held one by one."""
    max_pause_s: dict[FlexTier, NonNegative] = Field(default_factory=lambda: {1: 0.0, 2: 600.0, 3: 1800.0})
    """Longest stop at a time by tier; the average stays within the slow-down the tier allows."""
    extend_time_limit: bool = True
    """Give a stopped job back the time it lost, where the token permits it."""
    stagger_s: NonNegative = 0.2
    """Rest between two jobs when they go on."""
    release_within_s: Positive = 5.0
    """Restoring all jobs takes no longer than this by staggering."""
    orphan_lease_s: Positive = 30.0
    """Touched jobs of an earlier process go on after this time, when nobody has said what to do with them."""
    journal: Path | None = None
    """What was touched, on disk; without it only the marks in the jobs' comments tell, and those of users are believed."""

    power_source: Literal["slurm", "model"] = "slurm"
    node_idle_w: NonNegative = 2070.0
    """A node with nothing running. [W]"""
    node_max_w: Positive = 8400.0
    """A node with everything running, for nodes that report no power. [W]"""
    gpu_idle_w: NonNegative = 65.0
    gpu_stopped_w: NonNegative = 90.0
    """A GPU whose job is stopped but keeps its memory. [W]"""
    gpu_max_w: Positive = 700.0
    cap_url: str = ""
    """Agents that cap nodes: GET and POST ``{cap_url}/nodes/{name}`` with ``{"cap_w": W or null}``."""
    cap_lease: bool = False
    """Send ``valid_for_s`` with each cap, so that an agent that knows it lifts the cap when nobody renews it."""
    cap_floor_frac: Fraction = 0.5
    """Never cap below this part of a GPU's (or a CPU node's) limit."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not (self.url or self.command_line):
            raise ValueError("give the url of slurmrestd, or command_line = true")
        if self.url and not (self.token_file or self.renew_token):
            raise ValueError("slurmrestd needs token_file, or renew_token = true")
        if self.renew_token and not self.command_line:
            raise ValueError("renew_token needs command_line = true: tokens come from scontrol")
        if not self.command_line and (self.freeze_partitions or self.stop_method == "suspend"):
            raise ValueError("suspend and freeze_partitions need command_line = true: slurmrestd has neither")
        if self.journal is None and (self.freeze_partitions or (self.cap_url and not self.cap_lease)):
            raise ValueError(
                "freeze_partitions, and cap_url without cap_lease, need a journal: no mark tells how things were"
            )
        if self.node_max_w < self.node_idle_w:
            raise ValueError("node_max_w must not be below node_idle_w")
        return self

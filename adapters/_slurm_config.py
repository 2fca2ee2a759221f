"""``[assets.connection]`` of a Slurm cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters._agent_caps import AgentsConfig
from adapters._dcgm import DcgmConfig
from adapters._redfish_config import BmcPoolConfig

Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Tier = Annotated[int, Field(ge=0, le=3)]
FlexTier = Annotated[int, Field(ge=1, le=3)]


class HttpCaps(BaseModel):
    """Caps by HTTP: GET and POST ``{url}/nodes/{name}`` with ``{"cap_w": W or null}``, the power of the whole node."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    via: Literal["http"]
    url: Annotated[str, Field(min_length=1)]
    lease: bool = False
    """Send ``valid_for_s`` with each cap, so that an agent that knows it lifts the cap when nobody renews it."""


class AgentNodeCaps(AgentsConfig):
    """Caps by the agents of the nodes, over their broker; they lift a cap by themselves when nobody renews it."""

    via: Literal["agents"]
    node_rest_w: NonNegative = 1550.0
    """What a node draws beside the devices that its agent caps and measures. [W]"""
    lease: ClassVar[bool] = True


class BmcNodeCaps(BmcPoolConfig):
    """Caps by the BMCs of the nodes, by the names that Slurm has for them."""

    via: Literal["redfish"]
    lease: ClassVar[bool] = True
    """Kept by the pool of BMCs, which lives as long as we do, and after us by its own journal."""


Caps = Annotated[HttpCaps | AgentNodeCaps | BmcNodeCaps, Field(discriminator="via")]


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
    requeue_tiers: tuple[FlexTier, ...] = ()
    """Last resort: jobs of these tiers with ``vpp:requeue`` in their comment go back into the queue, and lose what is not in a checkpoint."""
    requeue_after_s: NonNegative = 60.0
    """Caps and stops must have been too little for so long before."""
    freeze_partitions: tuple[str, ...] = ()
    """Set DOWN while the budget binds, so that nothing starts; elsewhere pending jobs are held one by one."""
    max_pause_s: dict[FlexTier, NonNegative] = Field(default_factory=lambda: {1: 0.0, 2: 600.0, 3: 1800.0})
    """Longest stop at a time by tier; the average stays within the slow-down the tier allows."""
    min_pause_s: NonNegative = 30.0
    """A job that may not be stopped for as long as this is not stopped at all."""
    extend_time_limit: bool = True
    """Give a stopped job back the time it lost, where the token permits it."""
    stagger_s: NonNegative = 0.2
    """Rest between two jobs when they go on."""
    release_within_s: Positive = 5.0
    """Restoring all jobs takes no longer than this by staggering."""
    orphan_lease_s: Positive = 30.0
    """Touched jobs of an earlier process go on after this time, when nobody has said what to do with them."""
    reserve_for_awards: bool = False
    """Keep nodes free for awarded windows by reservations in Slurm; takes the rights of an operator."""
    journal: Path | None = None
    """What was touched, on disk; without it only the marks in the jobs' comments tell, and those of users are believed."""

    power_source: Literal["slurm", "model", "dcgm", "agents", "redfish"] = "slurm"
    """What tells a node's power: Slurm's energy plugin, nothing (the model below), dcgm-exporter, or what ``caps`` goes by."""
    dcgm: DcgmConfig = DcgmConfig()
    node_idle_w: NonNegative = 2070.0
    """A node with nothing running. [W]"""
    node_max_w: Positive = 8400.0
    """A node with everything running, for nodes that report no power. [W]"""
    gpu_idle_w: NonNegative = 65.0
    gpu_stopped_w: NonNegative = 90.0
    """A GPU whose job is stopped but keeps its memory. [W]"""
    gpu_max_w: Positive = 700.0
    caps: Caps | None = None
    """Who caps nodes."""
    cap_url: str = ""
    """Short for ``caps = {via = "http", url = ...}``."""
    cap_lease: bool = False
    """As ``lease`` there."""
    cap_floor_frac: Fraction = 0.5
    """Never cap below this part of a GPU's (or a CPU node's) limit."""

    @model_validator(mode="after")
    def _reached(self) -> Self:
        if not (self.url or self.command_line):
            raise ValueError("give the url of slurmrestd, or command_line = true")
        if self.url and not (self.token_file or self.renew_token):
            raise ValueError("slurmrestd needs token_file, or renew_token = true")
        if self.renew_token and not self.command_line:
            raise ValueError("renew_token needs command_line = true: tokens come from scontrol")
        return self

    @model_validator(mode="after")
    def _able(self) -> Self:
        by_command = bool(self.freeze_partitions or self.requeue_tiers) or self.stop_method == "suspend"
        if by_command and not self.command_line:
            raise ValueError("suspend, freeze_partitions and requeue_tiers need command_line = true")
        capped_for_good = self.capped_by is not None and not self.capped_by.lease
        if self.journal is None and (self.freeze_partitions or capped_for_good):
            raise ValueError("freeze_partitions, and caps without lease, need a journal: no mark tells how things were")
        return self

    @model_validator(mode="after")
    def _measured(self) -> Self:
        if self.cap_url and self.caps:
            raise ValueError("give caps or cap_url, not both")
        via = self.capped_by.via if self.capped_by is not None else ""
        if self.power_source in ("agents", "redfish") and via != self.power_source:
            raise ValueError(f'power_source = "{self.power_source}" needs caps with via = "{self.power_source}"')
        if self.node_max_w < self.node_idle_w:
            raise ValueError("node_max_w must not be below node_idle_w")
        return self

    @property
    def capped_by(self) -> Caps | None:
        """Return who caps nodes, however it was written."""
        return HttpCaps(via="http", url=self.cap_url, lease=self.cap_lease) if self.cap_url else self.caps

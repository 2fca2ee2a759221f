"""``agent.toml`` as frozen values."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, ValidationError

from vppd.agent.rapl import POWERCAP
from vppd.config.files import BROKER_FILES, file_problems
from vppd.config.grid import BrokerConfig
from vppd.config.table import Fraction, InvalidConfig, Name, NonNegative, Table, problems_of
from vppd.config.toml_file import content_of

DEFAULT_CONFIG = Path("/etc/vppd/agent.toml")
DEFAULT_STATE = Path("/var/lib/vppd-agent")


class BrokerTable(BrokerConfig):
    """``[broker]``: where vppd and its agents meet; without ``client_id`` it is ``vppd-agent-<site>-<node>``."""

    ack_timeout_s: PositiveFloat = 10.0
    backoff_first_s: PositiveFloat = 1.0
    backoff_most_s: PositiveFloat = 30.0


class GpusTable(Table):
    """``[gpus]``: NVIDIA GPUs, by NVML."""

    watch: bool = True
    control: bool = True
    prior_clocks_mhz: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = None
    """SM clocks this site locks without us: NVML cannot tell, so they are put back from here. [MHz]"""


class CpusTable(Table):
    """``[cpus]``: CPU packages, by the kernel's powercap tree."""

    watch: bool = True
    control: bool = False
    powercap: Path = POWERCAP


class AgentConfig(Table):
    """A whole ``agent.toml``."""

    site: Name
    node: Name = Field(default_factory=platform.node, validate_default=True)
    broker: BrokerTable
    gpus: GpusTable = GpusTable()
    cpus: CpusTable = CpusTable()
    cap_floor_frac: Fraction = 0.5
    """No device is ever capped below this part of its default limit: throughput collapses there."""
    telemetry_s: Annotated[float, Field(ge=0.1, le=60.0)] = 1.0
    longest_lease_s: Annotated[float, Field(ge=1.0, le=3600.0)] = 600.0
    restore_spread_s: NonNegative = 0.0
    """When a lease ends, each node waits its own part of this, so that a site does not rise in one step. [s]"""
    state_dir: Path = DEFAULT_STATE
    log: Literal["debug", "info", "warning", "error"] = "info"


def load(path: Path) -> AgentConfig:
    """Return the configuration in ``path``, its relative paths taken from its folder. Raises InvalidConfig."""
    try:
        config = AgentConfig.model_validate(content_of(path))
    except ValidationError as error:
        hint = "see config/agent.example.toml for the keys there are"
        found = (replace(p, allowed=hint) if p.reason == "unknown key" else p for p in problems_of(error))
        raise InvalidConfig(path, tuple(found)) from error
    config = _resolved(config, path.absolute().parent)
    problems = file_problems({f"broker.{key}": getattr(config.broker, key) for key in BROKER_FILES})
    if problems:
        raise InvalidConfig(path, tuple(problems))
    return config


def _resolved(config: AgentConfig, folder: Path) -> AgentConfig:
    files = {key: folder / file for key in BROKER_FILES if (file := getattr(config.broker, key)) is not None}
    broker = config.broker.model_copy(update=files)
    return config.model_copy(update={"broker": broker, "state_dir": folder / config.state_dir})

"""``agent.toml`` as frozen values."""

from __future__ import annotations

import platform
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, ValidationError, model_validator

from vppd.agent.rapl import POWERCAP
from vppd.config import Fraction, InvalidConfig, Name, NonNegative, Problem, Table, problems_of

DEFAULT_CONFIG = Path("/etc/vppd/agent.toml")
DEFAULT_STATE = Path("/var/lib/vppd-agent")
_PATHS = ("ca_file", "cert_file", "key_file", "password_file")


class BrokerTable(Table):
    """``[broker]``: where vppd and its agents meet."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 8883
    protocol: Literal["5", "3.1.1"] = "5"
    client_id: str = ""
    """Default: ``vppd-agent-<site>-<node>``."""
    keepalive_s: Annotated[int, Field(ge=2, le=600)] = 10
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    insecure_lab: bool = False
    """Allow a plaintext broker; never in production."""
    ack_timeout_s: PositiveFloat = 10.0
    backoff_first_s: PositiveFloat = 1.0
    backoff_most_s: PositiveFloat = 30.0

    @model_validator(mode="after")
    def _secure(self) -> Self:
        if self.ca_file is None and not self.insecure_lab:
            raise ValueError("a broker without TLS is refused: give ca_file, or insecure_lab = true in a lab")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        return self


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
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(path, (Problem("-", f"cannot be read: {error.strerror}"),)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(path, (Problem("-", f"is not valid TOML: {error}"),)) from error
    try:
        config = AgentConfig.model_validate(raw)
    except ValidationError as error:
        hint = "see config/agent.example.toml for the keys there are"
        found = (replace(p, allowed=hint) if p.reason == "unknown key" else p for p in problems_of(error))
        raise InvalidConfig(path, tuple(found)) from error
    config = _resolved(config, path.absolute().parent)
    problems = _files(config.broker)
    if problems:
        raise InvalidConfig(path, problems)
    return config


def _resolved(config: AgentConfig, folder: Path) -> AgentConfig:
    files = {key: folder / file for key in _PATHS if (file := getattr(config.broker, key)) is not None}
    broker = config.broker.model_copy(update=files)
    return config.model_copy(update={"broker": broker, "state_dir": folder / config.state_dir})


def _files(broker: BrokerTable) -> tuple[Problem, ...]:
    files = {key: file for key in _PATHS if (file := getattr(broker, key)) is not None}
    found = [
        Problem(f"broker.{key}", f"there is no readable file {file}")
        for key, file in files.items()
        if not file.is_file()
    ]
    found += [
        Problem(f"broker.{key}", f"{file} can be read by others", "mode 0600")
        for key, file in files.items()
        if key in ("key_file", "password_file") and file.is_file() and file.stat().st_mode & 0o077
    ]
    return tuple(found)

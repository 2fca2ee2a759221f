"""``[openadr]``: the server whose programs this site takes part in, and what has been agreed with its operator."""

from __future__ import annotations

from datetime import UTC, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from vppd.config.grid import GrantConfig
from vppd.config.table import Name, NonNegative, Table


class Relative(StrEnum):
    """What the sign of DISPATCH_SETPOINT_RELATIVE means: the specification does not settle it, the program must."""

    CHANGE = "change"
    """A change of consumption: negative means less, positive more."""
    SHED = "shed"
    """An amount to shed, never negative."""


class OpenAdrConfig(Table):
    """One OpenADR 3.1 server."""

    issuer: Name = "openadr"
    """Under this name its orders are journalled."""
    url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")]
    """Where the objects are, up to and with the version: https://vtn.example/openadr3/3.1.0."""
    client_id: str
    client_secret_file: Path
    token_url: str = ""
    """Where tokens are given out; empty: where ``/auth/server`` says, else ``/auth/token``."""
    client_auth: Literal["body", "basic"] = "body"
    """How the secret is shown: in the form, as the specification has it, or as HTTP Basic."""
    scope: str = ""
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    insecure_lab: bool = False
    """Allow plain http and a plaintext notifier; never in production."""
    notifier: bool = True
    """Listen to the MQTT notifier that the server names, so that news are fetched at once."""
    client_name: Name = "vppd"
    """Under this name reports are sent, and our entries at the server are looked up."""
    programs: tuple[str, ...] = ()
    """Names of the programs to take part in; empty: all that the server shows us."""
    targets: dict[str, str] = Field(default_factory=dict)
    """Target of theirs -> site, feed or asset of ours."""
    grants: tuple[GrantConfig, ...] = ()
    """What the server may order; nothing is allowed without one."""
    poll_s: Annotated[float, Field(ge=1.0, le=3600.0)] = 30.0
    timeout_s: Annotated[float, Field(ge=0.1, le=120.0)] = 10.0
    lost_after_s: Annotated[float, Field(ge=1.0)] = 300.0
    """Without an answer for so long the server is lost: limits run out, then the subscription holds."""
    naive_times: str = "utc"
    """What times without a zone are: ``utc``, a time zone such as ``Europe/Helsinki``, or ``refuse``."""
    relative: Relative = Relative.CHANGE
    assume_units: Literal["", "W", "KW", "MW"] = ""
    simple_w: tuple[NonNegative, NonNegative, NonNegative] | tuple[()] = ()
    emergency_limit_w: NonNegative | None = None
    fallback_limit_w: NonNegative | None = None
    discard_after_outage: bool = False
    """After an outage of the grid, seen by every UPS having been on battery, limits are void until they have been fetched again."""
    ahead_h: Annotated[float, Field(ge=2.0, le=8784.0)] = 6.0
    """Orders are put on disk so long before they begin; a restart without the server knows of no later ones."""
    horizon_h: Annotated[float, Field(ge=1.0, le=8784.0)] = 48.0

    @property
    def naive_zone(self) -> tzinfo | None:
        """Return the zone of times that have none, None where such times are refused."""
        if self.naive_times == "refuse":
            return None
        return UTC if self.naive_times == "utc" else ZoneInfo(self.naive_times)

    @field_validator("naive_times")
    @classmethod
    def _zone(cls, said: str) -> str:
        if said not in ("utc", "refuse"):
            try:
                ZoneInfo(said)
            except (ZoneInfoNotFoundError, ValueError) as error:
                raise ValueError(
                    f"there is no time zone {said!r}; allowed: utc, refuse, or one such as Europe/Helsinki"
                ) from error
        return said

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for url in (self.url, self.token_url):
            if url.startswith("http:") and not self.insecure_lab:
                raise ValueError(f"{url} is not encrypted: use https, or insecure_lab = true in a lab")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        if self.lost_after_s < 2 * self.poll_s:
            raise ValueError(
                "lost_after_s must be at least 2 * poll_s: a single lost poll would count as a lost server"
            )
        return self

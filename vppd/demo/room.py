"""The simulated machine room's side door: what is really so, and failures on demand. No real site has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from vppd.errors import Garbled, Unreachable


@dataclass(frozen=True, slots=True)
class Unit:
    """A storage unit as it really is."""

    name: str
    power_w: float
    """[W, + = charging]"""
    soc_frac: float
    reserve_frac: float


@dataclass(frozen=True, slots=True)
class Truth:
    """What is really so in the machine room."""

    storage: tuple[Unit, ...]
    held: tuple[str, ...]
    """What is still held back, one phrase per hall; empty when every job runs as it likes."""
    cancelled: int
    """Jobs killed since the start."""


class Room:
    """Asks the simulated site's control endpoint."""

    def __init__(self, client: httpx.AsyncClient, url: str, reserves_frac: Mapping[str, float]) -> None:
        self._client, self._url, self._reserves = client, f"{url}/vppd-sim/v1", dict(reserves_frac)

    async def truth(self) -> Truth:
        """Return what is really so. Raises Unreachable or Garbled."""
        return read_truth(await self._ask("GET", "state"), self._reserves)

    async def fail(self, device: str, kind: str, for_s: float) -> None:
        """Make a device fail from now on for so long; 0 ends the failure. [s] Raises Unreachable or Garbled."""
        await self._ask("POST", "fault", {"device": device, "kind": kind, "for_s": for_s})

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = await self._client.request(method, f"{self._url}/{path}", json=body)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
        except httpx.HTTPStatusError as error:
            raise Garbled(f"the simulated site answers {error.response.status_code}") from error
        except httpx.HTTPError as error:
            raise Unreachable("the simulated site does not answer") from error
        return found


def read_truth(body: Mapping[str, Any], reserves_frac: Mapping[str, float]) -> Truth:
    """Return the truth in the control endpoint's words. Raises Garbled."""
    try:
        devices = body["devices"]
        storage = tuple(
            Unit(name, devices[name]["power_w"], devices[name]["soc_frac"], reserve_frac)
            for name, reserve_frac in reserves_frac.items()
        )
        held = tuple(text for name, hall in body["halls"].items() if (text := _held(name, hall)))
        return Truth(storage, held, sum(hall["cancelled"] for hall in body["halls"].values()))
    except (KeyError, TypeError) as error:
        raise Garbled(f"the simulated site's state lacks {error}") from error


def _held(name: str, hall: Mapping[str, Any]) -> str:
    counts = {
        "jobs stopped": len(hall["stopped"]),
        "jobs held": len(hall["held"]),
        "nodes capped": sum(cap_w is not None for cap_w in hall["caps_w"].values()),
    }
    found = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{name}: {found}" if found else ""

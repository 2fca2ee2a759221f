"""The green account: what renewables have covered in this hour, day, month or year so far. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from zoneinfo import ZoneInfo

import numpy as np

from vppd.config.planning import GreenPeriod, PlanningConfig
from vppd.core.aggregate import is_storage
from vppd.model import Kind
from vppd.planning.plan.tally import Step
from vppd.snapshot import KINDS, Bools, Plant


@dataclass(frozen=True, slots=True)
class GreenAccount:
    """Energies of one period so far. [Wh]"""

    start: datetime
    end: datetime
    used_wh: float = 0.0
    """What PV and wind gave, less what was exported."""
    contracted_wh: float = 0.0
    """What of the import was covered by contracts."""
    available_wh: float = 0.0
    """What PV and wind could have given."""
    load_wh: float = 0.0
    """What the share is of."""

    def to_body(self) -> dict[str, Any]:
        """Return plain JSON values that ``from_body`` turns back into an equal account."""
        return asdict(self) | {"start": self.start.isoformat(), "end": self.end.isoformat()}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """Return the account that ``to_body`` described. Raises KeyError, TypeError or ValueError for anything else."""
        start, end = (datetime.fromisoformat(body[key]) for key in ("start", "end"))
        if start.tzinfo is None or end.tzinfo is None:
            raise ValueError("a green period has no offset from UTC")
        names = ("used_wh", "contracted_wh", "available_wh", "load_wh")
        return cls(start, end, **{name: float(body[name]) for name in names})


def account_at(account: GreenAccount | None, at: datetime, period: GreenPeriod, zone: ZoneInfo) -> GreenAccount:
    """Return the account to go on with at a moment: an empty one where a period begins, or another kind of it is asked for."""
    start, end = period_of(at, period, zone)
    return account if account is not None and (account.start, account.end) == (start, end) else GreenAccount(start, end)


def period_of(at: datetime, period: GreenPeriod, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return when the period that a moment lies in begins and ends, by the calendar of the zone, in UTC."""
    local = at.astimezone(zone)
    if period == "hour":
        start = at - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        return start.astimezone(UTC), (start + timedelta(hours=1)).astimezone(UTC)
    month, day = (1, 1) if period == "year" else (local.month, 1 if period == "month" else local.day)
    first = datetime(local.year, month, day, tzinfo=zone)
    if period == "year":
        last = first.replace(year=local.year + 1)
    elif period == "month":
        last = first.replace(year=local.year + month // 12, month=month % 12 + 1)
    else:
        last = first + timedelta(days=1)  # of the wall clock: 23 or 25 hours where it changes
    return first.astimezone(UTC), last.astimezone(UTC)


def counted(
    account: GreenAccount, step: Step, contracted_w: float, step_h: float, plant: Plant, terms: PlanningConfig
) -> GreenAccount:
    """Return the account with a step that is over; one of which not everything was measured does not count."""
    source = _of(plant, Kind.PV, Kind.WIND)
    export_w = max(-step.import_w, 0.0)
    available_w = float(np.maximum(-step.unheld_w[source], 0.0).sum())
    if terms.green_of == "compute":
        load_w = float(step.power_w[_of(plant, Kind.CLUSTER)].sum())
    else:
        load_w = step.import_w + step.renewable_w - float(step.power_w[is_storage(plant)].sum())
    if not np.isfinite([step.import_w, step.renewable_w, available_w, load_w]).all():
        return account
    return replace(
        account,
        used_wh=account.used_wh + (step.renewable_w - export_w) * step_h,
        contracted_wh=account.contracted_wh + min(max(step.import_w, 0.0), contracted_w) * step_h,
        available_wh=account.available_wh + max(available_w, step.renewable_w) * step_h,
        load_wh=account.load_wh + max(load_w, 0.0) * step_h,
    )


def green_view(account: GreenAccount | None, terms: PlanningConfig) -> dict[str, Any] | None:
    """Return the period so far and what is asked for as plain JSON values; None where no rule is."""
    if account is None:
        return None
    covered_wh = account.used_wh + account.contracted_wh
    shares = {
        "share_of_load_frac": covered_wh / account.load_wh if account.load_wh > 0.0 else None,
        "self_use_frac": account.used_wh / account.available_wh if account.available_wh > 0.0 else None,
    }
    asked = {"share_of_load_frac": terms.green_load_frac, "self_use_frac": terms.green_self_use_frac}
    body = {key: round(value, 1) if isinstance(value, float) else value for key, value in account.to_body().items()}
    return body | {"period": terms.green_period, "of": terms.green_of, "so_far": shares, "asked": asked}


def _of(plant: Plant, *kinds: Kind) -> Bools:
    return np.asarray(np.isin(plant.kind, [KINDS.index(kind) for kind in kinds]))

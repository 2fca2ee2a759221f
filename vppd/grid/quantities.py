"""Powers and intervals as DSX Flex writes them; kW and MW exist only here."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from vppd.grid.fields import Fields, stamp
from vppd.grid.reasons import Defect, Reason
from vppd.grid.strict_json import Json
from vppd.model import Interval

WATTS = {"watt": 1.0, "kilowatt": 1e3, "megawatt": 1e6}
MOST_W = 1e12
"""A power beyond this is a mistake whatever the site. [W]"""
HORIZON = timedelta(days=366)
"""Nothing is scheduled further ahead."""


def read_power(fields: Fields) -> float:
    """Return a PowerUnit. [W, >= 0] Raises Defect (bad_power) for a negative one or one beyond reason."""
    value, unit = fields.number("value"), fields.word("unit", tuple(WATTS))
    fields.done()
    power_w = value * WATTS[unit]
    if not 0.0 <= power_w <= MOST_W:
        raise Defect(Reason.BAD_POWER, f"a power of {value:g} {unit} is out of range")
    return power_w


def read_interval(fields: Fields | None, at: datetime) -> Interval:
    """Return the interval; its start is ``at`` when omitted, its end None (until replaced).

    Raises Defect: bad_interval when it is empty or too far ahead, expired when it is over.
    """
    start = fields.maybe(fields.time, "start_time") if fields else None
    end = fields.maybe(fields.time, "end_time") if fields else None
    if fields:
        fields.done()
    interval = Interval(start or at, end)
    if end is not None and end <= at:
        raise Defect(Reason.EXPIRED, f"the interval ended at {stamp(end)}")
    if end is not None and end <= interval.start:
        raise Defect(Reason.BAD_INTERVAL, "the interval ends before it starts")
    if interval.start - at > HORIZON:
        raise Defect(Reason.BAD_INTERVAL, f"the interval starts more than {HORIZON.days} days ahead")
    return interval


def power_unit(power_w: float) -> dict[str, Json]:
    """Return a PowerUnit in watt; export counts as 0, which is all the format can say. [W, + = consumption]"""
    return {"value": _rounded(max(power_w, 0.0)), "unit": "watt"}


def signed_power(power_w: float) -> dict[str, Json]:
    """Return a power that may be negative, in watt. [W, + = consumption]"""
    return {"value": _rounded(power_w), "unit": "watt"}


def interval_json(interval: Interval) -> dict[str, Json]:
    """Return an Interval with the end left out when it has none."""
    found: dict[str, Json] = {"start_time": stamp(interval.start)}
    if interval.end is not None:
        found["end_time"] = stamp(interval.end)
    return found


def given(**values: Json) -> dict[str, Json]:
    """Return the values that are not None and not NaN: what is missing is left out."""
    return {k: v for k, v in values.items() if v is not None and not (isinstance(v, float) and not math.isfinite(v))}


def _rounded(power_w: float) -> float:
    """Keep it a number that JSON can hold, with no negative zero."""
    return round(min(max(power_w, -MOST_W), MOST_W), 3) + 0.0

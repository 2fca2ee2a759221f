"""The chain from an order to what an asset does, in sentences for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

JOBS_SHOWN = 20
WORTH_SAYING_W = 50.0


def why_lines(found: Mapping[str, Any], jobs_shown: int = JOBS_SHOWN) -> Iterator[str]:
    """Yield the chain, one line each, in its order."""
    state = found["state"]
    well = "" if state["severity"] == "none" else f", {state['severity']}: {state['failsafe']}"
    link = "" if state["online"] else ", offline"
    yield f"{found['asset']} ({found['kind']} on {found['feed']}) at {_at(found['at'])}: {_kw(state['power_w'])}{link}{well}"
    yield from _orders(found)
    yield from _told(found)
    if found["chosen"] is not None:
        yield from _chosen(found["chosen"], jobs_shown)
    if found["measured"] is not None:
        yield from _measured(found["measured"])
    for other in found["covered_by"]:
        yield f"covered  {other['asset']} at {_kw(other['power_w'])}, told {_kw(other['setpoint_w'])}: {other['reason']}"


def _orders(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["orders"]:
        yield "ordered  nothing: no order bears on it"
    for order in found["orders"]:
        until = _at(order["end"]) if order["end"] else "replaced"
        yield (
            f"ordered  {order['kind']} {_kw(order['power_w'])} on {order['resource']} by {order['issuer']}, "
            f"order {order['order_id']}, {_at(order['start'])} until {until}"
        )
    for need in found["needs"]:
        bounds = list(_bounds(need))
        if bounds:
            missing = "" if not need["shortfall_w"] else f", short by {_kw(abs(need['shortfall_w']))}"
            yield (
                f"needed   {need['node']} draws {_kw(need['power_w'])}; {'; '.join(bounds)}; "
                f"planned {_kw(need['planned_w'])}{missing}"
            )


def _bounds(need: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a node is to draw at most and at least."""
    if need["limit_w"] is not None:
        yield f"at most {_kw(need['limit_w'])} by the ramp, {_kw(need['target_w'])} in the end"
    if need["least_w"] is not None:
        yield f"at least {_kw(need['least_w'])} by the ramp, {_kw(need['least_target_w'])} in the end"


def _told(found: Mapping[str, Any]) -> Iterator[str]:
    wanted, told = found["wanted"], found["told"]
    yield f"decided  {wanted['command']} {_kw(wanted['setpoint_w'])}: {wanted['reason']}".replace(" -:", ":")
    if told is None:
        yield "told     nothing since the start"
        return
    what = "given back to itself" if told["power_w"] is None else f"told {_kw(told['power_w'])}"
    cause = f" because of {told['cause']}" if told["cause"] else ""
    outcome = "under way" if told["outcome"] is None else f"{told['outcome']} at {_at(told['outcome_at'])}"
    readback = "" if told["readback_w"] is None else f", reads back {_kw(told['readback_w'])}"
    detail = f" ({told['detail']})" if told["detail"] else ""
    yield f"told     {what}{cause} at {_at(told['at'])}: {outcome}{readback}{detail}"


def _chosen(chosen: Mapping[str, Any], jobs_shown: int) -> Iterator[str]:
    short = f", {_kw(chosen['short_w'])} that nobody may give" if chosen["short_w"] else ""
    back = "; power comes back step by step" if chosen["gives_back"] else ""
    yield (
        f"chosen   at {_at(chosen['at'])}: aims at {_kw(chosen['aimed_w'])} of {_kw(chosen['budget_w'])}, expects "
        f"{_kw(chosen['expected_w'])}{short}{back}"
    )
    for job in chosen["jobs"][:jobs_shown]:
        in_force = job["in_force"] if isinstance(job["in_force"], str) else f"{job['in_force']:.0%}"
        yield f"         job {job['id']}: {job['reason']}; in force: {in_force}"
    if (left_out := len(chosen["jobs"]) - jobs_shown) > 0:
        yield f"         and {left_out} more (--json shows all)"
    yield f"         {chosen['at_full_speed']} jobs at full speed"


def _measured(measured: Mapping[str, Any]) -> Iterator[str]:
    if measured["before_w"] is None:
        yield f"measured {_kw(measured['now_w'])}, nothing is held"
    else:
        share = (
            "" if measured["delivered_frac"] is None else f": {measured['delivered_frac']:.0%} of the drop is delivered"
        )
        short = f", short by {_kw(measured['short_w'])}" if measured["short_w"] else ""
        deeper = (
            f"; the next plan goes {_kw(measured['correction_w'])} deeper"
            if measured["correction_w"] > WORTH_SAYING_W
            else ""
        )
        yield (
            f"measured {_kw(measured['before_w'])} before, {_kw(measured['expected_w'])} expected, "
            f"{_kw(measured['now_w'])} now{share}{short}{deeper}"
        )
    for step in measured["steps"][-3:]:
        short = f", short by {_kw(step['short_w'])}" if step["short_w"] else ""
        yield (
            f"verified at {_at(step['at'])}: budget {_kw(step['budget_w'])}, measured {_kw(step['measured_w'])}, "
            f"{step['delivered_frac']:.0%} delivered{short}"
        )


def _kw(power_w: float | None) -> str:
    return "-" if power_w is None else f"{power_w / 1e3:.1f} kW"


def _at(when: str) -> str:
    """Return a time without its fractions of a second."""
    return datetime.fromisoformat(when).strftime("%Y-%m-%d %H:%M:%S %Z")

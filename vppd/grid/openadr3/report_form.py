"""How a report of ours looks to an OpenADR server: every place for itself or all in one, in the units asked for. Pure.

A value that is not known is told as MISSING, and never as 0.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, Protocol

from vppd.grid.fields import stamp
from vppd.grid.openadr3.model import ReportDescriptor
from vppd.grid.openadr3.reports import ENERGIES, MOST_INTERVALS, PLAIN, POWERS, Due, Span
from vppd.grid.openadr3.trail import STATES
from vppd.model import Interval

POWER, ENERGY = {"W": 1.0, "KW": 1e3, "MW": 1e6}, {"WH": 1.0, "KWH": 1e3, "MWH": 1e6}
AGGREGATED = "AGGREGATED_REPORT"
PARTIAL = frozenset(
    {
        "GENERATION_DELTA_AVAILABLE", "UP_REGULATION_AVAILABLE", "DOWN_REGULATION_AVAILABLE", "STORAGE_CHARGE_LEVEL",
        "STORAGE_MAX_CHARGE_POWER", "STORAGE_MAX_DISCHARGE_POWER", "STORAGE_USABLE_CAPACITY",
    }
)  # fmt: skip
"""Not every place has these: of several, those that have are added up."""

Value = float | str | None
"""W, Wh, a fraction or a word; None when it is not known."""


class Figures(Protocol):
    """Whoever knows what was measured and what is foreseen."""

    def __call__(self, payload_type: str, name: str, interval: Interval) -> Value:
        """Return what there is to say of the site, a feed or an asset for a time."""
        ...

    def watch(self, names: Collection[str]) -> None:
        """Keep account of these feeds and assets from now on; of the site in any case."""
        ...

    def outermost(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the names that lie within no other of them."""
        ...


def report_body(due: Due, client_name: str, places: Mapping[str, str], figures: Figures) -> dict[str, Any]:
    """Return the report as the server wants it; ``places`` has their names for ours."""
    wanted = due.descriptor
    units = wanted.units or _units(wanted.payload_type)
    spans = due.spans[: max(1, MOST_INTERVALS // max(1, len(places)))]
    told = (
        {AGGREGATED: tuple(places.values())} if wanted.aggregate else {label: (name,) for label, name in places.items()}
    )
    number = f".{due.number + 1}" if due.number else ""
    return {
        "eventID": due.event.id,
        "clientName": client_name,
        "reportName": f"{due.event.id}-{wanted.payload_type}{number}-{stamp(due.at)}",
        "payloadDescriptors": [_descriptor(wanted, units)],
        "resources": [
            {
                "resourceName": label,
                "intervals": [_told(span, wanted.payload_type, units, names, figures) for span in spans],
            }
            for label, names in told.items()
        ],
    }


def _descriptor(wanted: ReportDescriptor, units: str) -> dict[str, str]:
    said = {"objectType": "REPORT_PAYLOAD_DESCRIPTOR", "payloadType": wanted.payload_type, "units": units}
    said["readingType"] = wanted.reading_type or ("" if wanted.historical else "FORECAST")
    return {key: word for key, word in said.items() if word}


def _units(payload_type: str) -> str:
    return "KW" if payload_type in POWERS else "KWH" if payload_type in ENERGIES else PLAIN[payload_type]


def _told(span: Span, payload_type: str, units: str, names: tuple[str, ...], figures: Figures) -> dict[str, Any]:
    value = _aggregated(payload_type, names, Interval(span.start, span.end), figures)
    value = _converted(value, payload_type, units, span)
    payload: Mapping[str, Any] = {"type": payload_type, "values": [value]}
    if value is None:
        payload = {"type": "DATA_QUALITY", "values": ["MISSING"]}
    seconds = (span.end - span.start).total_seconds()
    period = {"start": stamp(span.start), "duration": f"PT{seconds:.6f}".rstrip("0").rstrip(".") + "S"}
    return {"id": span.id, "intervalPeriod": period, "payloads": [payload]}


def _aggregated(payload_type: str, names: tuple[str, ...], interval: Interval, figures: Figures) -> Value:
    """Return what there is to say of several places together; what lies within another counts once."""
    if len(names) == 1:
        return figures(payload_type, names[0], interval)
    outer = figures.outermost(names)
    known = {name: value for name in outer if (value := figures(payload_type, name, interval)) is not None}
    if not known or (len(known) < len(outer) and payload_type not in PARTIAL):
        return None
    if payload_type == "OPERATING_STATE":
        return max(map(str, known.values()), key=_gravity)
    amounts = {name: float(value) for name, value in known.items()}
    return _level(amounts, interval, figures) if payload_type == "STORAGE_CHARGE_LEVEL" else sum(amounts.values())


def _level(levels: Mapping[str, float], interval: Interval, figures: Figures) -> float | None:
    """Return the level of all storage together: the larger one counts for more. [0-1]"""
    sizes = {name: figures("STORAGE_USABLE_CAPACITY", name, interval) for name in levels}
    weights = {name: size for name, size in sizes.items() if isinstance(size, float)}
    total_wh = sum(weights.values())
    if len(weights) < len(levels) or total_wh <= 0.0:
        return None
    return sum(level * weights[name] for name, level in levels.items()) / total_wh


def _gravity(state: str) -> int:
    """Return how much a state says of the whole: the gravest is that of all together."""
    order = ("NORMAL", "RUNNING_CURTAILED", "RUNNING_OPTED_OUT", "ERROR")
    return order.index(state) if state in STATES else -1


def _converted(value: float | str | None, payload_type: str, units: str, span: Span) -> float | str | None:
    """Return the value in the units asked for; a power asked for as energy is over the span. None: these units are not ours."""
    if value is None or isinstance(value, str) or payload_type in PLAIN:
        return value
    hours = (span.end - span.start) / timedelta(hours=1)
    if payload_type in POWERS:
        return value / POWER[units] if units in POWER else value * hours / ENERGY[units] if units in ENERGY else None
    return value / ENERGY[units] if units in ENERGY else value / hours / POWER[units] if units in POWER else None

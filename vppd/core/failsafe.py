"""The failsafe table: condition -> severity -> action -> clear rule, as data.

The most severe active row wins. Docs and tests are generated from ``RULES`` and ``SITE_RULES``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from vppd.snapshot import Bools, Floats, Health, Ints


class Severity(IntEnum):
    """How much is taken away; higher includes lower."""

    NONE = 0
    WARN = 1
    HOLD = 2
    """No new orders; what runs goes on."""
    RELEASE = 3
    """Ramp back to baseline."""
    PROTECT = 4
    """Stop discharging now; charging is allowed."""
    ISOLATE = 5
    """No writes to that asset."""
    LOCKOUT = 6
    """No writes at all, until the operator clears it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table."""

    name: str
    condition: str
    severity: Severity
    action: str
    clear_after_s: float
    """How long the condition must be gone before the row clears; inf: only the operator clears it. [s]"""


SOC_MARGIN_FRAC = 0.02
"""Held above the reserve for the error of SoC estimates. [0-1]"""
SOC_WARN_FRAC = 0.05
"""Warning band above that. [0-1]"""

FOLLOWS_WITHIN_FRAC = 0.25
"""Storage this part of its rating away from its setpoint does not follow it. [0-1]"""
FOLLOWS_WITHIN_S = 10.0
"""If it stays so for this long. [s]"""

RULES: tuple[Rule, ...] = (
    Rule("soc_warn", "state of charge within 5 % of the reserve's margin", Severity.WARN, "warn", 0.0),
    Rule("soc_act", "state of charge at the reserve plus 2 %", Severity.PROTECT, "stop discharging this asset", 300.0),
    Rule(
        "soc_stale",
        "no believable state of charge for longer than the stale limit",
        Severity.PROTECT,
        "count on its pessimistic bound, stop discharging this asset",
        30.0,
    ),
    Rule(
        "on_battery",
        "a UPS on this feed carries its load from the battery",
        Severity.ISOLATE,
        "freeze dispatch on the feed, never counter the UPS",
        300.0,
    ),
    Rule(
        "silent",
        "no answer for longer than the stale limit",
        Severity.ISOLATE,
        "no writes; others take its share; its own lease lets go",
        3.0,
    ),
    Rule(
        "rejected",
        "a write was refused or read back as something else",
        Severity.ISOLATE,
        "no writes until a read shows it has been resolved",
        10.0,
    ),
    Rule(
        "not_following",
        "storage acknowledges its setpoint but its power stays more than 25 % of the rating away from it for 10 s",
        Severity.ISOLATE,
        "no writes; others take its share; tried again afterwards",
        60.0,
    ),
    Rule("faulty", "the device reports a fault of its own", Severity.ISOLATE, "no writes; others take its share", 10.0),
)
"""Rows judged for each asset."""

SITE_RULES: tuple[Rule, ...] = (
    Rule("not_ready", "ledger not replayed or devices not yet tried", Severity.PROTECT, "write nothing", 0.0),
    Rule(
        "link_lost",
        "no dispatch broker for longer than the limit",
        Severity.HOLD,
        "running orders go on to their end",
        0.0,
    ),
    Rule("clock", "clock unsynchronised or stepped", Severity.HOLD, "refuse new time-bound orders", 60.0),
    Rule("ledger_fault", "commits fail", Severity.HOLD, "no receipts, no new orders", 0.0),
    Rule("ledger_fault_long", "commits have failed for 30 s", Severity.RELEASE, "ramp back to baseline", 0.0),
    Rule("ledger_corrupt", "ledger corrupt or hash chain broken", Severity.LOCKOUT, "no writes at all", np.inf),
    Rule("late", "cycle more than two beats late", Severity.WARN, "warn", 0.0),
    Rule(
        "meter_stale",
        "a feed's meter is silent",
        Severity.HOLD,
        "go on with the last inflexible load and the assets' own meters",
        0.0,
    ),
    Rule("operator", "operator release", Severity.RELEASE, "ramp back to baseline; wins over the grid", np.inf),
)
"""Rows judged for the whole site."""

LEDGER_RELEASE_AFTER_S = 30.0


def asset_conditions(facts: Mapping[str, Bools]) -> Bools:
    """Return which rows of RULES hold now, shape (r, n), from one column of facts per row."""
    return np.stack([facts[rule.name] for rule in RULES])


_LEVEL = np.array([rule.severity for rule in RULES], dtype=np.int8)
_CLEAR_S = np.array([rule.clear_after_s for rule in RULES])
_WORST_FIRST = np.argsort(-_LEVEL, kind="stable")


def judge(conditions: Bools, tripped_s: Floats, mono_s: float) -> tuple[Ints, Ints, Floats]:
    """Return severity (n,), row behind it (n,) with -1 for none, and the new trip times (r, n).

    A row stays active until its condition has been gone for ``clear_after_s``; the most severe active row wins.
    """
    tripped = np.where(conditions, mono_s, tripped_s)
    active = conditions | (mono_s - tripped < _CLEAR_S[:, None])
    severity = np.where(active, _LEVEL[:, None], 0).max(axis=0)
    ordered = active[_WORST_FIRST]
    row = np.where(ordered.any(axis=0), _WORST_FIRST[ordered.argmax(axis=0)], -1)
    return severity.astype(np.int64), row.astype(np.int64), tripped


def judge_site(health: Health, meter_stale: bool, cycle_s: float) -> tuple[Severity, tuple[str, ...]]:
    """Return the worst severity of the site rules and the names of all that are active, worst first."""
    holds = {
        "not_ready": not health.ready,
        "link_lost": health.link_lost,
        "clock": not health.clock_ok,
        "ledger_fault": not health.ledger_ok,
        "ledger_fault_long": health.ledger_fault_s > LEDGER_RELEASE_AFTER_S,
        "ledger_corrupt": health.ledger_corrupt,
        "late": health.late_s > 2 * cycle_s,
        "meter_stale": meter_stale,
        "operator": health.operator_release,
    }
    active = sorted((rule for rule in SITE_RULES if holds[rule.name]), key=lambda rule: -rule.severity)
    return (active[0].severity if active else Severity.NONE), tuple(rule.name for rule in active)


def table_markdown() -> str:
    """Return both tables as Markdown, for the docs."""
    rows = [("asset", rule) for rule in RULES] + [("site", rule) for rule in SITE_RULES]
    head = "| scope | row | condition | severity | action | clears |\n|---|---|---|---|---|---|\n"
    return head + "".join(
        f"| {scope} | {r.name} | {r.condition} | {r.severity.name} | {r.action} | {_clears(r)} |\n" for scope, r in rows
    )


def _clears(rule: Rule) -> str:
    if np.isinf(rule.clear_after_s):
        return "by the operator"
    return "at once" if rule.clear_after_s == 0 else f"after {rule.clear_after_s:g} s without it"

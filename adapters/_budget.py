"""What a cluster says of a power budget that it was given."""

from __future__ import annotations

from collections.abc import Iterable

from vppd.model import Applied

SLACK_W = 1.0
"""Power this close to a budget keeps it. [W]"""


def applied(budget_w: float, expected_w: float, said: Iterable[str]) -> Applied:
    """Return the budget when what is expected keeps to it, else the power to expect and by how much it is too much. [W]"""
    detail = [text for text in said if text]
    if expected_w - budget_w <= SLACK_W:
        return Applied(budget_w, "; ".join(detail))
    return Applied(expected_w, "; ".join([*detail, f"short by {expected_w - budget_w:.0f} W"]))

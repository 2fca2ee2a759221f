"""28 days of trading in virtual time: what was sold, delivered, stated and earned, beside what perfect foresight would earn.

``python -m tests.bench.bench_season [DAYS [SEED]]``; a JSON line for all of it and one for each product.
"""

from __future__ import annotations

import json
import logging
import sys
from time import process_time
from typing import Any

import numpy as np
import structlog

from tests.market.season import Season
from tests.market.season_report import WHOLE_FRAC, Report, Tally

DAYS = 28
SEED = 1
SHORT_FRAC = 0.01
"""No more than this of what was obliged may be missing. [0-1]"""
PRODUCT_SHORT_FRAC = 0.02
"""The same of one product: after a reduction that was called beside an increase, power comes back by the site's ramp. [0-1]"""
ALLOWED_S = 300.0
"""For 28 days, on one core. [s]"""


def measure(days: int = DAYS, seed: int = SEED) -> list[dict[str, Any]]:
    """Return the figures of a season, of everything and of each product; a limit beside what has one."""
    begin_s = process_time()
    report = Season(days, seed).run()
    took_s = process_time() - begin_s
    known = Season(days, seed, foresight=True).run()
    case = f"{days} days, seed {seed}"
    return [_whole(case, report, known, took_s), *(_of(case, name, tally) for name, tally in report.products.items())]


def _whole(case: str, report: Report, known: Report, took_s: float) -> dict[str, Any]:
    missing = [award_id for award_id, count in report.statements.items() if count != 1]
    return {
        "bench": "season",
        "case": case,
        "offers": report.offers,
        "awards": report.awards,
        "obligations": report.obligations,
        "statements": len(report.statements),
        "awards_without_one_statement": report.obligations - len(report.statements) + len(missing),
        "limit_awards_without_one_statement": 0,
        "sold_twice": len(report.sold_twice),
        "limit_sold_twice": 0,
        "obliged_kwh": round(float(report.obliged_wh) / 1e3, 1),
        "delivered_kwh": round(float(report.delivered_wh) / 1e3, 1),
        "missing_frac": round(1.0 - report.delivered_frac, 5),
        "limit_missing_frac": SHORT_FRAC,
        "ready_mean_frac": round(float(np.mean(report.held_frac)), 4),
        "ready_awards_whole_frac": round(float(np.mean(np.asarray(report.held_frac) >= WHOLE_FRAC)), 4),
        "revenue": float(report.owed),
        "revenue_foresight": float(known.owed),
        "revenue_of_foresight_frac": round(float(report.owed / known.owed), 4),
        "cpu_s": round(took_s, 1),
        "limit_cpu_s": ALLOWED_S,
    }


def _of(case: str, name: str, tally: Tally) -> dict[str, Any]:
    return {
        "bench": "season",
        "case": f"{case}, {name} ({tally.direction})",
        "awards": tally.awards,
        "obliged_kwh": round(float(tally.obliged_wh) / 1e3, 1),
        "delivered_kwh": round(float(tally.delivered_wh) / 1e3, 1),
        "missing_frac": round(1.0 - tally.delivered_frac, 5),
        "limit_missing_frac": PRODUCT_SHORT_FRAC,
        "revenue": float(tally.owed),
    }


def main(argv: list[str]) -> None:
    """Print the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for line in measure(*(int(text) for text in argv)):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

"""``python -m vppd.planning.trade.worker``: computes the offers of one round, JSON in, JSON out, in a process of its own."""

from __future__ import annotations

import json
import sys

from vppd.core.bidding.offering import offering
from vppd.planning.trade.offer_form import Answer, Question, answer_form, question


def answered(asked: Question) -> Answer:
    """Return the bids of a round. Raises ValueError when samples do not belong together."""
    steps = asked.shelf.steps
    found = offering(
        asked.sales, asked.shelf.stocks, asked.held, start=steps.start, step_s=steps.step_s, limit_s=asked.limit_s,
        rooms=asked.shelf.rooms,
    )  # fmt: skip
    short_w = {sold.award_id: w for sold, w in zip(asked.held, found.short_w, strict=True) if w > 0.0}
    return Answer(found.bids, found.unsold, short_w, found.status)


def main() -> None:
    """Answer one question from standard input; end with a status that is not 0 when it makes no sense."""
    try:
        given = answered(question(json.load(sys.stdin)))
    except (KeyError, TypeError, ValueError) as error:
        sys.exit(f"the question cannot be answered: {error!r}")
    json.dump(answer_form(given), sys.stdout, allow_nan=False)


if __name__ == "__main__":
    main()

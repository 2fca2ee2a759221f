"""The schedule of OpenADR events: now and for ever, loops, truncation, late joiners, chance, priority, comms loss."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vppd.grid.openadr3.model import Event, Period
from vppd.grid.openadr3.reading import read
from vppd.grid.openadr3.schedule import MOST_PIECES, NEVER, Note, Piece, Scene, Why, fall_back, settle
from vppd.grid.openadr3.unroll import unroll

ORACLE: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "openadr3_oracle.json").read_text())
AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
Limit = "IMPORT_CAPACITY_LIMIT"


def _period(start: str | None = None, duration: str | None = None, chance: str | None = None) -> dict[str, str]:
    said = {"start": start, "duration": duration, "randomizeStart": chance}
    return {key: value for key, value in said.items() if value is not None}


def _slot(number: int, *values: object, period: dict[str, str] | None = None, kind: str = Limit) -> dict[str, Any]:
    slot: dict[str, Any] = {"id": number, "payloads": [{"type": kind, "values": list(values)}]}
    return slot | ({"intervalPeriod": period} if period else {})


def _event(event_id: str = "e", *slots: dict[str, Any], **more: Any) -> Event:
    raw = {"id": event_id, "programID": "p", "intervals": list(slots) or [_slot(0, 1.0)]}
    raw |= {"modificationDateTime": "2026-03-02T11:30:00Z"}
    return read(Event, raw | more)


def _hours(at: datetime | None) -> float | None:
    return None if at is None else (at - AT) / HOUR


def _spans(event: Event, at: datetime = AT, **scene: Any) -> list[tuple[float, float | None, Any]]:
    """Return the pieces as (start, end, value), in hours from AT."""
    pieces, _ = unroll(event, None, Scene(at, "seed", **scene))
    return [((p.start - AT) / HOUR, _hours(p.end), p.values[0]) for p in pieces]


def _why(event: Event, at: datetime = AT, **scene: Any) -> list[Why]:
    return [note.why for note in unroll(event, None, Scene(at, "seed", **scene))[1]]


@pytest.mark.parametrize("case", [c for c in ORACLE["events"] if c["read"]["periods"]], ids=lambda c: c["raw"]["id"])
def test_periods_as_the_oracle_resolves_them(case: dict[str, Any]) -> None:
    """Intervals start and end where another implementation of inheritance and calendar has them."""
    raw = {k: v for k, v in case["raw"].items() if k != "duration"}
    raw["intervalPeriod"] = {k: v for k, v in raw.get("intervalPeriod", {}).items() if k != "randomizeStart"}
    at = min(datetime.fromisoformat(start) for start, _ in case["read"]["periods"])
    pieces, notes = unroll(read(Event, raw), None, Scene(at, "seed", horizon=timedelta(days=4000)))
    assert not notes
    wanted = [[datetime.fromisoformat(t) for t in period] for period in case["read"]["periods"]]
    assert [[p.start, p.end] for p in pieces] == wanted


def test_now_and_for_ever() -> None:
    """0001-01-01 with P9999Y is in force from when it was written, without an end."""
    assert _spans(_event(intervalPeriod=_period("0001-01-01", "P9999Y"))) == [(-0.5, None, 1.0)]


def test_now_counts_from_the_writing_and_not_from_our_restart() -> None:
    """A one-hour do-it-now event that was written two hours ago is over, whoever sees it for the first time now."""
    event = _event(intervalPeriod=_period("0001-01-01T00:00:00", "PT1H"))
    assert _spans(event) == [(-0.5, 0.5, 1.0)]
    assert _why(event, AT + HOUR) == [Why.OVER]


def test_now_on_a_server_whose_clock_is_behind() -> None:
    """An event that was not there a minute ago cannot be five hours old, whatever its stamp says; without that knowledge it is over."""
    event = _event(intervalPeriod=_period("0001-01-01T00:00:00Z", "PT1H"), modificationDateTime="2026-03-02 07:00:00")
    minute_ago = AT - timedelta(minutes=1)
    assert _spans(event, absent={"e": minute_ago}) == [(-1 / 60, 59 / 60, 1.0)]
    assert _why(event) == [Why.OVER]


def test_now_on_a_server_whose_clock_is_ahead() -> None:
    """Where the server's stamp lies in our future, now is when we first saw the event."""
    event = _event(intervalPeriod=_period("0001-01-01", "PT1H"), modificationDateTime="2026-03-02T18:00:00Z")
    assert _spans(event, seen={"e": AT - HOUR / 4}) == [(-0.25, 0.75, 1.0)]


def test_follow_the_interval_before() -> None:
    """A later interval that starts at 0001-01-01, or says no start, begins where the one before it ends."""
    event = _event(
        "e",
        _slot(0, 1, period=_period("2026-03-02T12:00:00Z", "PT1H")),
        _slot(1, 2, period=_period("0001-01-01", "PT2H")),
        _slot(2, 3, period=_period(None, "PT30M")),
    )
    assert _spans(event) == [(0.0, 1.0, 1), (1.0, 3.0, 2), (3.0, 3.5, 3)]


def test_a_late_joiner_skips_ahead() -> None:
    """Of a running event only what is not over counts, and the running interval keeps its own start."""
    event = _event("e", *(_slot(i, i) for i in range(25)), intervalPeriod=_period("2026-03-02T00:00:00Z", "PT1H"))
    assert _spans(event)[0] == (0.0, 1.0, 12)
    assert _spans(event, AT + HOUR / 2)[0] == (0.0, 1.0, 12)
    assert len(_spans(event)) == 13


def test_over_when_parsed() -> None:
    """An event whose intervals have passed does nothing and says so, to the very end of it."""
    event = _event(intervalPeriod=_period("2026-03-02T11:00:00Z", "PT1H"))
    assert _spans(event, AT - timedelta(microseconds=1)) == [(-1.0, 0.0, 1.0)]
    assert (_spans(event), _why(event)) == ([], [Why.OVER])


@pytest.mark.parametrize(
    "more",
    [
        {"intervalPeriod": _period("0001-01-01", "PT0S")},
        {"intervalPeriod": _period("2026-03-02T13:00:00Z", "PT1H"), "duration": "PT0S"},
    ],
)
def test_called_off_by_duration(more: dict[str, Any]) -> None:
    """An event of no duration has been called off."""
    assert (_spans(_event(**more)), _why(_event(**more))) == ([], [Why.CANCELLED])


def test_a_duration_truncates() -> None:
    """A shorter event duration cuts the running interval and leaves out the later ones."""
    event = _event(
        "e", *(_slot(i, i) for i in range(4)), intervalPeriod=_period("2026-03-02T12:00:00Z", "PT1H"), duration="PT90M"
    )
    assert _spans(event) == [(0.0, 1.0, 0), (1.0, 1.5, 1)]


def test_a_duration_loops() -> None:
    """A longer event duration repeats the intervals and cuts the last round."""
    event = _event(
        "e", _slot(0, 5), _slot(1, 6), intervalPeriod=_period("2026-03-02T12:00:00Z", "PT1H"), duration="PT5H"
    )
    assert _spans(event) == [(0.0, 1.0, 5), (1.0, 2.0, 6), (2.0, 3.0, 5), (3.0, 4.0, 6), (4.0, 5.0, 5)]
    assert _why(event, AT + 5 * HOUR) == [Why.OVER]


def test_looping_for_ever_is_cheap_and_in_step() -> None:
    """A tariff that has repeated daily for years is joined at the right hour without unrolling the past."""
    event = _event(
        "e", *(_slot(i, i) for i in range(24)), intervalPeriod=_period("2001-01-01T00:00:00Z", "PT1H"), duration="P9999Y"
    )  # fmt: skip
    spans = _spans(event, AT + HOUR / 2)
    assert spans[0] == (0.0, 1.0, 12)
    assert 48 <= len(spans) <= 49


def test_a_loop_without_bounds_is_refused() -> None:
    """Seconds repeated for days would be without number: the event is refused and says so."""
    event = _event(intervalPeriod=_period("2026-03-02T12:00:00Z", "PT1S"), duration="P30D")
    assert (_spans(event), _why(event)) == ([], [Why.TOO_MANY])
    many = _event("e", _slot(0, *range(MOST_PIECES), kind="PRICE"), _slot(1, 1, 2), intervalPeriod=_period("2026-03-02T12:00:00Z", "P1D"))  # fmt: skip
    assert _why(many) == [Why.TOO_MANY]


def test_several_values_share_the_interval() -> None:
    """Several values of a single-valued type are equal parts, also when the interval began before; a curve stays whole."""
    event = _event("e", _slot(0, 10, 20, 30), intervalPeriod=_period("2026-03-02T12:00:00Z", "PT3H"))
    assert _spans(event) == [(0.0, 1.0, 10), (1.0, 2.0, 20), (2.0, 3.0, 30)]
    assert _spans(event, AT + 1.5 * HOUR) == [(1.0, 2.0, 20), (2.0, 3.0, 30)]
    curve = _event("e", _slot(0, 1, 2, kind="CURVE"), intervalPeriod=_period("2026-03-02T12:00:00Z", "PT3H"))
    assert _spans(curve) == [(0.0, 3.0, 1)]
    endless = _event("e", _slot(0, 1, 2), intervalPeriod=_period("2026-03-02T12:00:00Z", "P9999Y"))
    assert _why(endless) == [Why.BAD_INTERVAL]


def test_no_duration_or_no_start() -> None:
    """What says no start or no duration, and inherits none, is refused; what the program says of it counts."""
    assert _why(_event()) == [Why.BAD_INTERVAL]
    assert _why(_event(intervalPeriod=_period(None, "PT1H"))) == [Why.BAD_INTERVAL]
    program = read(Period, _period("2026-03-02T12:00:00Z", "PT1H"))
    assert [p.start for p in unroll(_event(), program, Scene(AT, "s"))[0]] == [AT]


def test_beyond_the_horizon() -> None:
    """What starts later than the horizon is left for later, and says when it starts."""
    event = _event(intervalPeriod=_period("2026-04-02T12:00:00Z", "PT1H"))
    (note,) = unroll(event, None, Scene(AT, "seed"))[1]
    assert (note.why, "2026-04-02" in note.sentence) == (Why.LATER, True)


def test_random_starts_are_drawn_once_and_carried_along() -> None:
    """All chained intervals shift alike, within the bound, the same for a seed, and apart for others; a new extent is a new draw."""

    def spans(seed: str) -> list[Piece]:
        event = _event(
            "e", _slot(0, 1), _slot(1, 2), _slot(2, 3, period=_period("2026-03-02T20:00:00Z", "PT1H", "-PT1M")),
            intervalPeriod=_period("2026-03-02T14:00:00Z", "PT1H", "PT10M"),
        )  # fmt: skip
        return list(unroll(event, None, Scene(AT, seed))[0])

    shifts = []
    for seed in map(str, range(200)):
        first, second, third = spans(seed)
        assert first.end == second.start
        assert first.until - first.start == HOUR
        shifts.append((first.start - AT - 2 * HOUR) / timedelta(minutes=1))
        assert abs(third.start - AT - 8 * HOUR) <= timedelta(minutes=1)
        assert spans(seed)[0].start == first.start
    assert all(-10 <= shift <= 10 for shift in shifts)
    assert min(shifts) < -8
    assert max(shifts) > 8
    assert abs(sum(shifts) / len(shifts)) < 1.5


def _piece(event_id: str, start: float, end: float | None, priority: int | None = None, written: int = 0) -> Piece:
    event = _event(event_id, priority=priority, modificationDateTime=f"2026-03-02T10:{written:02}:00Z")
    return Piece(event, 0, 0, Limit, (1,), AT + start * HOUR, None if end is None else AT + end * HOUR)


def _settled(*pieces: Piece) -> tuple[list[tuple[str, float, float | None]], tuple[Note, ...]]:
    found, notes = settle(pieces, lambda _: "site")
    return [(p.event.id, (p.start - AT) / HOUR, _hours(p.end)) for p in found], notes


def test_the_lower_number_wins_and_none_is_last() -> None:
    """Priority 0 beats 5 beats none; the loser keeps what is left of it and says to whom it lost."""
    found, notes = _settled(_piece("none", 0, 10, None, 50), _piece("five", 2, 6, 5), _piece("zero", 3, 4, 0))
    assert found == [("none", 0, 2), ("five", 2, 3), ("zero", 3, 4), ("five", 4, 6), ("none", 6, 10)]
    assert {(n.event_id, n.why) for n in notes} == {("none", Why.OVERRULED), ("five", Why.OVERRULED)}
    assert any("priority 0" in n.sentence for n in notes)


def test_equal_priority_goes_to_the_newest() -> None:
    """At equal priority the event that was written last wins, in whatever order they come."""
    old, new = _piece("old", 0, 4, 1, 1), _piece("new", 1, 2, 1, 2)
    for order in ((old, new), (new, old)):
        found, notes = _settled(*order)
        assert found == [("old", 0, 1), ("new", 1, 2), ("old", 2, 4)]
        assert [n.event_id for n in notes] == ["old"]


def test_a_tie_in_everything_is_still_decided() -> None:
    """The same priority and the same stamp: the greater id, and nothing depends on the order of the list."""
    a, b = _piece("a", 0, 2), _piece("ab", 0, 2)
    assert _settled(a, b)[0] == _settled(b, a)[0] == [("ab", 0, 2)]


def test_without_an_end() -> None:
    """A piece without an end gives way for a while and takes over again."""
    found, _ = _settled(_piece("ever", 0, None), _piece("hour", 1, 2, 0))
    assert found == [("ever", 0, 1), ("hour", 1, 2), ("ever", 2, None)]


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(1, 12), st.sampled_from([None, 0, 1, 2]), st.integers(0, 3)),
        max_size=12,
    )
)
def test_settled_time_has_one_owner_the_best_one(rows: list[tuple[int, int, int | None, int]]) -> None:
    """At every moment exactly the best-ranked piece that covers it is in force, as a look at each hour alone would find."""
    pieces = [_piece(f"e{i:02}", s, s + n, p, w) for i, (s, n, p, w) in enumerate(rows)]
    found, _ = settle(pieces, lambda _: "site")
    for half in range(50):
        at = AT + (half / 2 + 0.25) * HOUR
        owners = [p.event.id for p in found if p.start <= at < p.until]
        over = [p for p in pieces if p.start <= at < p.until]
        best = sorted(
            over,
            key=lambda p: (99 if p.event.priority is None else p.event.priority, -p.event.written_at.timestamp(), [-ord(c) for c in p.event.id]),  # type: ignore[union-attr]
        )[:1]  # fmt: skip
        assert owners == [p.event.id for p in best]


def test_comms_loss_runs_the_schedule_out_and_then_falls_back() -> None:
    """With the server lost the limits run to their end, then the subscription is in force; before, it only stands by."""
    limits, subscription = [_piece("a", -1, 1), _piece("b", 2, 3)], [_piece("s", -5, None)]
    assert fall_back(limits, subscription, AT, lost=False)[0] == ()
    assert [n.why for n in fall_back(limits, subscription, AT, lost=False)[1]] == [Why.STANDBY]
    found, notes = fall_back(limits, subscription, AT, lost=True)
    assert [(p.start, p.until) for p in found] == [(AT + 3 * HOUR, NEVER)]
    assert [n.why for n in notes] == [Why.FALLBACK]
    assert [p.start for p in fall_back([], subscription, AT, lost=True)[0]] == [AT]
    assert fall_back([_piece("ever", 0, None)], subscription, AT, lost=True)[0] == ()

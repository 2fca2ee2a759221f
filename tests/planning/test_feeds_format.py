"""What feeds may say: two forms, any unit, and mistakes told with feed and place."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vppd.errors import Garbled
from vppd.ledger.history import Issue
from vppd.planning.forecasts.feeds_format import MOST_BYTES, Terms, parsed

NOW = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)
SUN = Terms("weather", "generation/pv", "kw", "json", most_w=200e3)
PRICE = Terms("spot", "price/import", "per_mwh", "csv")
START = "2026-03-28T12:00:00Z"


def body(**more: Any) -> dict[str, Any]:
    """Return a good document with some keys replaced; ``...`` takes one out."""
    said = {"issued_at": "2026-03-28T11:00:00+00:00", "start": START, "step_s": 900, "values": [1, 2.5, None]} | more
    return {key: value for key, value in said.items() if value is not ...}


def read(terms: Terms, said: object) -> Issue:
    """Return what is made of a document."""
    content = said if isinstance(said, bytes) else (said if isinstance(said, str) else json.dumps(said)).encode()
    return parsed(terms, content, NOW - timedelta(hours=2), NOW)


def test_values_become_watts() -> None:
    """One value for each step, in the unit of the feed; null is not known."""
    found = read(SUN, body())
    assert (found.feed, found.series, found.levels) == ("weather", "generation/pv", ())
    assert (found.issued_at, found.start, found.step_s) == (NOW - timedelta(hours=1), NOW, 900.0)
    np.testing.assert_array_equal(found.values, [[1000.0, 2500.0, np.nan]])


def test_quantiles_rise_with_their_levels() -> None:
    """Rows are put in the order of their levels, and where they cross they are rearranged."""
    said = body(values=..., quantiles={"0.9": [3, 1, 7], "0.1": [1, 2, 5], "0.5": [2, 3, None]})
    found = read(SUN, said)
    assert found.levels == (0.1, 0.5, 0.9)
    expected = [[1e3, 1e3, np.nan], [2e3, 2e3, np.nan], [3e3, 3e3, np.nan]]
    np.testing.assert_array_equal(found.values, expected)


@pytest.mark.parametrize(
    ("series", "unit", "ours"),
    [
        ("load/a", "w", 50.0), ("load/a", "mw", 50e6), ("price/import", "per_mwh", 5e-5), ("price/export", "per_kwh", 0.05),
        ("carbon", "g_per_kwh", 0.05), ("carbon", "kg_per_mwh", 0.05), ("carbon", "lb_per_mwh", 0.02267961850),
    ],
)  # fmt: skip
def test_units_are_turned_into_ours(series: str, unit: str, ours: float) -> None:
    """50 of whatever it is."""
    found = read(Terms("x", series, unit, "json"), body(values=[50]))
    assert found.values[0, 0] == pytest.approx(ours)


def test_a_feed_without_a_time_of_issue_is_as_old_as_its_content() -> None:
    """The file's own time counts; a clock that is a little ahead is forgiven, and counts as now."""
    assert read(SUN, body(issued_at=...)).issued_at == NOW - timedelta(hours=2)
    assert read(SUN, body(issued_at="2026-03-28T12:02:00Z")).issued_at == NOW


def test_csv_has_a_line_for_each_step() -> None:
    """Offsets are kept over a change of the clock, lines may be left out, comments too; the step is the least distance."""
    text = (
        "\ufeff# day-ahead\nstart,value\n2026-03-29T00:00:00+01:00,81.5\n2026-03-29T01:00:00+01:00,-3\n"
        "\n2026-03-29T03:00:00+02:00,\n2026-03-29T05:00:00+02:00,90\n"
    )
    found = read(PRICE, text)
    assert found.start == datetime(2026, 3, 28, 23, 0, tzinfo=UTC)
    assert found.step_s == 3600.0
    np.testing.assert_allclose(found.values, [[81.5e-6, -3e-6, np.nan, np.nan, 90e-6]])


def test_csv_with_levels_in_its_head() -> None:
    """Columns are levels."""
    terms = replace(SUN, format="csv", unit="w")
    found = read(terms, f"start,0.1,0.9\n{START},1,2\n2026-03-28T12:30:00Z,3,4\n")
    assert (found.levels, found.step_s) == ((0.1, 0.9), 1800.0)
    np.testing.assert_array_equal(found.values, [[1.0, 3.0], [2.0, 4.0]])


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b" " * (MOST_BYTES + 1), "more than 1048576 bytes"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "no JSON object"),
        (body(start="2026-03-28T12:00:00"), "start is no time with an offset"),
        (body(start=7), "start is no time with an offset"),
        (body(issued_at="soon"), "issued_at is no time with an offset"),
        (body(issued_at="2026-03-28T12:06:00Z"), "lies in the future"),
        (body(step_s=...), "step_s must be"),
        (body(step_s=1e9), "step_s must be"),
        (body(step_s=True), "step_s is no finite number"),
        (body(values=...), "either values or quantiles"),
        (body(quantiles={"0.5": [1]}), "either values or quantiles"),
        (body(values=[]), "values must be a list"),
        (body(values=[None, None]), "it has no values"),
        (body(values=[1, "2"]), r"values\[1\] is no finite number"),
        ('{"start": "2026-03-28T12:00:00Z", "step_s": 900, "values": [NaN]}', r"values\[0\] is no finite number"),
        (body(values=[1, -1]), "generation/pv is never negative, but step 1 is -1"),
        (body(values=[1, 500]), "500000 W is beyond generation/pv, which has 200000 W at most: is it in kw?"),
        (body(values=..., quantiles={}), "quantiles must be an object"),
        (body(values=..., quantiles={"P50": [1]}), "'P50' is no level"),
        (body(values=..., quantiles={"nan": [1]}), "'nan' is no level"),
        (body(values=..., quantiles={"0.1": [1], "0.5": [1, 2]}), "each level must occur once"),
        (body(values=..., quantiles={"0.1": [1], "0.10": [1]}), "each level must occur once"),
    ],
)  # fmt: skip
def test_bad_json_is_told_with_its_place(said: object, complaint: str) -> None:
    """Feed and place stand in every complaint."""
    with pytest.raises(Garbled, match=f"feed 'weather': .*{complaint}"):
        read(SUN, said)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("", "0 lines of values"),
        (f"{START},1\n", "1 lines of values"),
        (f"{START},1\n2026-03-28T13:00:00,2\n", "line 2 is no time with an offset"),
        (f"{START},1\n{START},2\n", "lines must follow one another"),
        (f"{START},1\n2026-03-28T11:00:00Z,2\n", "lines must follow one another"),
        (f"{START},1\n2026-03-28T13:00:00Z,x\n", "'x' in line 2"),
        (f"{START},1\n2026-03-28T13:00:00Z,inf\n", "'inf' in line 2"),
        (f"{START},1\n2026-03-28T13:00:00Z,2,3\n", "line 2 of the values has 3 columns"),
        (f"{START},1\n2026-03-28T13:00:00Z,2\n2026-03-28T14:10:00Z,2\n", "line 3 of the values is not a whole number"),
        (f"start,0.9,0.1\n{START},1,2\n2026-03-28T13:00:00Z,2,3\n", "levels in the head do not rise"),
        (f"start,price\n{START},1\n2026-03-28T13:00:00Z,2\n", "'price' is no level"),
        ('"' + "x" * 200_000, "no CSV"),
    ],
)
def test_bad_csv_is_told_with_its_line(said: str, complaint: str) -> None:
    """Feed and line stand in every complaint."""
    with pytest.raises(Garbled, match=f"feed 'spot': .*{complaint}"):
        read(PRICE, said)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("issued_at", "start", "step_s", "values", "quantiles"), ANY)))
def test_any_json_is_read_or_garbled(said: dict[str, Any]) -> None:
    """Nothing that a server may send is a bug of ours."""
    for form in (body(**said), said):
        try:
            found = read(SUN, json.dumps(form))
        except Garbled:
            continue
        assert np.isfinite(found.values).any()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="0123456789-:T,Z+. \n\"'start", max_size=200).map(str.encode))
def test_any_bytes_are_read_or_garbled(content: bytes) -> None:
    """Nothing that lies in a file is a bug of ours."""
    for terms in (SUN, PRICE):
        try:
            parsed(terms, content, NOW, NOW)
        except Garbled:
            continue

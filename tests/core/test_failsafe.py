"""The failsafe table does what it says, for every combination."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vppd.core.failsafe import RULES, SITE_RULES, Severity, judge, judge_site, table_markdown
from vppd.snapshot import Health

NEVER = np.full((len(RULES), 3), -np.inf)
conditions = hnp.arrays(np.bool_, (len(RULES), 3))


@given(conditions, conditions)
def test_more_trouble_is_never_less_severe(some: np.ndarray, more: np.ndarray) -> None:
    """Severity is monotone in the set of conditions."""
    low, _, _ = judge(some, NEVER, 0.0)
    high, _, _ = judge(some | more, NEVER, 0.0)
    assert (high >= low).all()


@given(conditions)
def test_the_most_severe_row_is_the_one_named(held: np.ndarray) -> None:
    """The row given as the cause has the severity given, and none is named when nothing holds."""
    severity, row, _ = judge(held, NEVER, 0.0)
    for level, r in zip(severity, row, strict=True):
        assert (r == -1) == (level == Severity.NONE)
        assert r == -1 or RULES[r].severity == level


@pytest.mark.parametrize("row", range(len(RULES)), ids=[r.name for r in RULES])
def test_a_row_clears_after_its_time(row: int) -> None:
    """A row stays active for its clear time after its condition has gone, and no longer."""
    held = np.zeros((len(RULES), 1), dtype=np.bool_)
    held[row] = True
    _, _, tripped_s = judge(held, NEVER[:, :1], 100.0)
    clear_s = RULES[row].clear_after_s
    if clear_s:
        severity, _, _ = judge(~held & False, tripped_s, 100.0 + clear_s - 0.5)
        assert severity[0] == RULES[row].severity
    severity, _, _ = judge(~held & False, tripped_s, 100.0 + clear_s)
    assert severity[0] == Severity.NONE


@given(
    st.builds(
        Health,
        ready=st.booleans(),
        link_lost=st.booleans(),
        ledger_ok=st.booleans(),
        ledger_corrupt=st.booleans(),
        clock_ok=st.booleans(),
        operator_release=st.booleans(),
        ledger_fault_s=st.sampled_from([0.0, 31.0]),
    )
)
def test_site_severity_is_its_worst_row(health: Health) -> None:
    """The site's severity is that of its worst active row, and a corrupt ledger locks everything."""
    severity, names = judge_site(health, meter_stale=False, cycle_s=1.0)
    level = {rule.name: rule.severity for rule in SITE_RULES}
    assert severity == max((level[n] for n in names), default=Severity.NONE)
    assert not health.ledger_corrupt or severity == Severity.LOCKOUT
    assert health.ready or severity >= Severity.PROTECT


def test_the_table_is_printed_whole() -> None:
    """Every row of the table is in the generated documentation."""
    text = table_markdown()
    assert all(f"| {rule.name} |" in text for rule in (*RULES, *SITE_RULES))


def test_the_documented_table_is_the_one_in_force() -> None:
    """docs/failsafe.md shows exactly the rows that are judged."""
    page = Path(__file__).parents[2] / "docs" / "failsafe.md"
    assert table_markdown() in page.read_text(encoding="utf-8")

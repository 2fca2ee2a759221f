"""The house rules hold in vppd/ and adapters/, and each check finds a planted breach."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import conventions
from tests.conventions import Finding
from tests.support import ROOT

SOURCES = sorted(p for folder in ("vppd", "adapters") for p in (ROOT / folder).rglob("*.py"))
CLOCK = Path("vppd/runtime/clock.py")
UNIT_FREE: frozenset[tuple[str, str]] = frozenset(
    {
        # (file, name): floats that are truly without a unit and whose name says so already
        # a figure whose unit stands beside it
        ("vppd/core/bidding/qualify.py", "have"),
        ("vppd/core/bidding/qualify.py", "need"),
    }
)
Rule = Callable[[str, str], list[Finding]]


def findings(rule: Rule, skip: frozenset[Path] = frozenset()) -> list[Finding]:
    """Return what ``rule`` finds in all sources but ``skip``."""
    paths = [p for p in SOURCES if p.relative_to(ROOT) not in skip]
    return [f for p in paths for f in rule(str(p.relative_to(ROOT)), p.read_text(encoding="utf-8"))]


def report(found: list[Finding]) -> str:
    """Return the findings one a line."""
    return "\n" + "\n".join(map(str, found))


def test_every_float_tells_its_unit() -> None:
    """Every float field and argument ends in its unit."""
    found = [f for f in findings(conventions.unitless_floats) if (f.path, f.text.split("'")[1]) not in UNIT_FREE]
    assert not found, report(found)


def test_only_the_clock_module_asks_the_time() -> None:
    """Nobody but runtime/clock.py reads a clock."""
    found = findings(conventions.clock_calls, skip=frozenset({CLOCK}))
    assert not found, report(found)


def test_broad_excepts_are_few() -> None:
    """At most two places in the whole product catch everything."""
    found = findings(conventions.broad_excepts)
    assert len(found) <= 2, report(found)


def test_nothing_prints() -> None:
    """Library code logs and renders; it does not print."""
    found = findings(conventions.prints)
    assert not found, report(found)


def test_functions_are_short() -> None:
    """No function body is longer than 40 lines."""
    found = findings(conventions.long_bodies)
    assert not found, report(found)


def test_files_are_short_and_well_named() -> None:
    """No file is longer than 400 lines or named after nothing in particular."""
    long = [f"{p}: {n} lines" for p in SOURCES if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400]
    vague = [str(p) for p in SOURCES if conventions.bad_file_name(p)]
    assert not long + vague, "\n".join(long + vague)


def test_packages_hold_a_docstring_only() -> None:
    """An __init__.py re-exports nothing, so that no import cycle goes through it."""
    full = [str(p) for p in SOURCES if p.name == "__init__.py" and "import" in p.read_text(encoding="utf-8")]
    assert not full, full


def test_every_public_adapter_is_kept_apart() -> None:
    """The independence contract lists every adapter module, and every adapter is an entry point."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {c["id"]: c for c in project["tool"]["importlinter"]["contracts"]}
    public = {f"adapters.{p.stem}" for p in (ROOT / "adapters").glob("[!_]*.py")}
    registered = {v.split(":")[0] for v in project["project"]["entry-points"]["vppd.adapters"].values()}
    assert public <= set(contracts["adapters-apart"]["modules"])
    assert public <= registered


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        pytest.param(conventions.unitless_floats, "def f(power: float) -> None: ...", id="argument"),
        pytest.param(conventions.unitless_floats, "class A:\n    limit: float | None = None", id="optional-field"),
        pytest.param(conventions.unitless_floats, "class A:\n    rate: Annotated[float, 1]", id="annotated-field"),
        pytest.param(conventions.unitless_floats, "class A:\n    power_kw: 'float' = 1.0", id="kilowatts"),
        pytest.param(conventions.unitless_floats, "class A:\n    def f(self):\n        self.x: float = 1", id="self"),
        pytest.param(conventions.clock_calls, "import time\ntime.time()", id="time"),
        pytest.param(conventions.clock_calls, "from time import monotonic as m\nm()", id="monotonic-renamed"),
        pytest.param(conventions.clock_calls, "import time as t\nf(clock=t.monotonic)", id="passed-on"),
        pytest.param(conventions.clock_calls, "from datetime import datetime as D\nD.now(UTC)", id="now"),
        pytest.param(conventions.clock_calls, "import datetime\ndatetime.datetime.utcnow()", id="utcnow"),
        pytest.param(conventions.broad_excepts, "try: ...\nexcept Exception: ...", id="exception"),
        pytest.param(conventions.broad_excepts, "try: ...\nexcept (ValueError, BaseException): ...", id="in-tuple"),
        pytest.param(conventions.broad_excepts, "try: ...\nexcept: ...", id="bare"),
        pytest.param(conventions.prints, "print(1)", id="print"),
        pytest.param(conventions.long_bodies, "def f():\n" + "    x = 1\n" * 41, id="long"),
    ],
)
def test_planted_breaches_are_found(rule: Rule, source: str) -> None:
    """Each check finds the breach it is for."""
    assert len(rule("planted.py", source)) == 1


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        pytest.param(
            conventions.unitless_floats, "def f(power_w: float, soc_frac: float | None) -> float: ...", id="units"
        ),
        pytest.param(conventions.unitless_floats, "class A:\n    price: Decimal\n    count: int", id="not-floats"),
        pytest.param(conventions.unitless_floats, "def f(wait: Callable[[float], None]) -> None: ...", id="callable"),
        pytest.param(conventions.clock_calls, "asyncio.get_running_loop().time()", id="loop-time"),
        pytest.param(conventions.clock_calls, "from datetime import datetime\ndatetime.fromisoformat(x)", id="parse"),
        pytest.param(conventions.broad_excepts, "try: ...\nexcept OSError: ...", id="narrow"),
        pytest.param(conventions.long_bodies, "def f():\n    'doc'\n" + "    x = 1\n" * 40, id="just-long-enough"),
    ],
)
def test_good_code_passes(rule: Rule, source: str) -> None:
    """No check fires on code that keeps the rules."""
    assert rule("planted.py", source) == []


@pytest.mark.parametrize("name", ["utils.py", "grid_helpers.py", "_base.py", "device_manager.py"])
def test_vague_names_are_found(name: str) -> None:
    """A file named after nothing in particular is found, a good name is not."""
    assert conventions.bad_file_name(Path(name))
    assert not conventions.bad_file_name(Path("baseline.py"))

"""Each import contract bites: a planted breach in a copy of the tree is found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

LINT = "import sys; from importlinter.cli import lint_imports_command as run; sys.argv[0] = 'lint-imports'; run()"


def lint(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run lint-imports in ``tree``, on the packages that lie there."""
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-logo", "--no-cache", *arguments],
        cwd=tree,
        env={"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages and the contracts."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", tree)
    for package in ("vppd", "adapters"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


def test_the_tree_keeps_its_contracts(clean: Path) -> None:
    """All contracts hold in the tree as it is."""
    result = lint(clean)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("contract", "path", "line"),
    [
        pytest.param("layers", "vppd/grid/signing.py", "import vppd.app", id="upwards"),
        pytest.param("layers", "vppd/ledger/sqlite.py", "import vppd.grid.signing", id="sideways"),
        pytest.param("layers", "vppd/core/settle.py", "def f():\n    import vppd.ports", id="in-a-function"),
        pytest.param("layers", "vppd/stray.py", "x = 1", id="stray-module"),
        pytest.param("acyclic", "vppd/model.py", "def f():\n    import vppd.snapshot", id="cycle-by-function"),
        pytest.param("pure", "vppd/core/settle.py", "import asyncio", id="loop-in-core"),
        pytest.param("pure", "vppd/model.py", "from time import monotonic", id="clock-in-model"),
        pytest.param("pure", "vppd/core/settle.py", "import pydantic", id="schema-in-core"),
        pytest.param("adapters-know-ports", "adapters/slurm.py", "import vppd.runtime.clock", id="adapter-knows-runtime"),
        pytest.param("adapters-apart", "adapters/slurm.py", "import adapters.mqtt_json", id="adapter-knows-adapter"),
        pytest.param("entry-points-only", "vppd/runtime/registry.py", "import adapters.slurm", id="by-name"),
        pytest.param("pymodbus-confined", "adapters/modbus_sunspec.py", "import pymodbus.client", id="pymodbus"),
        pytest.param("aiomqtt-confined", "vppd/grid/dsx_flex.py", "import aiomqtt", id="aiomqtt"),
        pytest.param("testing-not-at-run-time", "vppd/app.py", "import vppd.testing.fakes", id="fakes-at-run-time"),
    ],
)  # fmt: skip
def test_planted_breaches_are_found(clean: Path, contract: str, path: str, line: str) -> None:
    """Each contract names the planted import, and holds again without it."""
    planted = clean / path
    before = planted.read_text(encoding="utf-8") if planted.exists() else None
    planted.write_text((before or "") + f"\n{line}\n", encoding="utf-8")
    try:
        result = lint(clean, "--contract", contract)
    finally:
        planted.write_text(before, encoding="utf-8") if before is not None else planted.unlink()
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout, result.stdout + result.stderr

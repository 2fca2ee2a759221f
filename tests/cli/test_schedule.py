"""`vppd schedule`: one instance from a file, the answer on standard output, mistakes with exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.schedule_instances import Json, day

KEYS = (
    "status", "cost", "bound", "gap", "solve_s", "import_w", "batteries", "renewables", "flexible_loads", "conflicts",
)  # fmt: skip


def vppd_schedule(tmp_path: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command on a file of ``text``."""
    path = tmp_path / "problem.json"
    path.write_text(text, encoding="utf-8")
    asked = [sys.executable, "-c", "from vppd.cli import main; main()", "schedule", "--problem", str(path), *options]
    return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(name="problem")
def _problem() -> Json:
    return day(2, 2, negative=True)


def test_prints_the_answer_as_json(tmp_path: Path, problem: Json) -> None:
    """The answer has every key of the form, and a series for every asset."""
    done = vppd_schedule(tmp_path, json.dumps(problem), "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert tuple(answer) == KEYS
    assert answer["status"] == "optimal"
    assert set(answer["batteries"]) == {"bess-0", "bess-1"}
    assert len(answer["batteries"]["bess-0"]["energy_wh"]) == len(answer["import_w"]) == 96
    assert answer["conflicts"] == []


def test_reads_standard_input(problem: Json) -> None:
    """A problem named - is read from standard input, and so are its mistakes."""
    asked = [sys.executable, "-c", "from vppd.cli import main; main()", "schedule", "--problem", "-", "--json"]
    for text, code in ((json.dumps(problem), 0), ("{", 2)):
        done = subprocess.run(asked, input=text, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code
        assert (json.loads(done.stdout)["status"] == "optimal") if not code else ("-: is not valid JSON" in done.stderr)


def test_prints_a_summary_for_people(tmp_path: Path, problem: Json) -> None:
    """Without --json the cost and how good it is are said in words."""
    done = vppd_schedule(tmp_path, json.dumps(problem))
    assert done.returncode == 0
    assert done.stdout.startswith("optimal: costs ")


def test_an_infeasible_instance_is_an_answer(tmp_path: Path, problem: Json) -> None:
    """What conflicts is printed, and the exit code is that of an answer."""
    problem["site"]["import_max_w"] = 1e3
    done = vppd_schedule(tmp_path, json.dumps(problem), "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["status"], answer["cost"]) == (0, "infeasible", None)
    assert any("site.import_max_w 1000" in name for name in answer["conflicts"])
    assert "site.import_max_w" in vppd_schedule(tmp_path, json.dumps(problem)).stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("{", "is not valid JSON", id="not-json"),
        pytest.param("[]", "must be an object", id="not-an-object"),
        pytest.param('{"step_s": NaN}', "step_s: must be a finite number", id="nan"),
    ],
)
def test_mistakes_end_with_exit_code_2(tmp_path: Path, text: str, said: str) -> None:
    """A file that is not a problem is refused with the reason."""
    done = vppd_schedule(tmp_path, text, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_missing_file_ends_with_exit_code_2(tmp_path: Path) -> None:
    """A file that is not there is said to be so."""
    asked = [
        sys.executable,
        "-c",
        "from vppd.cli import main; main()",
        "schedule",
        "--problem",
        str(tmp_path / "no.json"),
    ]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "cannot be read" in done.stderr

"""``vppd simulate`` from a shell: every figure can be recomputed from ``cap_w``, and a bad scenario is refused with its reason."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bench.bench_emerald import beaten, compare
from vppd.errors import ConfigError
from vppd.sim.scenario import Scenario, read
from vppd.sim.simulate import result, simulate

VPPD = str(Path(sys.executable).with_name("vppd"))
EMERALD = Path(__file__).resolve().parents[2] / "config" / "scenarios" / "emerald.toml"
TOLERANCE = (0.0, 0.10, 0.25, 0.50)

SMALL = """
step_s = 60
duration_s = 3600
window_s = 3600

[[classes]]
name = "train"
cap_w = [400, 300, 200]
power_w = [380, 290, 200]
throughput = [1.0, 0.87, 0.63]
idle_w = 60

[[jobs]]
name = "a"
class = "train"
gpus = 8
tier = 3
pausable = true
restart_s = 120

[[jobs]]
name = "b"
class = "train"
gpus = 8
tier = 0

[[events]]
start_s = 600
end_s = 1800
ramp_s = 300
target_frac = 0.8
"""


def run(tmp_path: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run the command on a scenario, its result in ``out.json``."""
    file = tmp_path / "scenario.toml"
    file.write_text(text, encoding="utf-8")
    command = [VPPD, "simulate", str(file), "--json", str(tmp_path / "out.json")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def recomputed(raw: dict[str, Any], found: dict[str, Any]) -> tuple[list[float], dict[str, float]]:
    """Return power by step and mean throughput by job in its worst window, from the caps alone."""
    tables = {c["name"]: sorted(zip(c["cap_w"], c["power_w"], c["throughput"], strict=True)) for c in raw["classes"]}
    idle_w = {c["name"]: c["idle_w"] for c in raw["classes"]}
    steps = len(found["power_w"])
    power_w, worst = [0.0] * steps, {}
    for job in raw["jobs"]:
        cap, draws, speed = zip(*tables[job["class"]], strict=True)
        owed_s, series = 0.0, []
        for k, cap_w in enumerate(found["jobs"][job["name"]]["cap_w"]):
            if cap_w == 0:
                power_w[k] += job["gpus"] * idle_w[job["class"]]
                owed_s = job.get("restart_s", 0.0)
                series.append(0.0)
                continue
            power_w[k] += job["gpus"] * float(np.interp(cap_w, cap, draws))
            series.append(float(np.interp(cap_w, cap, speed)) * max(0.0, 1.0 - owed_s / raw["step_s"]))
            owed_s = max(0.0, owed_s - raw["step_s"])
        window = min(steps, int(raw["window_s"] / raw["step_s"]))
        worst[job["name"]] = min(sum(series[i : i + window]) / window for i in range(steps - window + 1))
    return power_w, worst


def test_the_result_is_what_its_caps_make_of_the_tables(tmp_path: Path) -> None:
    """Keys as documented; power, throughput and the mean follow from cap_w; the run is the same twice."""
    done = run(tmp_path, SMALL)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out.json").read_text(encoding="utf-8")
    found, raw = json.loads(text), tomllib.loads(SMALL)
    assert set(found) == {"power_w", "target_w", "jobs", "weighted_performance", "violations"}
    assert set(found["jobs"]["a"]) == {"tier", "throughput_frac", "cap_w"}
    assert len(found["power_w"]) == len(found["target_w"]) == len(found["jobs"]["a"]["cap_w"]) == 60
    power_w, worst = recomputed(raw, found)
    assert found["power_w"] == pytest.approx(power_w)
    assert {name: job["throughput_frac"] for name, job in found["jobs"].items()} == pytest.approx(worst)
    assert found["weighted_performance"] == pytest.approx((worst["a"] + worst["b"]) / 2)
    assert found["violations"] == []
    assert found["jobs"]["b"]["cap_w"] == [400.0] * 60
    assert run(tmp_path, SMALL).returncode == 0
    assert (tmp_path / "out.json").read_text(encoding="utf-8") == text


def test_the_target_ramps_down_holds_and_is_left_gently(tmp_path: Path) -> None:
    """Null outside events; the ramp begins at uncapped power; afterwards power never jumps by the whole cut."""
    assert run(tmp_path, SMALL).returncode == 0
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    target_w, power_w, full_w = found["target_w"], found["power_w"], 16 * 380.0
    assert [t is None for t in target_w] == [True] * 10 + [False] * 20 + [True] * 30
    assert target_w[10:16] == pytest.approx([full_w * f for f in (0.96, 0.92, 0.88, 0.84, 0.8, 0.8)])
    assert all(p <= t for p, t in zip(power_w, target_w, strict=True) if t is not None)
    assert power_w[35:] == [full_w] * 25
    assert max(b - a for a, b in itertools.pairwise(power_w)) <= 0.2 * full_w / 4


def test_what_cannot_be_given_is_told(tmp_path: Path) -> None:
    """Half of the power from a job that may give nothing: the target is missed in every step and no tier is broken for it."""
    done = run(tmp_path, SMALL.replace("tier = 3", "tier = 0").replace("target_frac = 0.8", "target_w = 3000"))
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert done.returncode == 0
    assert {v["kind"] for v in found["violations"]} == {"target"}
    assert [v["at_s"] for v in found["violations"]] == [60.0 * k for k in range(15, 30)]
    assert found["weighted_performance"] == 1.0
    assert "violations: 15" in done.stdout


def test_a_battery_takes_its_part(tmp_path: Path) -> None:
    """With a battery the jobs lose less; power is the jobs' plus the battery's; it is charged again after the event."""
    plain = result(*both(SMALL))
    battery = "[battery]\npower_w = 2000\ncapacity_wh = 400\nsoc_frac = 0.9\nreserve_frac = 0.2\n"
    found = result(*both(SMALL + battery))
    power_w, _ = recomputed(tomllib.loads(SMALL), found)
    assert found["power_w"] == pytest.approx(np.add(power_w, found["battery_w"]).tolist())
    assert found["weighted_performance"] > plain["weighted_performance"] + 0.005
    given_wh = -sum(p for p in found["battery_w"] if p < 0) / 60.0
    assert given_wh / 0.96 <= 0.7 * 400 + 1e-6
    assert given_wh > 0.9 * 0.96 * 0.7 * 400
    assert max(found["battery_w"][:30]) <= 0.0 < max(found["battery_w"][30:])


def both(text: str) -> tuple[Scenario, Any]:
    """Return a scenario and its run."""
    scenario = Scenario.model_validate(tomllib.loads(text))
    return scenario, simulate(scenario)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("step_s = 60", "step_s = 60\nstepp_s = 1"), "stepp_s: unknown key"),
        (("tier = 3", "tier = 4"), "jobs[0].tier"),
        (("gpus = 8", "gpus = 0"), "jobs[0].gpus"),
        (('class = "train"', 'class = "tran"'), "there are train"),
        (("throughput = [1.0, 0.87, 0.63]", "throughput = [1.0, 0.87]"), "same number of points"),
        (("throughput = [1.0, 0.87, 0.63]", "throughput = [0.9, 0.87, 0.63]"), "must be 1.0"),
        (("idle_w = 60", "idle_w = nan"), "classes[0].idle_w"),
        (("target_frac = 0.8", "target_frac = 0.8\ntarget_w = 1.0"), "exactly one of target_w and target_frac"),
        (("target_frac = 0.8", ""), "exactly one of target_w and target_frac"),
        (("end_s = 1800", "end_s = 500"), "end_s must be after start_s"),
        (("ramp_s = 300", "ramp_s = 1300"), "ramp_s must not be longer"),
        (('name = "b"', 'name = "a"'), "'a' is used twice"),
        (("duration_s = 3600", "duration_s = inf"), "duration_s"),
        (("step_s = 60", "step_s = "), "not valid TOML"),
    ],
)
def test_a_bad_scenario_is_refused_with_its_reason(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    """One clear line with the key and the reason."""
    file = tmp_path / "scenario.toml"
    file.write_text(SMALL.replace(*change, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read(file)
    assert says in str(caught.value)


def test_a_refused_scenario_leaves_nothing_behind(tmp_path: Path) -> None:
    """Exit code 2, the reason without a traceback, and no result file."""
    done = run(tmp_path, SMALL.replace("tier = 3", "tier = 4"))
    assert done.returncode == 2
    assert "jobs[0].tier" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_a_result_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Exit code 2 and the path, without a traceback; on standard output the result is JSON alone."""
    to_nowhere = [VPPD, "simulate", str(EMERALD), "--json", str(tmp_path / "none" / "out.json")]
    done = subprocess.run(to_nowhere, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run([*to_nowhere[:-1], "-"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["violations"] == []


def test_odd_shapes_of_events_are_taken(tmp_path: Path) -> None:
    """An event beyond the end, one inside another, one that asks for nothing, steps that do not divide the run."""
    text = SMALL.replace("duration_s = 3600", "duration_s = 3610").replace("window_s = 3600", "window_s = 90_000")
    more = "".join(
        f"[[events]]\nstart_s = {a}\nend_s = {b}\ntarget_frac = {f}\n"
        for a, b, f in ((700, 900, 0.9), (3000, 9000, 0.9), (0, 30, 1.0))
    )
    found = result(*both(text + more))
    assert len(found["power_w"]) == 61
    assert found["target_w"][0] == pytest.approx(16 * 380.0)
    assert found["target_w"][12] == pytest.approx(0.88 * 16 * 380.0)
    assert found["target_w"][60] == pytest.approx(0.9 * 16 * 380.0)
    assert found["violations"] == []
    assert found["jobs"]["a"]["throughput_frac"] == pytest.approx(recomputed(tomllib.loads(text), found)[1]["a"])


def test_a_missing_scenario_is_told(tmp_path: Path) -> None:
    """Exit code 2 and the path."""
    done = subprocess.run([VPPD, "simulate", str(tmp_path / "none.toml")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "none.toml" in done.stderr


def test_the_emerald_replay_holds_and_beats_the_published_policies() -> None:
    """A quarter off for three hours with class averages: target and tiers kept, performance above the best baseline."""
    lines = compare(read(EMERALD))
    assert lines[0]["tiers_kept"]
    assert lines[0]["over_target_w"] == 0.0
    assert beaten(lines) > 0.0


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_every_window_of_every_job_keeps_its_tier(seed: int) -> None:
    """Random mixes, events one after another, rolling windows, restarts: no tier is ever broken, and pauses only where allowed."""
    rng = np.random.default_rng(seed)
    raw = tomllib.loads(EMERALD.read_text(encoding="utf-8"))
    names = [c["name"] for c in raw["classes"]]
    raw["jobs"] = [
        {
            "name": f"j{i}",
            "class": str(rng.choice(names)),
            "gpus": int(rng.integers(1, 65)),
            "tier": int(rng.integers(0, 4)),
            "pausable": bool(rng.random() < 0.7),
            "restart_s": float(rng.choice([0.0, 90.0, 300.0])),
        }
        for i in range(int(rng.integers(1, 20)))
    ]
    first = float(rng.uniform(0.0, 3000.0))
    raw |= {"step_s": 120.0, "window_s": float(rng.choice([1800.0, 5400.0, 9000.0])), "duration_s": 9000.0}
    raw["events"] = [
        {"start_s": first, "end_s": first + 2500.0, "ramp_s": 400.0, "target_frac": float(rng.uniform(0.3, 0.95))},
        {"start_s": first + 3500.0, "end_s": first + 5500.0, "target_frac": float(rng.uniform(0.3, 0.95))},
    ]
    scenario = Scenario.model_validate(raw)
    found = result(scenario, simulate(scenario))
    power_w, worst = recomputed(raw, found)
    assert found["power_w"] == pytest.approx(power_w)
    for job in raw["jobs"]:
        assert worst[job["name"]] >= 1.0 - TOLERANCE[job["tier"]] - 1e-6
        assert job["pausable"] or 0.0 not in found["jobs"][job["name"]]["cap_w"]
    assert not any(v["kind"] == "tier" for v in found["violations"])

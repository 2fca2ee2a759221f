"""What ``vppd simulate`` does and says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vppd.errors import ConfigError
from vppd.sim.scenario import read
from vppd.sim.simulate import result, simulate

_MOST_LINES = 10


def simulated(path: Path) -> dict[str, Any]:
    """Return the result of a scenario file as plain JSON values. Raises InvalidConfig."""
    scenario = read(path)
    return result(scenario, simulate(scenario))


def write(found: dict[str, Any], path: Path) -> None:
    """Write a result as JSON. Raises ConfigError where that cannot be done."""
    try:
        path.write_text(json.dumps(found, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def summary(found: dict[str, Any]) -> list[str]:
    """Return a few lines for a person."""
    jobs = found["jobs"].values()
    lines = [
        f"{len(jobs)} jobs, {len(found['power_w'])} steps: weighted performance {found['weighted_performance']:.4f}"
    ]
    asked = [(p, t) for p, t in zip(found["power_w"], found["target_w"], strict=True) if t is not None]
    if asked:
        lines.append(f"least room below the target: {min(t - p for p, t in asked) / 1e3:.3f} kW")
    for tier in range(4):
        mine = [job["throughput_frac"] for job in jobs if job["tier"] == tier]
        if mine:
            lines.append(f"tier {tier}: {len(mine)} jobs, throughput {min(mine):.4f} to {max(mine):.4f}")
    broken = found["violations"]
    lines.append(f"violations: {len(broken) or 'none'}")
    return lines + [f"  {entry}" for entry in broken[:_MOST_LINES]]

"""Work for jobs that keeps a core busy and tells whether any of it was lost or done twice."""

from __future__ import annotations

import os
import subprocess
from functools import cache

_A, _C, _M = 1_103_515_245, 12_345, 2**31
_TRIAL_STEPS = 200_000


def work(cpu_s: float) -> str:
    """Return a script of real work: a recurrence of many steps, of which none may be lost or done twice; it judges itself. [s]"""
    steps = int(cpu_s * _steps_per_s())
    return f"{_steps(steps)}\necho $x > result.$SLURM_JOB_ID; [ $x -eq {_result(steps)} ]"


def _steps(count: int) -> str:
    return f"x=1; for ((k = 0; k < {count}; k++)); do x=$(( (x * {_A} + {_C}) % {_M} )); done"


@cache
def _steps_per_s() -> float:
    """Return how many steps a core of this machine does in a second. [1/s]"""
    before_s = os.times().children_user
    subprocess.run(["bash", "-c", _steps(_TRIAL_STEPS)], check=True)
    return _TRIAL_STEPS / max(os.times().children_user - before_s, 0.01)


def _result(steps: int) -> int:
    """Return the recurrence's value after so many steps, by doubling instead of stepping."""
    a, c, jump_a, jump_c = _A, _C, 1, 0
    while steps:
        if steps % 2:
            jump_a, jump_c = jump_a * a % _M, (jump_c * a + c) % _M
        a, c, steps = a * a % _M, (c * a + c) % _M, steps // 2
    return (jump_a + jump_c) % _M

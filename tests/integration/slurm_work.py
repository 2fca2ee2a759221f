"""Work for jobs that keeps a core busy and tells whether any of it was lost or done twice."""

from __future__ import annotations

import os
import subprocess
from functools import cache

_A, _C, _M = 1_103_515_245, 12_345, 2**31
_TRIAL_STEPS = 200_000
_STEPS_AT_ONCE = 600
REST_S = 0.25
"""Between two bursts of paced work. [s]"""


def work(cpu_s: float) -> str:
    """Return a script of real work: a recurrence of many steps, of which none may be lost or done twice; it judges itself. [s]"""
    steps = int(cpu_s * _steps_per_s())
    return f"{_steps(steps)}\necho $x > result.$SLURM_JOB_ID; [ $x -eq {_result(steps)} ]"


def paced(bursts: int, until: str = "") -> str:
    """Return a script of the same work in short bursts with rests between, so light that forty of them leave most of one core free.

    It keeps a diary of its bursts and of each time it was let go on, in ``diary.$SLURM_JOB_ID``. It ends after so many bursts,
    or when a file ``until`` is there as well; then it works its result out in another way too, and fails when the two differ.
    """
    more = f"(( k < {bursts} ))" + (f" || [[ ! -e {until} ]]" if until else "")
    return f"""\
exec 4> diary.$SLURM_JOB_ID 5<> <(:)
trap 'echo "$EPOCHREALTIME on" >&4' CONT
echo $BASHPID > pid.$SLURM_JOB_ID
x=1 k=0
while {more}; do
    for ((i = 0; i < {_STEPS_AT_ONCE}; i++)); do x=$(( (x * {_A} + {_C}) % {_M} )); done
    (( k += 1 ))
    echo "$EPOCHREALTIME $k" >&4
    read -r -t {REST_S} -u 5
done
a={_A} c={_C} p=1 q=0
for (( n = k * {_STEPS_AT_ONCE}; n; n /= 2 )); do
    (( n % 2 )) && p=$(( a * p % {_M} )) q=$(( (a * q + c) % {_M} ))
    c=$(( (c * a + c) % {_M} )) a=$(( a * a % {_M} ))
done
echo "$k $x" > result.$SLURM_JOB_ID
[ $x -eq $(( (p + q) % {_M} )) ]"""


def paced_result(bursts: int) -> int:
    """Return what paced work has to come to after so many bursts."""
    return _result(bursts * _STEPS_AT_ONCE)


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

"""Work for jobs that tells whether any of it was lost or done twice, and when it stood still."""

from __future__ import annotations

_A, _C, _M = 1_103_515_245, 12_345, 2**31
_STEPS_AT_ONCE = 600
REST_S = 0.25
"""Between two bursts of paced work. [s]"""


def paced(bursts: int, until: str = "") -> str:
    """Return a script of real work in short bursts with rests: so light that forty of them leave most of one core free.

    Its work is a recurrence of which no step may be lost or done twice. It keeps a diary of its bursts and of each time it was
    let go on, in ``diary.$SLURM_JOB_ID``. It ends after so many bursts, or when a file ``until`` is there as well; then it works
    its result out in another way too, and fails when the two differ.
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


def _result(steps: int) -> int:
    """Return the recurrence's value after so many steps, by doubling instead of stepping."""
    a, c, jump_a, jump_c = _A, _C, 1, 0
    while steps:
        if steps % 2:
            jump_a, jump_c = jump_a * a % _M, (jump_c * a + c) % _M
        a, c, steps = a * a % _M, (c * a + c) % _M, steps // 2
    return (jump_a + jump_c) % _M

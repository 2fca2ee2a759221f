"""The decision how few replicas may stay: never fewer than keep the bound, back before it breaks, and nobody goes unseen."""

from __future__ import annotations

import math
import random
import re
import tomllib
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from adapters._inference_config import InferenceConfig
from adapters._inference_curve import Curve, expected_s, learnt
from adapters._inference_guard import ALL, Seen, State, decide
from adapters._inference_metrics import Histogram, Latency, Page
from adapters._inference_window import Record, observed
from adapters._inference_window import seen as window_seen
from tests.support import ROOT

BOUND_S = 1.0
PERIOD_S = 5.0


def config(**given: object) -> InferenceConfig:
    """Return a service bounded in its time to the first token."""
    return InferenceConfig.model_validate(
        {"metrics_url": "http://{address}/metrics", "ttft_p95_s": BOUND_S, "settle_s": 60.0, **given}
    )


def seen(at_s: float, replicas: int, load_per_s: float, ttft_s: float | None, **given: object) -> Seen:
    """Return a look at a service in full sight."""
    p95_s = {} if ttft_s is None else {Latency.TTFT: ttft_s}
    here = Seen(at_s, replicas, replicas, in_flight=9, started=2000, served_per_s=load_per_s, asked_per_s=load_per_s)
    here = replace(here, lately_per_s=load_per_s, lately=700, p95_s=p95_s)
    return replace(here, **given)  # type: ignore[arg-type]


@cache
def watched(
    replicas: int, load_per_s: float, ttft_s: float, for_s: float = 600.0, **given: object
) -> tuple[State, float]:
    """Return the state after a quiet time, and when that is."""
    state, at_s = State(), 0.0
    while at_s < for_s:
        at_s += PERIOD_S
        state = decide(state, seen(at_s, replicas, load_per_s, ttft_s), config(**given))
    return state, at_s


class Service:
    """Replicas whose latency grows as their load does, in a loop with the guard; whoever asks wants as few as may be."""

    def __init__(self, replicas: int, base_s: float, most_per_s: float, how: InferenceConfig, seed: int = 0) -> None:
        self.replicas, self.full, self.at_s, self.worst_s = replicas, replicas, 0.0, 0.0
        self.state = State()
        self._base_s, self._most_per_s, self._config = base_s, most_per_s, how
        self._coming: list[float] = []
        self._random = random.Random(seed)

    def latency_s(self, load_per_s: float) -> float:
        """Return the true percentile. [s]"""
        left = 1.0 - load_per_s / self.replicas / self._most_per_s
        return self._base_s / left if left > 0.01 else 100.0 * self._base_s

    def step(self, load_per_s: float) -> None:
        """Look once, and follow what the guard permits."""
        self.at_s += PERIOD_S
        ready = [at_s for at_s in self._coming if at_s <= self.at_s]
        self._coming = [at_s for at_s in self._coming if at_s > self.at_s]
        self.replicas += len(ready)
        self.worst_s = max(self.worst_s, self.latency_s(load_per_s))
        measured_s = self.latency_s(load_per_s) * self._random.gauss(1.0, 0.02)
        self.state = decide(self.state, seen(self.at_s, self.replicas, load_per_s, measured_s), self._config)
        floor = min(self.full, max(self._config.fewest, self.state.floor))
        self._coming += [self.at_s + self._config.start_s] * max(0, floor - self.replicas - len(self._coming))
        if not self._coming:
            self.replicas = min(self.replicas, floor)


@settings(max_examples=40, deadline=None)
@given(
    replicas=st.integers(2, 40),
    base_s=st.floats(0.05, 0.6),
    use_frac=st.floats(0.02, 0.5),
    seed=st.integers(0, 1000),
)
def test_the_bound_is_kept_whatever_the_service(replicas: int, base_s: float, use_frac: float, seed: int) -> None:
    """With a steady load no number of replicas is tried at which the bound breaks, and what can go goes."""
    load_per_s = use_frac * (1.0 - base_s / 0.8) * replicas * 500.0
    service = Service(replicas, base_s, 500.0, config(), seed)
    for _ in range(int(45 * 60 / PERIOD_S) + 12 * replicas):
        service.step(load_per_s)
    assert service.worst_s <= BOUND_S
    enough = load_per_s * 1.25 / (500.0 * (1.0 - base_s / 0.75))
    assert service.replicas <= max(math.ceil(enough) + 1, math.ceil(0.6 * replicas))


@settings(max_examples=15, deadline=None)
@given(base_s=st.floats(0.1, 0.4), per_minute_frac=st.floats(0.02, 0.1), seed=st.integers(0, 1000))
def test_a_rising_load_is_met_in_time(base_s: float, per_minute_frac: float, seed: int) -> None:
    """Up to 10 % more load each minute, until it has doubled: replicas, which take a minute, come in time."""
    service = Service(20, base_s, 500.0, config(), seed)
    load_per_s = 0.35 * (1.0 - base_s / 0.8) * 20 * 500.0
    for _ in range(400):
        service.step(load_per_s)
    packed = service.replicas
    for i in range(400):
        service.step(load_per_s * min(2.0, 1.0 + per_minute_frac * i * PERIOD_S / 60.0))
    assert service.worst_s <= BOUND_S
    assert packed < 20 <= service.replicas + 8


@settings(deadline=None, max_examples=50)
@given(loads=st.lists(st.floats(1.0, 5000.0), min_size=2, max_size=2), ttft_s=st.floats(0.05, 0.79))
def test_more_load_never_frees_replicas(loads: list[float], ttft_s: float) -> None:
    """Of two moments that differ in the load expected, the greater load keeps at least as many."""
    state, at_s = watched(10, 1000.0, ttft_s)
    few, many = sorted(loads)
    floors = [
        decide(state, seen(at_s + 5.0, 10, 1000.0, ttft_s, asked_per_s=1000.0 + asked_per_s), config()).floor
        for asked_per_s in (few, many)
    ]
    assert floors[0] <= floors[1]


@settings(deadline=None, max_examples=40)
@given(bounds=st.lists(st.floats(0.1, 5.0), min_size=2, max_size=2), ttft_s=st.floats(0.05, 2.0))
def test_a_tighter_bound_never_frees_replicas(bounds: list[float], ttft_s: float) -> None:
    """The same service under two bounds: the tighter one keeps at least as many."""
    floors = []
    for bound_s in sorted(bounds):
        state, at_s = watched(10, 1000.0, ttft_s, for_s=300.0, ttft_p95_s=bound_s)
        floors.append(decide(state, seen(at_s + 5.0, 10, 1000.0, ttft_s), config(ttft_p95_s=bound_s)).floor)
    assert floors[0] >= floors[1]


@settings(deadline=None)
@given(
    points=st.lists(st.tuples(st.floats(1.0, 1000.0), st.floats(0.01, 10.0)), max_size=8),
    now=st.tuples(st.floats(1.0, 1000.0), st.floats(0.01, 10.0)),
    then=st.lists(st.floats(1.0, 3000.0), min_size=2, max_size=2),
)
def test_more_load_is_never_expected_to_be_faster(
    points: list[tuple[float, float]], now: tuple[float, float], then: list[float]
) -> None:
    """Whatever has been learnt, right or wrong, an expectation rises with the load."""
    curve = Curve()
    for load_per_s, latency_s in points:
        curve = learnt(curve, 0.0, load_per_s, latency_s, 0.5)
    low, high = (expected_s(curve, *now, load_per_s) for load_per_s in sorted(then))
    assert low <= high * (1.0 + 1e-9)


@settings(deadline=None)
@given(
    present=st.integers(0, 30),
    answered=st.integers(0, 30),
    served=st.one_of(st.none(), st.floats(0.0, 9000.0)),
    ttft=st.one_of(st.none(), st.floats(0.001, 5.0)),
    waited_s=st.sampled_from([5.0, 100.0]),
)
def test_nobody_goes_unseen(
    present: int, answered: int, served: float | None, ttft: float | None, waited_s: float
) -> None:
    """A replica that does not answer, a percentile that is missing, a watch too short: no floor below who is there."""
    state, at_s = watched(8, 400.0, 0.1)
    assert state.floor < 8, "in full sight some may go"
    look = seen(at_s + waited_s, present, 400.0, ttft, answered=min(answered, present), served_per_s=served)
    if look.answered < present or served is None or ttft is None:
        assert decide(state, look, config()).floor >= present


def test_all_come_back_when_nothing_is_seen_for_long() -> None:
    """A short gap holds who is there; after ``stale_s`` the promise of the tier is kept by giving all back."""
    state, at_s = watched(5, 400.0, 0.1)
    short = decide(state, seen(at_s + 10.0, 5, 400.0, 0.1, answered=4), config())
    assert (short.floor, short.why) == (5, "4 of 5 replicas show their metrics")
    assert decide(short, seen(at_s + 40.0, 5, 400.0, 0.1, answered=4), config()).floor == ALL


def test_a_restarted_daemon_leaves_things_as_they_are() -> None:
    """Who comes to a service in the middle of a curtailment gives nothing back before it knows, and lets nobody go."""
    state = decide(State(), Seen(5.0, 6, 6), config())
    assert state.floor == 6


def test_replicas_come_back_before_the_bound_is_broken() -> None:
    """At 80 % of the bound a quarter more are called for, above it all of them."""
    state, at_s = watched(8, 1000.0, 0.5)
    near = decide(state, seen(at_s + 5.0, 8, 1000.0, 0.81), config())
    assert near.floor == 10
    assert "time to first token is at 81% of its bound" in near.why
    assert decide(state, seen(at_s + 5.0, 8, 1000.0, 1.01), config()).floor == ALL


def test_a_queue_calls_before_the_percentiles_do() -> None:
    """Percentiles know only who has waited; the queue says what those in it will have waited."""
    state, at_s = watched(8, 1000.0, 0.5)
    assert decide(state, seen(at_s + 5.0, 8, 1000.0, 0.5, wait_s=0.9), config()).floor >= 10


def test_who_was_called_is_waited_for() -> None:
    """While replicas start, better latencies do not call them off; and nobody goes for twice the time to settle."""
    state, at_s = watched(8, 1000.0, 0.5)
    state = decide(state, seen(at_s + 5.0, 8, 1000.0, 0.81), config())
    for passed_s in (10.0, 60.0, 120.0):
        state = decide(state, seen(at_s + passed_s, 8, 1000.0, 0.3), config())
        assert state.floor == 10
    state = decide(state, seen(at_s + 130.0, 8, 1000.0, 0.3), config())
    assert state.floor == 7


def test_into_the_unknown_one_goes_at_a_time() -> None:
    """However good it looks, one replica goes, the others settle, and only then the next."""
    state, at_s = watched(12, 100.0, 0.05)
    assert state.floor == 11
    state = decide(state, seen(at_s + 5.0, 11, 100.0, 0.05), config())
    assert state.floor == 11
    for passed_s in range(10, 65, 5):
        state = decide(state, seen(at_s + passed_s, 11, 100.0, 0.05), config())
        assert state.floor == (11 if passed_s < 65 else 10)
    assert decide(state, seen(at_s + 65.0, 11, 100.0, 0.05), config()).floor == 10


def test_to_where_it_has_been_one_goes_at_once() -> None:
    """A load per replica that was carried well before is returned to in one step."""
    service = Service(10, 0.2, 500.0, config())
    for _ in range(400):
        service.step(800.0)
    fewest = service.replicas
    service.replicas, service.full = 10, 10
    state = replace(service.state, floor=10)
    at_s = service.at_s
    for _ in range(int(60.0 / PERIOD_S) + 1):
        at_s += PERIOD_S
        state = decide(state, seen(at_s, 10, 800.0, service.latency_s(800.0)), config())
    assert fewest <= 6
    assert state.floor <= fewest + 1


def test_a_full_cache_or_batch_keeps_replicas() -> None:
    """Latencies look well until the cache or the batch of a replica is full: that is foreseen."""
    state, at_s = watched(4, 400.0, 0.1)
    assert decide(state, seen(at_s + 5.0, 4, 400.0, 0.1), config()).floor == 3
    assert decide(state, seen(at_s + 5.0, 4, 400.0, 0.1, cache_frac=0.7), config()).floor == 4
    assert decide(state, seen(at_s + 5.0, 4, 400.0, 0.1, in_flight=800), config(most_running=256)).floor == 4
    assert decide(state, seen(at_s + 5.0, 4, 400.0, 0.1, in_flight=400), config(most_running=256)).floor == 3


def test_without_requests_the_fewest_stay() -> None:
    """An idle service has no latencies to show and needs few; but the load of the last minutes has to fit first."""
    how = config(fewest=2, memory_s=120.0)
    state, at_s = watched(8, 400.0, 0.1, fewest=2, memory_s=120.0)
    silent = {"in_flight": 0, "started": 0, "served_per_s": 0.0, "asked_per_s": 0.0, "lately_per_s": 0.0, "lately": 0}
    floors = []
    for passed_s in range(5, 300, 5):
        state = decide(state, seen(at_s + passed_s, 8, 0.0, None, **silent), how)
        floors.append(state.floor)
    assert floors[:20] == [8] * 20
    assert floors[-1] == 2


def test_a_rise_calls_before_the_latency_does() -> None:
    """Half as much again within the last third of a window is a rise; a few more is chance."""
    state, at_s = watched(8, 1600.0, 0.45)
    rise = decide(state, seen(at_s + 5.0, 8, 1600.0, 0.45, lately_per_s=2400.0), config())
    assert rise.floor > 8
    assert "rising" in rise.why
    assert decide(state, seen(at_s + 5.0, 8, 1600.0, 0.45, lately_per_s=1700.0), config()).floor <= 8


@pytest.mark.parametrize(
    ("given_keys", "said"),
    [
        pytest.param({"metrics_url": ""}, "metrics_url, a template, or metrics_urls", id="no-address"),
        pytest.param({"metrics_url": "http://chat/metrics"}, "needs {address}", id="no-template"),
        pytest.param({"metrics_url": "file:///{address}"}, "http://", id="scheme"),
        pytest.param({"ttft_p95_s": None}, "at least one bound", id="no-bound"),
        pytest.param({"ttft_p95_s": -1.0}, "greater than 0", id="negative"),
        pytest.param({"window_s": 6.0}, "twice period_s", id="short-window"),
        pytest.param({"stale_s": 5.0}, "period_s + timeout_s", id="stale-at-once"),
        pytest.param({"ttft_p99_s": 1.0}, "Extra inputs", id="unknown-key"),
    ],
)
def test_bad_configurations_say_why(given_keys: dict[str, object], said: str) -> None:
    """A key that is wrong is refused in words that tell what to write."""
    with pytest.raises(ValidationError) as refused:
        config(**given_keys)
    assert said in str(refused.value)


def test_above_the_bound_all_come_back_however_few_would_do() -> None:
    """What was learnt may say that two more are enough: it was wrong a moment ago."""
    service = Service(20, 0.1, 500.0, config())
    for _ in range(400):
        service.step(3000.0)
    look = seen(service.at_s + 5.0, service.replicas, 3000.0, 0.81)
    assert decide(service.state, look, config()).floor < 20
    assert decide(service.state, replace(look, p95_s={Latency.TTFT: 1.01}), config()).floor == ALL


def test_the_guide_says_what_the_configuration_takes() -> None:
    """The example of the guide is valid, and every key is in the guide with its default."""
    guide = (ROOT / "docs" / "inference.md").read_text(encoding="utf-8")
    example = tomllib.loads(guide.partition("```toml\n")[2].partition("```")[0])
    given = InferenceConfig.model_validate(example["assets"]["connection"]["inference"]["chat"])
    told = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", guide, flags=re.MULTILINE))
    for name, field in InferenceConfig.model_fields.items():
        if name not in given.model_fields_set | {"metrics_urls"}:
            assert float(told[name]) == field.default, name


def test_the_greatest_load_of_the_last_minutes_has_to_fit() -> None:
    """A peak that comes every few minutes keeps the replicas that it needs in between."""
    quiet, at_s = watched(8, 800.0, 0.4)
    assert decide(quiet, seen(at_s + 5.0, 8, 800.0, 0.4), config()).floor == 7
    peaked = decide(quiet, seen(at_s + 5.0, 8, 800.0, 0.4, asked_per_s=1500.0), config())
    later = decide(peaked, seen(at_s + 240.0, 8, 800.0, 0.4), config())
    assert later.floor == 8


def test_what_is_not_known_is_expected_to_be_worse() -> None:
    """The same guess of a slope counts for more when it is a guess, and more still for a large step."""
    known = Curve()
    for load_per_s in (50.0, 75.0, 100.0):
        for _ in range(10):
            known = learnt(known, 0.0, load_per_s, 0.2 / (1.0 - load_per_s / 200.0), 0.5)
    assert expected_s(known, 100.0, 0.4, 120.0) < expected_s(Curve(), 100.0, 0.4, 120.0) * 1.2
    assert expected_s(known, 100.0, 0.4, 120.0) >= 0.5, "never better than what is true"
    assert expected_s(Curve(), 100.0, 0.4, 120.0) > 0.4 / (1.0 - 0.5 * 0.2)
    assert expected_s(Curve(), 100.0, 0.4, 199.0) == math.inf


def test_a_late_look_tells_of_the_time_it_covers() -> None:
    """A look that comes more than a window after the one before is no blindness: it covers all the time in between."""
    how = config(window_s=20.0)
    fresh, page = (
        Page(0, 0, 0, None, {}),
        Page(1, 0, 900, 0.1, {Latency.TTFT: Histogram((0.1, math.inf), (90.0, 90.0), 1.0)}),
    )
    record = observed(observed(Record(), 0.0, {"a": fresh}, how), 45.0, {"a": page}, how)
    look = window_seen(record, 45.0, {"a": page}, how)
    assert (look.served_per_s, look.started) == (20.0, 90)

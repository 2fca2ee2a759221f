"""How few replicas may stay, decided from what a service shows. Pure: what was seen and what went before in, a floor out.

Replicas go slowly and come back at once. They go only where the load, with headroom and the greatest of the last minutes,
is expected to keep every latency below ``backoff_frac`` of its bound; one at a time into loads per replica that nobody has seen, and at
once down to loads that were seen to do. They come back before a bound is broken: when a latency passes ``backoff_frac``
of it, when the queue says so ahead of the percentiles, or when the load is rising towards it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from adapters._inference_config import InferenceConfig
from adapters._inference_curve import Curve, doubt_frac, expected_s, learnt
from adapters._inference_metrics import Latency

ALL = 1_000_000
"""More replicas than there are: whoever asks for the floor takes no more than he has."""
COME_BACK_FRAC = 0.25
"""So many replicas more, as a part of those present, when a latency comes near its bound."""
FULL_CACHE_FRAC = 0.9
"""A key-value cache fuller than this throws requests out and begins them again."""
FULL_BATCH_FRAC = 0.9
LEFT_FRAC = 0.5
"""Replicas come back when less than this part of the headroom is left."""
LATELY_FRAC = 1.0 / 3.0
"""The last part of a window, in which a rise shows first."""
SURE_SIGMAS = 2.5
"""A load rises where it has risen by so many standard deviations of a count; all of that within the last window."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A service over its last window."""

    at_s: float
    present: int
    """Replicas that should have answered."""
    answered: int
    in_flight: int = 0
    """Requests running and waiting, in all."""
    waiting: int = 0
    started: int = 0
    """Requests that got their first token within the window."""
    served_per_s: float | None = None
    """Tokens generated, in all; None: not watched for long enough."""
    asked_per_s: float = 0.0
    """Tokens that the requests that arrived will need, in all: ahead of ``served_per_s`` when the load rises."""
    lately_per_s: float = 0.0
    """The same of the last part of the window alone."""
    lately: int = 0
    """Requests that arrived in that part."""
    p95_s: Mapping[Latency, float] = field(default_factory=dict)
    """Percentiles; one that is missing had no observation."""
    wait_s: float = 0.0
    """How long the queue takes at the present pace: ahead of the percentiles, which know only who has waited."""
    cache_frac: float = 0.0
    """Of the fullest replica."""


@dataclass(frozen=True, slots=True)
class State:
    """What went before, and what holds now."""

    floor: int = 0
    """The fewest replicas that may stay."""
    why: str = ""
    seen_s: float | None = None
    """When everything was last in sight."""
    present: int = 0
    changed_s: float = -math.inf
    """When replicas last came or went."""
    fell: bool = False
    """They went."""
    held_until_s: float = -math.inf
    """Nobody goes before this time."""
    loads: tuple[tuple[float, float], ...] = ()
    """(time, tokens per second in all) within the memory, oldest first."""
    asked: tuple[tuple[float, float], ...] = ()
    """(time, ``Seen.lately_per_s``) likewise."""
    curves: Mapping[Latency, Curve] = field(default_factory=dict)


def bounds_s(config: InferenceConfig) -> dict[Latency, float]:
    """Return the bounds that are set. [s]"""
    given = {Latency.TTFT: config.ttft_p95_s, Latency.ITL: config.itl_p95_s, Latency.QUEUE: config.queue_p95_s}
    return {name: bound_s for name, bound_s in given.items() if bound_s is not None}


def decide(state: State, seen: Seen, config: InferenceConfig) -> State:
    """Return the state after one look more."""
    now = state
    if seen.present != state.present:
        now = replace(state, present=seen.present, changed_s=seen.at_s, fell=seen.present < state.present)
    missing = _missing(seen, config)
    if missing:
        return _blind(now, seen, config, missing)
    now = replace(now, seen_s=seen.at_s)
    if seen.served_per_s is None:
        return replace(now, floor=max(seen.present, state.floor), why="not watched for long enough")
    now = _remembered(now, seen, config)
    return _pressed(now, seen, config) or _lowered(now, seen, config)


def _missing(seen: Seen, config: InferenceConfig) -> str:
    """Say what is not in sight, empty when everything is. A service without requests has no latencies to show."""
    if not seen.present or seen.answered < seen.present:
        return f"{seen.answered} of {seen.present} replicas show their metrics"
    if seen.served_per_s is None or (not seen.started and not seen.in_flight):
        return ""
    absent = _unstated(seen, config)
    return f"no {absent[0]} in the metrics" if absent else ""


def _unstated(seen: Seen, config: InferenceConfig) -> list[Latency]:
    return [name for name in bounds_s(config) if name not in seen.p95_s]


def _blind(state: State, seen: Seen, config: InferenceConfig, missing: str) -> State:
    """Return the state without sight: nobody goes, and after a time all come back."""
    seen_s = seen.at_s if state.seen_s is None else state.seen_s
    too_long = not seen.present or seen.at_s - seen_s > config.stale_s
    floor = ALL if too_long else max(seen.present, state.floor)
    return replace(state, floor=floor, seen_s=seen_s, why=missing)


def _remembered(state: State, seen: Seen, config: InferenceConfig) -> State:
    """Return the state with this look's load and, where replicas have settled, its latencies."""
    load_per_s = max(seen.served_per_s or 0.0, seen.asked_per_s)
    begin_s = seen.at_s - config.memory_s
    loads = (*(item for item in state.loads if item[0] > begin_s), (seen.at_s, load_per_s))
    asked = (*(item for item in state.asked if item[0] > begin_s), (seen.at_s, seen.lately_per_s))
    curves = {**state.curves, **_learnt(state, seen, config)}
    return replace(state, loads=loads, asked=asked, curves=curves)


def _learnt(state: State, seen: Seen, config: InferenceConfig) -> dict[Latency, Curve]:
    """Return the curves with this look, where the whole window has the replicas of now.

    Sooner when some have gone and it was too much: what is felt already is the least that the load per replica of now does.
    """
    aged_s = seen.at_s - state.changed_s
    aims_s = {name: config.backoff_frac * bound_s for name, bound_s in bounds_s(config).items()}
    too_much = state.fell and any(seen.p95_s.get(name, 0.0) > aim_s for name, aim_s in aims_s.items())
    if not seen.served_per_s or aged_s < config.window_s * (LATELY_FRAC if too_much else 1.0):
        return {}
    settled_s = aged_s - config.window_s
    weight = 1.0 if 0.0 <= settled_s < config.period_s else config.period_s / config.window_s
    each_per_s = seen.served_per_s / seen.present
    curves = {name: state.curves.get(name, Curve()).since(seen.at_s - config.forget_s) for name in seen.p95_s}
    return {n: learnt(curves[n], seen.at_s, each_per_s, p95_s, weight) for n, p95_s in seen.p95_s.items()}


def _pressed(state: State, seen: Seen, config: InferenceConfig) -> State | None:
    """Return the state that calls replicas back, None where nothing presses."""
    held = replace(state, held_until_s=max(state.held_until_s, seen.at_s + 2.0 * config.settle_s))
    use = {name: _now_s(seen, name) / bound_s for name, bound_s in bounds_s(config).items()}
    worst = max(use, key=lambda name: use[name])
    said = f"{worst} is at {use[worst]:.0%} of its bound"
    if use[worst] > 1.0:
        return replace(held, floor=ALL, why=said)
    if use[worst] > config.backoff_frac:
        more = seen.present + math.ceil(COME_BACK_FRAC * seen.present)
        needed = _needed(state, seen, config, _ahead_per_s(state, seen, config))
        return replace(held, floor=max(more, needed), why=said)
    left_frac = LEFT_FRAC * _headroom_frac(state, seen, config)
    needed = _needed(state, seen, config, _ahead_per_s(state, seen, config) * (1.0 + left_frac))
    if needed > seen.present:
        return replace(held, floor=needed, why=f"the load is rising: {needed} replicas")
    return None


def _now_s(seen: Seen, name: Latency) -> float:
    """Return a latency as it is, or as the queue will make it. [s]"""
    p95_s = seen.p95_s.get(name, 0.0)
    return p95_s if name is Latency.ITL else max(p95_s, seen.wait_s)


def _ahead_per_s(state: State, seen: Seen, config: InferenceConfig) -> float:
    """Return the load when a replica that is asked for now begins to serve. [tokens/s]"""
    part_s = LATELY_FRAC * config.window_s
    lately_per_s = _risen_per_s(state, seen, config, _Count(seen.lately_per_s, seen.lately, part_s))
    all_per_s = _risen_per_s(state, seen, config, _Count(seen.asked_per_s, seen.started, config.window_s))
    return max(state.loads[-1][1], lately_per_s, all_per_s)


@dataclass(frozen=True, slots=True)
class _Count:
    """The load of the requests that came within a time."""

    load_per_s: float
    requests: int
    over_s: float


def _risen_per_s(state: State, seen: Seen, config: InferenceConfig, now: _Count) -> float:
    """Return where a rise that is more than chance will have led when a replica can serve, 0 without one. [tokens/s]"""
    before = [per_s for at_s, per_s in state.asked if at_s <= seen.at_s - now.over_s + 1e-6]
    if not before or not now.requests:
        return 0.0
    rise_per_s = now.load_per_s - sum(before) / len(before)
    chance = math.sqrt((1.0 + now.over_s / (now.over_s + config.period_s * len(before))) / now.requests)
    if rise_per_s <= SURE_SIGMAS * chance * now.load_per_s:
        return 0.0
    return now.load_per_s + rise_per_s * (config.start_s + 0.5 * now.over_s) / config.window_s


def _lowered(state: State, seen: Seen, config: InferenceConfig) -> State:
    """Return the state when nothing presses: as few as the load allows, and no faster than one learns."""
    if seen.at_s < max(state.held_until_s, state.changed_s + config.settle_s):
        return replace(state, floor=max(seen.present, state.floor), why="replicas have come or gone a moment ago")
    peak_per_s = max(load_per_s for _, load_per_s in state.loads)
    ahead_per_s = _ahead_per_s(state, seen, config)
    planned_per_s = max(peak_per_s, ahead_per_s * (1.0 + _headroom_frac(state, seen, config)))
    if planned_per_s > 0.0 and _unstated(seen, config):
        return replace(state, floor=seen.present, why="no requests now, but a moment ago")
    needed = min(_needed(state, seen, config, planned_per_s), seen.present)
    unseen = max(needed, seen.present - config.drop_at_most)
    proven = max(needed, _proven(state, config, planned_per_s))
    floor = max(config.fewest, min(unseen, proven))
    return replace(state, floor=floor, why=f"{floor} replicas carry {planned_per_s:.0f} tokens/s")


def _headroom_frac(state: State, seen: Seen, config: InferenceConfig) -> float:
    """Return the headroom that is due: as much of it as one is sure of the curves, whose doubt is a headroom of its own."""
    each_per_s = (seen.served_per_s or 0.0) / seen.present
    curves = [(state.curves.get(name, Curve()), p95_s) for name, p95_s in seen.p95_s.items()]
    doubt = max((doubt_frac(curve, each_per_s, p95_s) for curve, p95_s in curves), default=0.0)
    return config.headroom_frac * (1.0 - doubt)


def _proven(state: State, config: InferenceConfig, load_per_s: float) -> int:
    """Return how many replicas bring a load down to what one has been seen to carry well."""
    aims_s = {name: config.backoff_frac * bound_s for name, bound_s in bounds_s(config).items()}
    each_per_s = min(state.curves.get(name, Curve()).proven_per_s(aim_s) for name, aim_s in aims_s.items())
    return math.ceil(load_per_s / each_per_s) if each_per_s > 0.0 else ALL


def _needed(state: State, seen: Seen, config: InferenceConfig, load_per_s: float) -> int:
    """Return the fewest replicas that are expected to carry a load [tokens/s] within every bound; ALL where none are."""
    if _fits(state, seen, config, load_per_s, seen.present):
        fits = seen.present
        while fits > 1 and _fits(state, seen, config, load_per_s, fits - 1):
            fits -= 1
        return fits
    more = range(seen.present + 1, 4 * seen.present + 1)
    return next((n for n in more if _fits(state, seen, config, load_per_s, n)), ALL)


def _fits(state: State, seen: Seen, config: InferenceConfig, load_per_s: float, replicas: int) -> bool:
    """Say whether so many replicas are expected to carry a load [tokens/s] within every bound."""
    served_per_s = (seen.served_per_s or 0.0) / seen.present
    then_per_s = load_per_s / replicas
    slower = then_per_s / served_per_s if served_per_s > 0.0 else 1.0
    for name, bound_s in bounds_s(config).items():
        if name not in seen.p95_s:
            continue
        curve = state.curves.get(name, Curve())
        then_s = expected_s(curve, served_per_s, seen.p95_s[name], then_per_s)
        if then_s > config.backoff_frac * bound_s:
            return False
        if name is Latency.ITL:
            slower *= then_s / seen.p95_s[name]
    return _has_room(seen, config, slower)


def _has_room(seen: Seen, config: InferenceConfig, factor: float) -> bool:
    """Say whether ``factor`` times the requests in flight fit into cache and batch of each replica."""
    if seen.cache_frac * factor > FULL_CACHE_FRAC:
        return False
    if config.most_running is None:
        return True
    return seen.in_flight / seen.present * factor <= FULL_BATCH_FRAC * config.most_running

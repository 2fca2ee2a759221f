"""What vLLM and SGLang say on /metrics, and percentiles of what happened between two scrapes. Pure.

Names and buckets as in vLLM's "Production Metrics" (docs.vllm.ai/en/latest/usage/metrics.html; vllm/v1/metrics/loggers.py)
and SGLang's "Production Metrics" (docs.sglang.io/docs/references/production_metrics; srt/metrics/collector.py), in the text
format 0.0.4 or OpenMetrics. A fresh SGLang names its metrics and has no samples yet: that is a server without traffic.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from statistics import NormalDist

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from vppd.errors import Garbled

P95 = 0.95


class Latency(StrEnum):
    """What is bounded."""

    TTFT = "time to first token"
    ITL = "inter-token latency"
    QUEUE = "queue time"


HISTOGRAMS: Mapping[Latency, tuple[str, ...]] = {
    Latency.TTFT: ("vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds"),
    Latency.ITL: (
        "vllm:inter_token_latency_seconds",
        "vllm:time_per_output_token_seconds",
        "sglang:inter_token_latency_seconds",
        "sglang:time_per_output_token_seconds",
    ),
    Latency.QUEUE: ("vllm:request_queue_time_seconds", "sglang:queue_time_seconds"),
}
"""By preference: a server in transition tells the same under its old and its new name."""
RUNNING = ("vllm:num_requests_running", "sglang:num_running_reqs")
WAITING = ("vllm:num_requests_waiting", "sglang:num_queue_reqs")
TOKENS = ("vllm:generation_tokens", "sglang:generation_tokens")
CACHE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage")

_FAMILIES = (*(name for names in HISTOGRAMS.values() for name in names), *RUNNING, *WAITING, *TOKENS, *CACHE)
_TYPED = frozenset(_FAMILIES) | {f"{name}_total" for name in TOKENS}
_NORMAL = NormalDist()
_SUREST_FRAC = 0.01
"""No share below an edge is taken for surer than this."""
_MOST_FRAC, _REST_FRAC, _MANY = 0.5, 0.001, 2000
_EXPONENTIAL_P95 = -math.log(1.0 - P95)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations since a server started, or between two scrapes."""

    edges_s: tuple[float, ...]
    """Upper edges, ascending, the last one infinite. [s]"""
    counts: tuple[float, ...]
    """Observations up to each edge."""
    sum_s: float

    @property
    def total(self) -> int:
        """Return the number of observations."""
        return round(self.counts[-1]) if self.counts else 0


@dataclass(frozen=True, slots=True)
class Page:
    """One replica at one moment."""

    running: int
    waiting: int
    tokens: int
    """Generated since it started."""
    cache_frac: float | None
    """Fullness of its key-value cache. [0-1]"""
    histograms: Mapping[Latency, Histogram]


def parse(text: str, content_type: str = "") -> Page:
    """Return what a page says. Raises Garbled when it is not a page of vLLM or SGLang."""
    dropped = _superseded(text)
    lines = [line for line in text.splitlines() if _is_wanted(line) and not (dropped and line.startswith(dropped))]
    if not lines:
        raise Garbled("metrics of neither vLLM nor SGLang")
    families = open_families if "openmetrics" in content_type else text_families
    body = "\n".join(lines) + ("\n# EOF\n" if families is open_families else "\n")
    try:
        return _page(families(body))
    except (ValueError, KeyError) as error:
        raise Garbled(f"metrics that cannot be read: {error}") from error


def _superseded(text: str) -> tuple[str, ...]:
    """Return the old names of histograms that the page has under a new name too."""
    told = [[name for name in names if f"\n{name}_bucket" in text] for names in HISTOGRAMS.values()]
    return tuple(name for names in told for name in names[1:])


def _is_wanted(line: str) -> bool:
    """Say whether a line matters: the pages are long, and the parser takes its time."""
    if line.startswith("# TYPE "):
        return line.split(" ", 3)[2] in _TYPED
    return line.startswith(_FAMILIES)


def _page(families: Iterable[Metric]) -> Page:
    values: dict[str, list[float]] = {}
    buckets: dict[str, dict[float, float]] = {}
    for family in families:
        for sample in family.samples:
            if not math.isfinite(sample.value):
                raise ValueError(f"{sample.name} is {sample.value}")
            if sample.name.endswith("_bucket"):
                edge_s = float(sample.labels["le"])
                counts = buckets.setdefault(sample.name.removesuffix("_bucket"), {})
                counts[edge_s] = counts.get(edge_s, 0.0) + sample.value
            else:
                values.setdefault(sample.name, []).append(sample.value)
    return Page(
        running=round(sum(_first(values, RUNNING))),
        waiting=round(sum(_first(values, WAITING))),
        tokens=round(sum(_first(values, [f"{name}_total" for name in TOKENS]))),
        cache_frac=max(_first(values, CACHE), default=None),
        histograms={
            latency: _histogram(buckets[name], name, values)
            for latency, names in HISTOGRAMS.items()
            if (name := next((n for n in names if n in buckets), ""))
        },
    )


def _first(values: Mapping[str, list[float]], names: Iterable[str]) -> list[float]:
    """Return the samples of the first name there is: one for each engine of the server."""
    return next((values[name] for name in names if name in values), [])


def _histogram(buckets: Mapping[float, float], name: str, values: Mapping[str, list[float]]) -> Histogram:
    edges_s = tuple(sorted(buckets))
    counts = tuple(buckets[edge_s] for edge_s in edges_s)
    if edges_s[-1] != math.inf or any(later < count for count, later in pairwise(counts)):
        raise ValueError(f"{name} is no histogram")
    return Histogram(edges_s, counts, sum(values.get(f"{name}_sum", [])))


@dataclass(frozen=True, slots=True)
class Change:
    """What happened between two scrapes, of one replica or of many."""

    tokens: int = 0
    histograms: Mapping[Latency, Histogram] = field(default_factory=dict)


def change(before: Page, after: Page) -> Change:
    """Return what happened in between; counters that went back tell of a restart, and then all they say is new."""
    return Change(
        tokens=after.tokens - before.tokens if after.tokens >= before.tokens else after.tokens,
        histograms={name: _increase(before.histograms.get(name), now) for name, now in after.histograms.items()},
    )


def together(changes: Iterable[Change]) -> Change:
    """Return the sum over replicas or over time."""
    tokens, found = 0, {name: list[Histogram]() for name in Latency}
    for one in changes:
        tokens += one.tokens
        for name, histogram in one.histograms.items():
            found[name].append(histogram)
    return Change(tokens, {name: _sum(histograms) for name, histograms in found.items() if histograms})


def _increase(before: Histogram | None, after: Histogram) -> Histogram:
    if before is None or before.edges_s != after.edges_s or after.sum_s < before.sum_s:
        return after
    counts = tuple(now - was for was, now in zip(before.counts, after.counts, strict=True))
    return after if min(counts) < 0.0 else Histogram(after.edges_s, counts, after.sum_s - before.sum_s)


def _sum(histograms: list[Histogram]) -> Histogram:
    """Return all observations; where edges differ, as they do between versions, none is taken for lower than it is known to be."""
    edges_s = tuple(sorted({edge_s for histogram in histograms for edge_s in histogram.edges_s}))
    counts = [0.0] * len(edges_s)
    for histogram in histograms:
        for i, edge_s in enumerate(edges_s):
            at = bisect_right(histogram.edges_s, edge_s)
            counts[i] += histogram.counts[at - 1] if at else 0.0
    return Histogram(edges_s, tuple(counts), sum(histogram.sum_s for histogram in histograms))


def p95_s(histogram: Histogram | None) -> float | None:
    """Return the 95th percentile; None without observations, infinite beyond the last edge. [s]

    It lies in the bucket where the count passes 95 %. Buckets are wide (25-50 ms in vLLM), so where in it matters:
    ``_inside_s`` takes the curve that the shares at both edges, or one share and the mean, speak for.
    """
    if histogram is None or histogram.total <= 0:
        return None
    total = histogram.counts[-1]
    at = next(i for i, count in enumerate(histogram.counts) if count >= P95 * total)
    top_s = histogram.edges_s[at]
    if math.isinf(top_s):
        return math.inf
    mean_s, upto = histogram.sum_s / total, histogram.counts[at]
    if not at:
        return min(_EXPONENTIAL_P95 * mean_s, top_s)
    bottom_s, below = histogram.edges_s[at - 1], histogram.counts[at - 1]
    return _inside_s(_Bucket(max(bottom_s, 0.0), top_s, below / total, upto / total), mean_s, histogram.total)


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Two edges, and the shares of all observations up to them."""

    bottom_s: float
    top_s: float
    below_frac: float
    upto_frac: float


def _inside_s(bucket: _Bucket, mean_s: float, total: int) -> float:
    """Return where the percentile lies within its bucket. [s]

    Most is below: log-normal through both edges, or, where the values end with the bucket (steps with a full prompt
    budget do), a straight line. Most is inside: the log-normal with the mean and the share below.
    """
    straight_s = bucket.bottom_s + (bucket.top_s - bucket.bottom_s) * (P95 - bucket.below_frac) / (
        bucket.upto_frac - bucket.below_frac
    )
    ends = bucket.upto_frac >= 1.0 - _REST_FRAC and total >= _MANY
    guess_s: float | None
    if bucket.bottom_s <= 0.0 or (ends and bucket.below_frac >= _MOST_FRAC):
        guess_s = straight_s
    elif bucket.below_frac >= _MOST_FRAC:
        low, high = (_NORMAL.inv_cdf(min(f, 1.0 - 0.5 / total)) for f in (bucket.below_frac, bucket.upto_frac))
        part = (_NORMAL.inv_cdf(P95) - low) / (high - low) if high > low else 1.0
        guess_s = bucket.bottom_s * (bucket.top_s / bucket.bottom_s) ** part
    else:
        guess_s = _log_normal_p95_s(mean_s, bucket.bottom_s, bucket.below_frac)
    if guess_s is None or not bucket.bottom_s <= guess_s <= bucket.top_s:
        guess_s = straight_s
    return min(max(guess_s, bucket.bottom_s), bucket.top_s)


def _log_normal_p95_s(mean_s: float, edge_s: float, below_frac: float) -> float | None:
    """Return the percentile of the log-normal with this mean and this share below an edge, None where there is none. [s]"""
    if mean_s <= 0.0:
        return None
    z = _NORMAL.inv_cdf(min(max(below_frac, _SUREST_FRAC), 1.0 - _SUREST_FRAC))
    inner = z * z - 2.0 * math.log(edge_s / mean_s)
    if inner < 0.0:
        return None
    spread = z + math.sqrt(inner) if edge_s < mean_s else z - math.sqrt(inner)
    return mean_s * math.exp(spread * _NORMAL.inv_cdf(P95) - spread * spread / 2.0) if spread > 0.0 else None

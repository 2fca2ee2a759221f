"""What the replicas of one service showed over the last minute, from their pages at each look. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from adapters._inference_config import InferenceConfig
from adapters._inference_guard import LATELY_FRAC, Seen
from adapters._inference_metrics import Change, Latency, Page, change, p95_s, together

WAITING_LOOKS = 3
"""A queue is averaged over so many looks: one look may catch a request that waits for no longer than one step."""
LEAST_FRAC = 0.5
"""So much of a window has to be covered before it tells anything."""


@dataclass(frozen=True, slots=True)
class Span:
    """What happened between two looks, at all replicas together."""

    begin_s: float
    end_s: float
    change: Change
    waiting: int
    """At its end."""


@dataclass(frozen=True, slots=True)
class Record:
    """The looks of the memory's length, oldest first, and the newest page of each replica."""

    looked_s: float | None = None
    pages: Mapping[str, Page] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()


def observed(record: Record, at_s: float, pages: Mapping[str, Page | None], config: InferenceConfig) -> Record:
    """Return the record with one look more: a page, or None, from each replica that should run."""
    told = {url: page for url, page in pages.items() if page is not None}
    kept = {url: page for url, page in record.pages.items() if url in pages}
    if record.looked_s is None:
        return Record(at_s, told)
    changes = [change(kept[url], page) for url, page in told.items() if url in kept]
    span = Span(record.looked_s, at_s, together(changes), sum(page.waiting for page in told.values()))
    recent = (old for old in record.spans if old.end_s > at_s - config.memory_s)
    return Record(at_s, {**kept, **told}, (*recent, span))


def seen(record: Record, at_s: float, pages: Mapping[str, Page | None], config: InferenceConfig) -> Seen:
    """Return the service over its last window."""
    told = [page for page in pages.values() if page is not None]
    here = Seen(at_s, len(pages), len(told))
    spans = [span for span in record.spans if span.end_s > at_s - config.window_s + 1e-6]
    if not spans or at_s - spans[0].begin_s < LEAST_FRAC * config.window_s:
        return here
    waiting = sum(page.waiting for page in told)
    return replace(
        _moved(here, record, spans, waiting, config),
        in_flight=sum(page.running for page in told) + waiting,
        cache_frac=max((page.cache_frac or 0.0 for page in told), default=0.0),
    )


def _moved(here: Seen, record: Record, spans: list[Span], waiting: int, config: InferenceConfig) -> Seen:
    """Return the service with what was asked of it and served in these spans."""
    covered_s, window = here.at_s - spans[0].begin_s, together(span.change for span in spans)
    started, served_per_s = _started(window), window.tokens / covered_s
    each = _tokens_each(record, served_per_s, started / covered_s)
    last = [span for span in spans if span.end_s > here.at_s - config.window_s * LATELY_FRAC] or spans[-1:]
    lately = _arrived(last, waiting)
    percentiles = {name: p95_s(histogram) for name, histogram in window.histograms.items()}
    return replace(
        here,
        started=started,
        served_per_s=served_per_s,
        asked_per_s=_arrived(spans, waiting) / covered_s * each,
        lately=lately,
        lately_per_s=lately / (here.at_s - last[0].begin_s) * each,
        p95_s={name: value_s for name, value_s in percentiles.items() if value_s is not None},
        wait_s=_wait_s(spans, started, covered_s, here.answered),
    )


def _arrived(spans: Sequence[Span], waiting: int) -> int:
    """Return how many requests came in these spans: those that were started, and those that wait now and did not before."""
    return sum(_started(span.change) for span in spans) + max(0, waiting - spans[0].waiting)


def _started(what: Change) -> int:
    """Return how many requests got their first token."""
    histogram = what.histograms.get(Latency.TTFT)
    return histogram.total if histogram is not None else 0


def _tokens_each(record: Record, served_per_s: float, started_per_s: float) -> float:
    """Return the tokens of a request, averaged over the whole memory: they come later than the request."""
    tokens = sum(span.change.tokens for span in record.spans)
    started = sum(_started(span.change) for span in record.spans)
    if started:
        return tokens / started
    return served_per_s / started_per_s if started_per_s > 0.0 else 0.0


def _wait_s(spans: list[Span], started: int, covered_s: float, replicas: int) -> float:
    """Return how long the queue takes at the present pace (Little's law). [s]"""
    last = spans[-WAITING_LOOKS:]
    waiting = sum(span.waiting for span in last) / len(last)
    if waiting < 1.0:
        return 0.0
    if not started:
        return covered_s if waiting > replicas else 0.0
    return waiting / started * covered_s

"""What vLLM and SGLang say on /metrics is read, and percentiles of what happened between two scrapes are right."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters._inference_metrics import Change, Histogram, Latency, Page, change, p95_s, parse, together
from tests.adapters.inference_fleet import SGLANG_TTFT, VLLM_ITL, VLLM_QUEUE, VLLM_TTFT
from vppd.errors import Garbled

VLLM = """\
# HELP python_info Python platform information.
# TYPE python_info gauge
python_info{implementation="CPython",major="3"} 1.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 7.0
vllm:num_requests_running{engine="1",model_name="m"} 5.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 2.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 1000.0
vllm:generation_tokens_total{engine="1",model_name="m"} 500.0
# TYPE vllm:generation_tokens_created gauge
vllm:generation_tokens_created{engine="0",model_name="m"} 1.7e+09
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="m"} 3.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.25",model_name="m"} 8.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 10.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 10.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 2.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="0.1",model_name="m"} 1.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="0.25",model_name="m"} 1.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="+Inf",model_name="m"} 1.0
vllm:time_to_first_token_seconds_count{engine="1",model_name="m"} 1.0
vllm:time_to_first_token_seconds_sum{engine="1",model_name="m"} 0.05
# TYPE vllm:time_per_output_token_seconds histogram
vllm:time_per_output_token_seconds_bucket{engine="0",le="0.025",model_name="m"} 90.0
vllm:time_per_output_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 90.0
vllm:time_per_output_token_seconds_sum{engine="0",model_name="m"} 1.8
# TYPE vllm:inter_token_latency_seconds histogram
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.025",model_name="m"} 90.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="+Inf",model_name="m"} 90.0
vllm:inter_token_latency_seconds_sum{engine="0",model_name="m"} 1.8
"""
"""As vLLM 0.10 and later write it: two engines, a histogram under its old and its new name, no queue time yet."""

SGLANG = """\
# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 162.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 2826.0
# TYPE sglang:token_usage gauge
sglang:token_usage{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 0.28
# TYPE sglang:generation_tokens_total counter
sglang:generation_tokens_total{model_name="m"} 7.557572e+06
# TYPE sglang:time_to_first_token_seconds histogram
sglang:time_to_first_token_seconds_sum{model_name="m"} 9.5
sglang:time_to_first_token_seconds_bucket{le="0.1",model_name="m"} 6.0
sglang:time_to_first_token_seconds_bucket{le="1.0",model_name="m"} 27.0
sglang:time_to_first_token_seconds_bucket{le="+Inf",model_name="m"} 27.0
sglang:time_to_first_token_seconds_count{model_name="m"} 27.0
# TYPE sglang:queue_time_seconds histogram
sglang:queue_time_seconds_sum{model_name="m",tp_rank="0"} 1.5
sglang:queue_time_seconds_bucket{le="0.0",model_name="m",tp_rank="0"} 0.0
sglang:queue_time_seconds_bucket{le="0.1",model_name="m",tp_rank="0"} 20.0
sglang:queue_time_seconds_bucket{le="+Inf",model_name="m",tp_rank="0"} 21.0
"""

OPEN = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="m"} 7.0
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{model_name="m"} 1000.0
vllm:generation_tokens_created{model_name="m"} 1.7e+09
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{le="0.1",model_name="m"} 3.0 # {trace_id="4bf92f"} 0.07 1.7e+09
vllm:time_to_first_token_seconds_bucket{le="+Inf",model_name="m"} 10.0
vllm:time_to_first_token_seconds_count{model_name="m"} 10.0
vllm:time_to_first_token_seconds_sum{model_name="m"} 2.0
# EOF
"""


def histogram(values: list[float], edges_s: tuple[float, ...]) -> Histogram:
    """Return what a server would have counted."""
    edges = (*edges_s, math.inf)
    return Histogram(edges, tuple(float(sum(v <= edge_s for v in values)) for edge_s in edges), sum(values))


def test_a_page_of_vllm_is_read() -> None:
    """The engines of one server are summed, and what it tells under two names counts once."""
    page = parse(VLLM, "text/plain; version=0.0.4; charset=utf-8")
    assert (page.running, page.waiting, page.tokens, page.cache_frac) == (12, 2, 1500, 0.5)
    assert page.histograms[Latency.TTFT] == Histogram((0.1, 0.25, math.inf), (4.0, 9.0, 11.0), 2.05)
    assert page.histograms[Latency.ITL].total == 90
    assert Latency.QUEUE not in page.histograms


def test_an_older_vllm_is_read() -> None:
    """A server that knows the old names alone is read by them."""
    old = "\n".join(line for line in VLLM.splitlines() if "inter_token" not in line) + "\n"
    page = parse(old.replace("kv_cache", "gpu_cache"))
    assert (page.histograms[Latency.ITL].total, page.cache_frac) == (90, 0.5)


def test_a_page_of_sglang_is_read() -> None:
    """SGLang's names, and its queue histogram that begins at an edge of zero."""
    page = parse(SGLANG)
    assert (page.running, page.waiting, page.tokens, page.cache_frac) == (162, 2826, 7557572, 0.28)
    assert page.histograms[Latency.QUEUE].total == 21
    assert p95_s(page.histograms[Latency.QUEUE]) == pytest.approx(0.1, rel=0.5)


def test_openmetrics_is_read() -> None:
    """The same by content type, with an exemplar and a time of creation."""
    page = parse(OPEN, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert (page.running, page.tokens, page.histograms[Latency.TTFT].total) == (7, 1000, 10)


def test_a_fresh_sglang_has_no_traffic() -> None:
    """Metrics that are named and have no samples yet say that nothing has happened, not that nothing is known."""
    fresh = "\n".join(line for line in SGLANG.splitlines() if line.startswith("#")) + "\n"
    assert parse(fresh) == Page(0, 0, 0, None, {})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("<html><body>404</body></html>", id="html"),
        pytest.param('# TYPE up gauge\nup{job="node"} 1\n', id="another-exporter"),
        pytest.param("vllm:num_requests_running{ 7\n", id="torn"),
        pytest.param("vllm:num_requests_running NaN\n", id="nan"),
        pytest.param(
            VLLM.replace('le="0.25",model_name="m"} 8.0', 'le="0.25",model_name="m"} 1.0'), id="not-cumulative"
        ),
        pytest.param(VLLM.replace('le="+Inf"', 'le="9.0"'), id="no-last-bucket"),
    ],
)
def test_nonsense_is_garbled(text: str) -> None:
    """What is not a page of an inference server is refused as garbled, never read as no load."""
    with pytest.raises(Garbled):
        parse(text)


@pytest.mark.parametrize(
    ("make", "edges_s"),
    [
        pytest.param(lambda r: 0.03 * r.lognormvariate(0.0, 0.05), VLLM_ITL, id="steps-within-one-bucket"),
        pytest.param(lambda r: 0.03 * r.lognormvariate(0.0, 0.2), VLLM_ITL, id="steps"),
        pytest.param(
            lambda r: 0.025 + (0.06 * r.random() if r.random() < 0.2 else 0.0), VLLM_ITL, id="prefills-between"
        ),
        pytest.param(lambda r: 0.1 + r.expovariate(5.0), VLLM_TTFT, id="first-token-exponential"),
        pytest.param(lambda r: 0.3 * r.lognormvariate(0.0, 0.8), VLLM_TTFT, id="first-token-wide"),
        pytest.param(lambda r: r.gammavariate(4.0, 0.1), SGLANG_TTFT, id="first-token-sglang"),
        pytest.param(lambda r: r.expovariate(2.0) if r.random() < 0.2 else 0.001, VLLM_QUEUE, id="queue"),
    ],
)
def test_percentiles_are_near_the_truth(make: Callable[[random.Random], float], edges_s: tuple[float, ...]) -> None:
    """Within 15 % of the exact percentile, through the buckets that the servers really have."""
    chance = random.Random(3)
    values = sorted(make(chance) for _ in range(4000))
    assert p95_s(histogram(values, edges_s)) == pytest.approx(values[int(0.95 * len(values))], rel=0.15)


def test_a_queue_that_never_forms_is_not_taken_for_a_long_one() -> None:
    """Waits far below the first edge (0.3 s in vLLM) are told as such: the mean says so."""
    assert (p95_s(histogram([0.0005] * 200, VLLM_QUEUE)) or 9.0) < 0.01


@settings(deadline=None)
@given(
    st.lists(st.floats(0.0, 100.0), min_size=1, max_size=60),
    st.lists(st.floats(0.001, 50.0), min_size=1, max_size=12, unique=True),
)
def test_a_percentile_stays_in_its_bucket(values: list[float], edges: list[float]) -> None:
    """Whatever is guessed within a bucket, the percentile lies in the one where the count passes 95 %."""
    edges_s = tuple(sorted(edges))
    guess_s = p95_s(histogram(values, edges_s))
    exact_s = sorted(values)[math.ceil(0.95 * len(values)) - 1]
    top_s = next((edge_s for edge_s in edges_s if exact_s <= edge_s), math.inf)
    bottom_s = max((edge_s for edge_s in edges_s if edge_s < exact_s), default=0.0)
    assert guess_s is not None
    assert bottom_s <= guess_s <= top_s
    assert math.isinf(guess_s) == math.isinf(top_s)


def test_no_traffic_is_no_statement() -> None:
    """Without observations there is no percentile: None, and never 0."""
    page = parse(VLLM)
    assert p95_s(change(page, page).histograms[Latency.TTFT]) is None
    assert p95_s(None) is None


def page_of(values: list[float], tokens: int) -> Page:
    """Return a page with so many tokens and these times to the first one."""
    return Page(0, 0, tokens, None, {Latency.TTFT: histogram(values, VLLM_TTFT)})


def test_only_what_is_new_counts() -> None:
    """Old slow requests do not speak for the present."""
    old, new = [30.0] * 50, [0.2] * 20
    what = change(page_of(old, 500), page_of(old + new, 700))
    assert what.tokens == 200
    assert (p95_s(what.histograms[Latency.TTFT]) or 9.0) < 0.26


def test_a_restart_begins_anew() -> None:
    """Counters that went back say: all that is counted now is new."""
    what = change(page_of([30.0] * 50, 500), page_of([0.2] * 20, 40))
    assert (what.tokens, what.histograms[Latency.TTFT].total) == (40, 20)
    longer = change(page_of([0.2] * 20, 40), page_of([30.0] * 20, 50))
    assert longer.histograms[Latency.TTFT].total == 20, "as many as before, but slower ones: a restart too"


def test_a_histogram_that_appears_is_new() -> None:
    """SGLang shows a histogram from its first observation on: that one counts."""
    assert change(Page(0, 0, 0, None, {}), page_of([0.2], 3)).histograms[Latency.TTFT].total == 1


def test_replicas_are_summed() -> None:
    """The percentile of a service is that of all its requests, not the mean of its replicas."""
    fast, slow = page_of([0.2] * 90, 0), page_of([4.0] * 10, 0)
    both = together([Change(1, fast.histograms), Change(2, slow.histograms)])
    assert both.tokens == 3
    assert 2.5 <= (p95_s(both.histograms[Latency.TTFT]) or 0.0) <= 5.0


@settings(deadline=None)
@given(
    st.lists(st.floats(0.01, 20.0), min_size=1, max_size=40), st.lists(st.floats(0.01, 20.0), min_size=1, max_size=40)
)
def test_versions_with_other_edges_are_never_taken_for_faster(ours: list[float], theirs: list[float]) -> None:
    """In the middle of a roll-out replicas count in different buckets: the sum knows no more than each of them."""
    both = together(
        [
            Change(0, {Latency.TTFT: histogram(ours, VLLM_TTFT)}),
            Change(0, {Latency.TTFT: histogram(theirs, SGLANG_TTFT)}),
        ]
    ).histograms[Latency.TTFT]
    exact = [sum(value <= edge_s for value in ours + theirs) for edge_s in both.edges_s]
    assert all(count <= truth for count, truth in zip(both.counts, exact, strict=True))
    assert both.total == len(ours) + len(theirs)

"""A fleet of inference servers in virtual time: continuous batching, and /metrics as vLLM or SGLang write them.

One replica is a 70-billion-parameter model on four H100: its time per step and its power follow the measured batch sizes of the
ML.ENERGY leaderboard v3 (8 / 64 / 256 / 1024 requests: 17 / 22 / 40 / 106 ms, 1765 / 2002 / 2354 / 2548 W). Assumed: 10 000 prompt tokens/s,
512 of them in a step, 70 W for an idle GPU. Request sizes are those of a production trace.
"""

from __future__ import annotations

import csv
import heapq
import math
import random
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

STEP_S, REQUEST_STEP_S, PROMPT_TOKEN_S = 0.0164, 0.00009, 0.0001
PROMPT_TOKENS_A_STEP, MOST_RUNNING, CACHE_TOKENS = 512, 256, 450_000
MINUTE_S = 60.0
IDLE_W = 280.0
POWER_W = ((0, IDLE_W), (8, 1765.0), (64, 2002.0), (256, 2354.0), (1024, 2548.0))

VLLM_TTFT = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
    640.0, 2560.0,
)  # fmt: skip
VLLM_ITL = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
VLLM_QUEUE = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0,
    7680.0,
)  # fmt: skip
SGLANG_TTFT = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0)
SGLANG_ITL = (
    0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0,
    2.0, 4.0, 6.0, 8.0,
)  # fmt: skip
SGLANG_QUEUE = (0.0, 0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0)


@dataclass(slots=True)
class Counts:
    """A histogram that counts."""

    edges_s: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    sum_s: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.edges_s) + 1)

    def observe(self, value_s: float, weight: int = 1) -> None:
        """Count an observation, or ``weight`` equal ones."""
        low, high = 0, len(self.edges_s)
        while low < high:
            middle = (low + high) // 2
            if value_s <= self.edges_s[middle]:
                high = middle
            else:
                low = middle + 1
        self.counts[low] += weight
        self.sum_s += value_s * weight

    def lines(self, name: str, labels: str) -> list[str]:
        """Return the text of this histogram."""
        found, sofar = [f"# HELP {name} Histogram.", f"# TYPE {name} histogram"], 0
        for edge_s, count in zip((*self.edges_s, math.inf), self.counts, strict=True):
            sofar += count
            edge = "+Inf" if math.isinf(edge_s) else f"{edge_s}"
            found.append(f'{name}_bucket{{{labels},le="{edge}"}} {float(sofar)}')
        return [*found, f"{name}_count{{{labels}}} {float(sofar)}", f"{name}_sum{{{labels}}} {self.sum_s}"]


@dataclass(slots=True)
class Request:
    """One request on its way."""

    arrived_s: float
    prompt: int
    output: int
    left: int = 0
    """Prompt tokens that are not computed yet."""
    queued_s: float = 0.0


class Replica:
    """One server: a queue, a batch, and its counters."""

    def __init__(self, name: str, born_s: float, flavour: str) -> None:
        self.name, self.flavour, self.now_s, self.ready_s = name, flavour, born_s, born_s
        is_vllm = flavour == "vllm"
        self.ttft = Counts(VLLM_TTFT if is_vllm else SGLANG_TTFT)
        self.itl = Counts(VLLM_ITL if is_vllm else SGLANG_ITL)
        self.queue = Counts(VLLM_QUEUE if is_vllm else SGLANG_QUEUE)
        self.tokens = self.prompt_tokens = self.context = 0
        self.energy_ws = 0.0
        self._waiting: deque[Request] = deque()
        self._prefill: deque[Request] = deque()
        self._running: list[tuple[int, int, Request]] = []
        self._step = self._serial = 0

    @property
    def in_flight(self) -> int:
        """Return how many requests it has."""
        return len(self._waiting) + len(self._prefill) + len(self._running)

    def take(self, request: Request) -> None:
        """Queue a request."""
        if not self.in_flight:
            self._idle(request.arrived_s)
        self._waiting.append(request)

    def run(self, until_s: float, note: Callable[[str, float, float, int], None]) -> None:
        """Serve until then; ``note`` hears of each latency: (kind, when, value, how many)."""
        while self.in_flight and self.now_s < until_s:
            self._one_step(note)
        self._idle(until_s)

    def _idle(self, until_s: float) -> None:
        if not self.in_flight and until_s > self.now_s:
            self.energy_ws += IDLE_W * (until_s - self.now_s)
            self.now_s = until_s

    def _one_step(self, note: Callable[[str, float, float, int], None]) -> None:
        while self._waiting and len(self._prefill) + len(self._running) < MOST_RUNNING and self.context < CACHE_TOKENS:
            request = self._waiting.popleft()
            request.left, request.queued_s = request.prompt, max(0.0, self.now_s - request.arrived_s)
            self.context += request.prompt
            self._prefill.append(request)
            if self.flavour == "sglang":
                self.queue.observe(request.queued_s)
        begun, computed = self._computed()
        batch = len(self._running)
        step_s = STEP_S + REQUEST_STEP_S * batch + PROMPT_TOKEN_S * computed
        self.energy_ws += power_w(batch + len(begun)) * step_s
        self.now_s += step_s
        self._step += 1
        self.tokens += batch + len(begun)
        self.context += batch
        if batch:
            self.itl.observe(step_s, batch)
            note("itl", self.now_s, step_s, batch)
        self._finish()
        for request in begun:
            self._begin(request, note)

    def _computed(self) -> tuple[list[Request], int]:
        """Compute a step's share of prompts; return who gets his first token, and the prompt tokens computed."""
        room, begun = PROMPT_TOKENS_A_STEP, []
        while self._prefill and room:
            request = self._prefill[0]
            part = min(room, request.left)
            request.left -= part
            room -= part
            if not request.left:
                begun.append(self._prefill.popleft())
        self.prompt_tokens += PROMPT_TOKENS_A_STEP - room
        return begun, PROMPT_TOKENS_A_STEP - room

    def _begin(self, request: Request, note: Callable[[str, float, float, int], None]) -> None:
        ttft_s = self.now_s - request.arrived_s
        self.ttft.observe(ttft_s)
        note("ttft", self.now_s, ttft_s, 1)
        self._serial += 1
        heapq.heappush(self._running, (self._step + request.output - 1, self._serial, request))
        self._finish()

    def _finish(self) -> None:
        while self._running and self._running[0][0] <= self._step:
            request = heapq.heappop(self._running)[2]
            self.context -= request.prompt + request.output - 1
            if self.flavour == "vllm":
                self.queue.observe(request.queued_s)

    def metrics(self) -> str:
        """Return its page."""
        return _vllm_page(self) if self.flavour == "vllm" else _sglang_page(self)

    @property
    def running(self) -> int:
        """Return how many requests it works on."""
        return len(self._prefill) + len(self._running)

    @property
    def waiting(self) -> int:
        """Return how many requests wait for their turn."""
        return len(self._waiting)


def power_w(batch: int) -> float:
    """Return what a replica draws with so many requests, straight between the logarithms of what was measured. [W]"""
    for (few, few_w), (many, many_w) in pairwise(POWER_W):
        if batch <= many:
            part = math.log2(1 + batch - few) / math.log2(1 + many - few)
            return few_w + (many_w - few_w) * part
    return POWER_W[-1][1]


def _single(name: str, kind: str, value: float, labels: str) -> list[str]:
    return [f"# HELP {name} Text.", f"# TYPE {name} {kind}", f"{name}{{{labels}}} {value}"]


def _vllm_page(replica: Replica) -> str:
    labels = 'engine="0",model_name="meta-llama/Llama-3.1-70B-Instruct"'
    lines = [
        *_single("python_info", "gauge", 1.0, 'implementation="CPython"'),
        *_single("vllm:num_requests_running", "gauge", float(replica.running), labels),
        *_single("vllm:num_requests_waiting", "gauge", float(replica.waiting), labels),
        *_single("vllm:kv_cache_usage_perc", "gauge", replica.context / CACHE_TOKENS, labels),
        *_single("vllm:gpu_cache_usage_perc", "gauge", replica.context / CACHE_TOKENS, labels),
        *_single("vllm:prompt_tokens_total", "counter", float(replica.prompt_tokens), labels),
        *_single("vllm:generation_tokens_total", "counter", float(replica.tokens), labels),
        *replica.ttft.lines("vllm:time_to_first_token_seconds", labels),
        *replica.itl.lines("vllm:time_per_output_token_seconds", labels),
        *replica.itl.lines("vllm:inter_token_latency_seconds", labels),
        *replica.queue.lines("vllm:request_queue_time_seconds", labels),
    ]
    return "\n".join(lines) + "\n"


def _sglang_page(replica: Replica) -> str:
    """Return SGLang's page: what it has not counted yet is named, and has no samples."""
    labels = 'engine_type="unified",model_name="meta-llama/Llama-3.1-70B-Instruct",pp_rank="0",tp_rank="0"'
    began = bool(replica.prompt_tokens)
    lines = [
        *_single("sglang:num_running_reqs", "gauge", float(replica.running), labels),
        *_single("sglang:num_queue_reqs", "gauge", float(replica.waiting), labels),
        *_single("sglang:token_usage", "gauge", replica.context / CACHE_TOKENS, labels),
        *_single("sglang:prompt_tokens_total", "counter", float(replica.prompt_tokens), labels),
        *_single("sglang:generation_tokens_total", "counter", float(replica.tokens), labels),
        *replica.ttft.lines("sglang:time_to_first_token_seconds", labels),
        *replica.itl.lines("sglang:inter_token_latency_seconds", labels),
        *replica.queue.lines("sglang:queue_time_seconds", labels),
    ]
    return "\n".join(line for line in lines if began or line.startswith("#")) + "\n"


def trace_sizes(path: Path, most: int = 4_000) -> list[tuple[int, int]]:
    """Return (prompt, output) tokens of a trace's requests."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(file)]
    return [(max(1, prompt), max(1, output)) for prompt, output in rows[:most]]


class Fleet:
    """Replicas behind a balancer, Poisson arrivals, replicas that come late and go when they are done."""

    def __init__(
        self,
        replicas: int,
        sizes: Sequence[tuple[int, int]],
        rate_per_s: Callable[[float], float],
        *,
        flavour: str = "vllm",
        start_s: float = 45.0,
        seed: int = 1,
    ) -> None:
        self.now_s, self.asked = 0.0, replicas
        self._felt: defaultdict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
        self.gone_ws = 0.0
        self._sizes, self._rate_per_s, self._flavour, self._start_s = sizes, rate_per_s, flavour, start_s
        self._random = random.Random(seed)
        self._serial = 0
        self.replicas: list[Replica] = []
        self._leaving: list[Replica] = []
        self._next_s = 0.0
        for _ in range(replicas):
            self._add(0.0)

    @property
    def ready(self) -> list[Replica]:
        """Return who serves."""
        return [replica for replica in self.replicas if replica.ready_s <= self.now_s]

    @property
    def energy_ws(self) -> float:
        """Return what all have used, the GPUs of those that went idling on. [W s]"""
        return self.gone_ws + sum(replica.energy_ws for replica in (*self.replicas, *self._leaving))

    def scale(self, replicas: int) -> None:
        """Ask for so many replicas: new ones serve after their start, those that go finish what they have."""
        self.asked = replicas
        while len(self.replicas) < replicas:
            self._add(self._start_s)
        while len(self.replicas) > replicas:
            self._leaving.append(self.replicas.pop())

    def run(self, until_s: float) -> None:
        """Serve until then."""
        while self._next_s <= until_s:
            self._arrive(self._next_s)
            rate_per_s = max(self._rate_per_s(self._next_s), 1e-6)
            self._next_s += self._random.expovariate(rate_per_s)
        for replica in (*self.replicas, *self._leaving):
            replica.run(until_s, self._note)
        for replica in [one for one in self._leaving if not one.in_flight]:
            self._leaving.remove(replica)
            self.gone_ws += replica.energy_ws
        self.now_s = until_s

    def _add(self, start_s: float) -> None:
        replica = Replica(f"r{self._serial}", self.now_s, self._flavour)
        replica.ready_s = self.now_s + start_s
        self._serial += 1
        self.replicas.append(replica)

    def _arrive(self, at_s: float) -> None:
        """Hand a request to the less busy one of two replicas."""
        ready = [replica for replica in self.replicas if replica.ready_s <= at_s] or self.replicas
        prompt, output = self._random.choice(self._sizes)
        pair = self._random.sample(ready, min(2, len(ready)))
        for replica in pair:
            replica.run(at_s, self._note)
        min(pair, key=lambda replica: replica.in_flight).take(Request(at_s, prompt, output))

    def _note(self, kind: str, at_s: float, value_s: float, weight: int) -> None:
        self._felt[kind, int(at_s // MINUTE_S)].append((value_s, weight))

    def true_p95_s(self, kind: str, minute: int) -> float:
        """Return the exact percentile of what users felt in a minute, 0 when there was nothing. [s]"""
        values = sorted(self._felt[kind, minute])
        left = 0.95 * sum(weight for _, weight in values)
        for value_s, weight in values:
            left -= weight
            if left <= 0.0:
                return value_s
        return 0.0

"""``[assets.connection.inference.NAME]``: how the replicas of one inference service are watched, and how slow they may get."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]

ADDRESS = "{address}"
SCHEMES = ("http://", "https://")


class InferenceConfig(BaseModel):
    """Where the replicas tell their latencies, the bounds of the service's tier, and how fast replicas may go."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metrics_url: str = ""
    """Template with ``{address}`` in the place of a ready pod's address: http://{address}:8000/metrics."""
    metrics_urls: tuple[str, ...] = ()
    """Or one address per replica, in the order of their ordinals: the last goes first."""

    ttft_p95_s: Positive | None = None
    """Bound of the time to the first token, 95th percentile; as the other two best on an edge of the server's buckets."""
    itl_p95_s: Positive | None = None
    """Bound of the time between two tokens."""
    queue_p95_s: Positive | None = None
    """Bound of the time a request waits before it runs."""

    fewest: Count = 1
    """Never fewer replicas than this, idle or not."""
    most_running: Count | None = None
    """Requests that one replica runs at a time (max_num_seqs, max_running_requests); without it only a queue shows that it is full."""
    headroom_frac: NonNegative = 0.2
    """The replicas that stay could carry so much more than the load now."""
    backoff_frac: Share = 0.8
    """Replicas come back when a latency passes this part of its bound."""
    drop_at_most: Count = 1
    """Replicas that go at a time, into a load per replica that has not been seen yet."""
    settle_s: Positive = 60.0
    """Rest after replicas have come or gone."""
    start_s: NonNegative = 60.0
    """A replica that is asked for answers its first request after this time: so far ahead the load is looked at."""
    window_s: Positive = 60.0
    """Latencies and load are those of the last so many seconds."""
    memory_s: Positive = 300.0
    """The greatest load of so long a time has to be carried."""
    forget_s: Positive = 3600.0
    """What was learnt about a load is forgotten when that load has not been seen for so long."""
    period_s: Positive = 5.0
    """Pace of looking."""
    timeout_s: Positive = 2.0
    """Wait for the metrics of one replica."""
    stale_s: Positive = 30.0
    """Without sight for longer than this, all replicas come back."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.metrics_url) == bool(self.metrics_urls):
            raise ValueError("give either metrics_url, a template, or metrics_urls, a list")
        if self.metrics_url and ADDRESS not in self.metrics_url:
            raise ValueError(f"metrics_url needs {ADDRESS}, as in http://{ADDRESS}:8000/metrics")
        if not all(url.startswith(SCHEMES) for url in (self.metrics_url, *self.metrics_urls) if url):
            raise ValueError("metrics are read by http:// or https://")
        if self.ttft_p95_s is None and self.itl_p95_s is None and self.queue_p95_s is None:
            raise ValueError("give at least one bound: ttft_p95_s, itl_p95_s or queue_p95_s")
        if self.window_s < 2.0 * self.period_s:
            raise ValueError("window_s must be at least twice period_s")
        if self.stale_s < self.period_s + self.timeout_s:
            raise ValueError("stale_s must be at least period_s + timeout_s")
        return self

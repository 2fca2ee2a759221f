"""What Prometheus would read, by metric and labels."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Scrape = Mapping[tuple[str, ...], float]
"""Value by metric name and the values of its labels, in the order of the label names."""


def scrape(text: str) -> dict[tuple[str, ...], float]:
    """Return every sample of a page of metrics."""
    families = text_string_to_metric_families(text)
    return {(s.name, *(s.labels[k] for k in sorted(s.labels))): s.value for f in families for s in f.samples}


def names(text: str) -> set[str]:
    """Return the names of all samples, and of metrics that have none at present."""
    families = list(text_string_to_metric_families(text))
    told = {s.name for family in families for s in family.samples}
    return told | {f.name + ("_total" if f.type == "counter" else "") for f in families}

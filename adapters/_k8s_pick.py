"""Which pods belong to which object. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from adapters._k8s_kinds import QUEUE_LABEL, Thing, Way, at
from adapters._k8s_power import Pod


class Picker:
    """Finds pods by their labels."""

    def __init__(self, pods: Iterable[Pod]) -> None:
        self._by_label: dict[tuple[str, str, str], list[Pod]] = defaultdict(list)
        for pod in pods:
            for label, value in pod.labels.items():
                self._by_label[pod.namespace, label, value].append(pod)

    def pods(self, thing: Thing) -> tuple[Pod, ...]:
        """Return the running pods of an object."""
        if thing.kind.way is Way.QUEUE:
            return ()
        selector = _selector(thing)
        wanted = dict(selector.get("matchLabels") or {})
        if not wanted:
            return ()
        first = next(iter(wanted.items()))
        found = self._by_label.get((thing.namespace, *first), ())
        rules = selector.get("matchExpressions") or ()
        return tuple(
            pod
            for pod in found
            if all(pod.labels.get(k) == v for k, v in wanted.items()) and all(_matches(pod.labels, r) for r in rules)
        )


def same_queue(queue: Thing, thing: Thing, where: Thing | None) -> bool:
    """Say whether an opted-in queue decides about an object, which then gives nothing of its own."""
    if thing.kind.way is Way.QUEUE:
        return queue.kind.name == "ClusterQueue" and at(thing.body, "/spec/clusterQueue") == queue.name
    if QUEUE_LABEL not in thing.labels:
        return False
    if queue.kind.name == "LocalQueue":
        return queue.namespace == thing.namespace and thing.labels[QUEUE_LABEL] == queue.name
    return where is not None and at(where.body, "/status/admission/clusterQueue") == queue.name


def _selector(thing: Thing) -> Mapping[str, Any]:
    if not thing.kind.pod_label:
        found: Mapping[str, Any] = at(thing.body, "/spec/selector") or {}
        return found
    name = at(thing.body, "/status/rayClusterName") if thing.kind.name == "RayJob" else thing.name
    return {"matchLabels": {thing.kind.pod_label: name}} if name else {}


def _matches(labels: Mapping[str, str], rule: Mapping[str, Any]) -> bool:
    key, values = rule["key"], rule.get("values") or ()
    match rule["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels

"""Autoscalers of a service: which of them scale it, how low they may go, and how one is kept down. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from adapters._k8s_held import held
from adapters._k8s_kinds import PAUSED_REPLICAS, Fields, Thing, at

HPA, KEDA = "HorizontalPodAutoscaler", "ScaledObject"


def is_scaler(thing: Thing) -> bool:
    """Say whether it scales others."""
    return thing.kind.name in (HPA, KEDA)


def scalers_of(thing: Thing, scalers: Iterable[Thing]) -> tuple[Thing, ...]:
    """Return what scales a thing; not what KEDA made for itself."""
    found = [scaler for scaler in scalers if _scales(scaler, thing)]
    keda = {scaler.uid for scaler in found if scaler.kind.name == KEDA}
    return tuple(scaler for scaler in found if not scaler.owners & keda)


def _scales(scaler: Thing, thing: Thing) -> bool:
    ref = at(scaler.body, "/spec/scaleTargetRef") or {}
    same = scaler.namespace == thing.namespace and ref.get("name") == thing.name
    return same and (ref.get("kind") or "Deployment") == thing.kind.name


def least_of(scaler: Thing) -> int:
    """Return the autoscaler's own floor: what it was before we touched it."""
    note = held(scaler)
    pointer = "/spec/minReplicas" if scaler.kind.name == HPA else "/spec/minReplicaCount"
    value = note.was.get(pointer, at(scaler.body, pointer)) if note else at(scaler.body, pointer)
    return int(value if value is not None else (1 if scaler.kind.name == HPA else 0))


def ceiling(scaler: Thing, count: int) -> Fields:
    """Return what keeps an autoscaler from scaling above ``count``."""
    if scaler.kind.name == KEDA:
        return {PAUSED_REPLICAS: str(count)}
    most = max(count, 1)
    least = least_of(scaler)
    return {"/spec/maxReplicas": most} | ({"/spec/minReplicas": most} if least > most else {})

"""The rights in deploy/kubernetes/rbac.yaml: enough for the adapter, and nothing else."""

from __future__ import annotations

import httpx
import pytest

from tests.kubernetes.room import APPS, BATCH, CORE, Room
from tests.servers.kubernetes import VPPD

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
CHANGED = {
    "apps": ("deployments", "statefulsets"),
    "autoscaling": ("horizontalpodautoscalers",),
    "batch": ("jobs",),
    "ray.io": ("rayclusters", "rayjobs"),
    "kubeflow.org": ("pytorchjobs", "tfjobs", "mpijobs"),
    "jobset.x-k8s.io": ("jobsets",),
    "kueue.x-k8s.io": ("workloads", "localqueues", "clusterqueues"),
    "keda.sh": ("scaledobjects",),
}
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "*")


def allowed(room: Room, group: str, resource: str, verb: str, subresource: str = "") -> bool:
    """Ask the server whether vppd may."""
    what = {"namespace": room.name, "group": group, "resource": resource, "verb": verb, "subresource": subresource}
    answer = room.server.call("POST", REVIEW, {"spec": {"resourceAttributes": what}}, token=VPPD)
    return bool(answer.json()["status"]["allowed"])


def test_vppd_may_do_what_it_does_and_no_more(room: Room) -> None:
    """Get, list and patch on what it holds; list and watch pods; list nodes; no other verb on any of them."""
    for group, resources in CHANGED.items():
        for resource in resources:
            may = [verb for verb in VERBS if allowed(room, group, resource, verb)]
            assert may == ["get", "list", "patch"], f"{resource}.{group}"
    assert [verb for verb in VERBS if allowed(room, "", "pods", verb)] == ["list", "watch"]
    assert [verb for verb in VERBS if allowed(room, "", "nodes", verb)] == ["list"]


@pytest.mark.parametrize(
    ("group", "resource", "subresource"),
    [
        ("", "secrets", ""), ("", "configmaps", ""), ("", "serviceaccounts", ""), ("", "namespaces", ""), ("", "services", ""),
        ("", "pods", "exec"), ("", "pods", "log"), ("", "pods", "eviction"), ("", "serviceaccounts", "token"),
        ("apps", "daemonsets", ""), ("apps", "replicasets", ""), ("apps", "deployments", "scale"), ("batch", "cronjobs", ""),
        ("rbac.authorization.k8s.io", "clusterroles", ""), ("rbac.authorization.k8s.io", "rolebindings", ""),
        ("apiextensions.k8s.io", "customresourcedefinitions", ""), ("*", "*", ""),
    ],
)  # fmt: skip
def test_everything_else_is_denied(room: Room, group: str, resource: str, subresource: str) -> None:
    """No verb at all on what vppd has no business with."""
    assert [v for v in (*VERBS, "impersonate") if allowed(room, group, resource, v, subresource)] == []


def test_calls_that_are_denied_are_403(room: Room) -> None:
    """The same by real calls."""
    chat = room.deployment("chat", 3, 1)
    job = {"metadata": {"name": "x"}, "spec": {"template": {"spec": {"containers": [], "restartPolicy": "Never"}}}}
    for method, path, body in (
        ("DELETE", chat, None),
        ("DELETE", room.path(CORE, "pods"), None),
        ("POST", room.path(CORE, "pods"), {"metadata": {"name": "x"}, "spec": {"containers": []}}),
        ("POST", room.path(BATCH, "jobs"), job),
        ("PUT", chat, room.server.get(chat)),
        ("GET", room.path(CORE, "secrets"), None),
        ("GET", "/api/v1/secrets", None),
        ("PATCH", "/api/v1/nodes/node1", {"spec": {"unschedulable": True}}),
    ):
        answer = room.server.call(method, path, body, token=VPPD)
        assert answer.status_code == httpx.codes.FORBIDDEN, f"{method} {path}"
    assert room.server.call("GET", room.path(APPS, "deployments"), token=VPPD).is_success
    assert room.server.call("GET", room.path(APPS, "deployments"), token="nobody-token").status_code == 403

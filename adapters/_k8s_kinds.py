"""The kinds of objects that can be slowed or paused, by which fields, and how their pods are found. Data, and what reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vppd.errors import Garbled

Body = Mapping[str, Any]
Fields = Mapping[str, Any]
"""JSON pointer -> value."""


class Way(StrEnum):
    """What can be done with a kind."""

    REPLICAS = "replicas"
    PAUSE = "pause"
    QUEUE = "queue"
    """Pausing it drains all the work it has admitted."""
    COMPANION = "companion"
    """Touched along with the workload it belongs to, never for itself."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object."""

    name: str
    group: str
    plural: str
    versions: tuple[str, ...]
    """Best first."""
    way: Way
    stops: tuple[Fields, ...] = ()
    """What pauses it; the next one where a server does not know the field."""
    pod_label: str = ""
    """Label of its pods that holds its name; empty: by ``spec.selector``."""
    namespaced: bool = True


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as this server has it."""

    kind: Kind
    version: str

    def path(self, namespace: str = "", name: str = "") -> str:
        """Return the path of one object, of all in a namespace, or of all."""
        inside = f"/namespaces/{namespace}" if namespace and self.kind.namespaced else ""
        return f"/apis/{self.kind.group}/{self.version}{inside}/{self.kind.plural}" + (f"/{name}" if name else "")


@dataclass(frozen=True, slots=True)
class Thing:
    """One object as the server gave it."""

    resource: Resource
    body: Body

    @property
    def kind(self) -> Kind:
        """Return what it is."""
        return self.resource.kind

    @property
    def namespace(self) -> str:
        """Return its namespace, empty when it has none."""
        return str(self.body["metadata"].get("namespace", ""))

    @property
    def name(self) -> str:
        """Return its name."""
        return str(self.body["metadata"]["name"])

    @property
    def uid(self) -> str:
        """Return the id that no other object ever has."""
        return str(self.body["metadata"]["uid"])

    @property
    def key(self) -> str:
        """Return a name for people that is unique in the cluster."""
        return f"{self.kind.name}/{self.namespace}/{self.name}" if self.namespace else f"{self.kind.name}/{self.name}"

    @property
    def path(self) -> str:
        """Return where it is patched."""
        return self.resource.path(self.namespace, self.name)

    @property
    def owners(self) -> frozenset[str]:
        """Return the uids of its owners."""
        return frozenset(str(owner["uid"]) for owner in self.body["metadata"].get("ownerReferences") or ())

    @property
    def labels(self) -> Mapping[str, str]:
        """Return its labels."""
        return self.body["metadata"].get("labels") or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        """Return its annotations."""
        return self.body["metadata"].get("annotations") or {}


SUSPEND: Fields = {"/spec/suspend": True}
PAUSED_REPLICAS = "/metadata/annotations/autoscaling.keda.sh~1paused-replicas"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_POLICY: Fields = {"/spec/runPolicy/suspend": True}
_DRAIN: Fields = {"/spec/stopPolicy": "HoldAndDrain"}
_TRAINING = "training.kubeflow.org/job-name"
_JOB_SET = "jobset.sigs.k8s.io/jobset-name"
_KUEUE, _KUEUE_VERSIONS = "kueue.x-k8s.io", ("v1beta2", "v1beta1")
_RAY_VERSIONS = ("v1", "v1alpha1")


def _kubeflow(name: str, plural: str, *versions: str) -> Kind:
    return Kind(name, "kubeflow.org", plural, versions or ("v1",), Way.PAUSE, (_POLICY,), _TRAINING)


KINDS = (
    Kind("Deployment", "apps", "deployments", ("v1",), Way.REPLICAS),
    Kind("StatefulSet", "apps", "statefulsets", ("v1",), Way.REPLICAS),
    # Servers before 1.21 drop spec.suspend without a word.
    Kind("Job", "batch", "jobs", ("v1",), Way.PAUSE, (SUSPEND, {"/spec/parallelism": 0})),
    Kind("JobSet", "jobset.x-k8s.io", "jobsets", ("v1", "v1alpha2"), Way.PAUSE, (SUSPEND,), _JOB_SET),
    Kind("RayCluster", "ray.io", "rayclusters", _RAY_VERSIONS, Way.PAUSE, (SUSPEND,), "ray.io/cluster"),
    Kind("RayJob", "ray.io", "rayjobs", _RAY_VERSIONS, Way.PAUSE, (SUSPEND,), "ray.io/cluster"),
    _kubeflow("PyTorchJob", "pytorchjobs"),
    _kubeflow("TFJob", "tfjobs"),
    _kubeflow("XGBoostJob", "xgboostjobs"),
    _kubeflow("PaddleJob", "paddlejobs"),
    _kubeflow("JAXJob", "jaxjobs"),
    _kubeflow("MPIJob", "mpijobs", "v2beta1", "v1"),
    Kind("TrainJob", "trainer.kubeflow.org", "trainjobs", ("v1", "v1alpha1"), Way.PAUSE, (SUSPEND,), _JOB_SET),
    Kind("LocalQueue", _KUEUE, "localqueues", _KUEUE_VERSIONS, Way.QUEUE, (_DRAIN,)),
    Kind("ClusterQueue", _KUEUE, "clusterqueues", _KUEUE_VERSIONS, Way.QUEUE, (_DRAIN,), namespaced=False),
    Kind("Workload", _KUEUE, "workloads", _KUEUE_VERSIONS, Way.COMPANION, ({"/spec/active": False},)),
    Kind("HorizontalPodAutoscaler", "autoscaling", "horizontalpodautoscalers", ("v1",), Way.COMPANION),
    Kind("ScaledObject", "keda.sh", "scaledobjects", ("v1alpha1",), Way.COMPANION),
)
BY_NAME = {kind.name: kind for kind in KINDS}


def at(body: Body, pointer: str) -> Any:
    """Return the value at a JSON pointer, None where there is none."""
    value: Any = body
    for part in pointer.split("/")[1:]:
        if not isinstance(value, Mapping):
            return None
        value = value.get(part.replace("~1", "/").replace("~0", "~"))
    return value


def merged(fields: Fields) -> dict[str, Any]:
    """Return a JSON merge patch that sets these fields; None takes a field away."""
    patch: dict[str, Any] = {}
    for pointer, value in fields.items():
        *folders, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
        place = patch
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = value
    return patch


def found_groups(answer: Body) -> dict[str, tuple[str, ...]]:
    """Return the versions by group that ``/apis`` names. Raises Garbled."""
    try:
        return {str(g["name"]): tuple(str(v["version"]) for v in g["versions"]) for g in answer["groups"]}
    except (KeyError, TypeError) as error:
        raise Garbled(f"the server's list of API groups makes no sense: {error}") from error

"""Kinds of objects that the operator reads or writes, with their paths, so that nothing has to be discovered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from thinkimg.api import API_VERSION, GROUP

Body = dict[str, Any]
"""An object as the API has it, in JSON."""
KUEUE_PREFIX = "kueue.x-k8s.io/"
"""Of the labels by which Kueue takes work into its queues."""


class Key(NamedTuple):
    """What identifies an object, and a unit of work: `Key("VisionTool", "team-a", "ocr")`."""

    kind: str
    """One of `KINDS`."""
    namespace: str
    """Empty for cluster-wide objects."""
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Kind:
    """A kind and where the API serves it."""

    name: str
    """As in `kind:`."""
    api_version: str
    """As in `apiVersion:`: `v1`, `apps/v1`."""
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Path of the collection or of one object. `namespace` None: of all namespaces."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        scope = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        return "/".join(part for part in (f"{root}{scope}/{self.plural}", name, subresource) if part)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("VisionTool", API_VERSION, "visiontools"),
        Kind("ToolRLJob", API_VERSION, "toolrljobs"),
        Kind("Deployment", "apps/v1", "deployments"),
        Kind("Job", "batch/v1", "jobs"),
        Kind("Pod", "v1", "pods"),
        Kind("Service", "v1", "services"),
        Kind("ConfigMap", "v1", "configmaps"),
        Kind("PersistentVolumeClaim", "v1", "persistentvolumeclaims"),
        Kind("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets"),
        Kind("HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers"),
        Kind("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies"),
        Kind("ServiceMonitor", "monitoring.coreos.com/v1", "servicemonitors"),
        Kind("Event", "events.k8s.io/v1", "events"),
        Kind("Lease", "coordination.k8s.io/v1", "leases"),
        Kind("Node", "v1", "nodes", namespaced=False),
        Kind("CustomResourceDefinition", "apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False),
    )
}


def key_of(body: Body) -> Key:
    """The key of an object."""
    return Key(body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"])


def owner_of(body: Body) -> Key | None:
    """Key of the VisionTool or ToolRLJob that controls an object; None when neither does."""
    for reference in body["metadata"].get("ownerReferences", ()):
        known = KINDS.get(reference["kind"])
        if reference.get("controller") and known and known.api_version == reference["apiVersion"]:
            if known.group != GROUP:
                return None
            return Key(known.name, body["metadata"].get("namespace", ""), reference["name"])
    return None


def controller_of(body: Body) -> str:
    """The uid of the object's controller; empty when it has none."""
    return next((o["uid"] for o in body["metadata"].get("ownerReferences", ()) if o.get("controller")), "")

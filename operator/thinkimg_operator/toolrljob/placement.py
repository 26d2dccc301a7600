"""Where the pods of a stage run, and how: `spec.pods`, the stage's own `pods`, and the patches. Pure."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from thinkimg.api import Stage, StagePods, ToolRLJob
from thinkimg.api.pod_contract import CONTAINER, Variable

from ..strategic_merge import merge_pod_template

Body = dict[str, Any]

_HOST_PORTS = range(20_000, 30_000)
"""Where ranks on their nodes' network meet: below the ports that Linux and Kubernetes give out by themselves."""
_RESERVED_LABELS = ("kubernetes.io/", "k8s.io/", "x-k8s.io/", "thinkimg.dev/", "argoproj.io/")
"""Domains of labels that say to whom an object belongs, or who is to do what with it."""


def with_placement(template: Body, job: ToolRLJob, stage: Stage | None, attempt: int) -> Body:
    """The pod template of an attempt with all that the user said about its pods; `template` is not changed.

    Raises:
        PatchError: a `podTemplatePatch` cannot be merged.
    """
    placed = merge_pod_template(template, {"metadata": {"labels": labels_of_the_user(job)}})
    placed["metadata"]["labels"] |= template["metadata"]["labels"]
    said = _said(job, stage)
    (container,) = placed["spec"]["containers"]
    if "imagePullPolicy" in said:
        container["imagePullPolicy"] = said.pop("imagePullPolicy")
    placed["spec"]["tolerations"] += said.pop("tolerations", [])
    placed["spec"] |= said
    placed = merge_pod_template(placed, job.spec.pod_template_patch)
    if stage is not None and stage.pods.pod_template_patch:
        placed = merge_pod_template(placed, stage.pods.pod_template_patch)
    return _on_its_nodes_network(placed, job, attempt) if placed.get("spec", {}).get("hostNetwork") else placed


def has_its_own_pods(stage: Stage) -> bool:
    """Whether something of the user's may be wrong with this stage's pods that is right with others'."""
    return stage.pods != StagePods() or bool(stage.resources.claims)


def labels_of_the_user(job: ToolRLJob) -> dict[str, str]:
    """The job's own labels that its Jobs and pods have too, as in team or cost centre."""

    def reserved(label: str) -> bool:
        domain, slash, _ = label.rpartition("/")
        return f".{domain}{slash}".endswith(tuple(f".{ours}" for ours in _RESERVED_LABELS))

    return {label: value for label, value in job.metadata.labels.items() if not reserved(label)}


def _said(job: ToolRLJob, stage: Stage | None) -> Body:
    """Fields of the pod, and when its image is pulled, under Kubernetes' names: the stage's, else the job's."""
    said: Body = {}
    for pods in (job.spec.pods, stage.pods if stage is not None else None):
        for name, info in type(pods).model_fields.items() if pods is not None else ():
            value = getattr(pods, name)
            if value is not None and name not in ("image", "pod_template_patch"):
                said[info.alias or name] = value
    return said


def rendezvous_port(job: ToolRLJob, attempt: int) -> int:
    """The port of an attempt whose pods share ports with everything else on their nodes."""
    digest = sha256(f"{job.metadata.uid}/{attempt}".encode()).digest()
    return _HOST_PORTS[int.from_bytes(digest[:8]) % len(_HOST_PORTS)]


def _on_its_nodes_network(template: Body, job: ToolRLJob, attempt: int) -> Body:
    """Ranks meet at a port that the scheduler keeps free for them, and still find each other's names."""
    template["spec"].setdefault("dnsPolicy", "ClusterFirstWithHostNet")
    for container in template["spec"].get("containers") or []:
        variables = {variable["name"]: variable for variable in container.get("env") or []}
        if container["name"] == CONTAINER and Variable.MASTER_PORT in variables:
            port = rendezvous_port(job, attempt)
            variables[Variable.MASTER_PORT]["value"] = str(port)
            declared = {"name": "rendezvous", "containerPort": port, "hostPort": port, "protocol": "TCP"}
            container["ports"] = [*container.get("ports", []), declared]
    return template

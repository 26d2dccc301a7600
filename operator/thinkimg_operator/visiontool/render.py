"""Everything that a VisionTool is made of on a cluster, as a pure function of it and of the operator's settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from thinkimg.api import CUSTOM, Batching, VisionTool, VisionToolSpec
from thinkimg.api.pod_contract import USER
from thinkimg.api.server_contract import (
    CALLERS_ALLOWED,
    CONTAINER,
    HEADLESS,
    IN_FLIGHT_METRIC,
    PORT,
    Annotation,
    HttpPath,
    Label,
    Place,
    Variable,
    server_command,
)

from ..kinds import KINDS, Body
from ..network import open_egress
from ..settings import Settings
from ..strategic_merge import merge_pod_template
from .rolling import strategy_of

_HEADLESS = {Label.SERVICE: HEADLESS}
_CONFIG_FOLDER, _, _CONFIG_NAME = Place.CONFIG.rpartition("/")
_DEREGISTER_SECONDS = 5
"""From the decision to stop a server until proxies and clients have forgotten its address."""
_SELF_CONTAINED: Mapping[str, set[str | None]] = {
    "AdjustImage": {None},
    "Crop": {None},
    "DrawHorizontalLineByY": {None},
    "DrawVerticalLineByX": {None},
    "DrawLine": {None},
    "OCR": {None, "rapidocr"},
    "ZoominSubplot": {None, "layout"},
    "Point": {None, "layout"},
    "SegmentRegionAroundPoint": {None, "opencv"},
}
"""Tools with those of their backends that never connect to anything."""


def render(tool: VisionTool, settings: Settings) -> list[Body]:
    """The children of `tool`, without their owner. Same input, same output.

    Raises:
        PatchError: `podTemplatePatch` cannot be merged.
    """
    spec = tool.spec
    children = [_deployment(tool, settings), *_services(tool), _network_policy(tool)]
    if max(spec.replicas, spec.autoscaling.max_replicas if spec.autoscaling else 0) > 1:
        children.append(_disruption_budget(tool))
    if spec.autoscaling is not None:
        children.append(_autoscaler(tool))
    if settings.service_monitors:
        children.append(_service_monitor(tool, settings.service_monitor_labels))
    return children


def image_of(spec: VisionToolSpec, settings: Settings) -> str:
    """The image that the tool runs."""
    return spec.image or settings.tool_image(spec.tool, spec.backend)


def selector_of(name: str) -> str:
    """Label selector of a tool's pods."""
    return f"{Label.TOOL}={name}"


def url_of(name: str, namespace: str) -> str:
    """Address of a tool for whoever does not balance by itself."""
    return f"http://{name}.{namespace}.svc:{PORT}"


def plain_headless_name(name: str) -> str:
    """Name of the Service whose DNS record lists every ready server, where no other tool has that name."""
    return child_name(name, "pods")


def headless_name(tool: VisionTool) -> str:
    """Name of that Service: the one in the tool's status, which is there before anybody asks for it."""
    return (tool.status.servers_service if tool.status else "") or plain_headless_name(tool.name)


def yielded_headless_name(tool: VisionTool) -> str:
    """Its name where a tool `NAME-pods` needs the plain one for all its callers."""
    return child_name(tool.name, f"pods-{(tool.metadata.uid or '')[:5]}")


def child_name(name: str, suffix: str) -> str:
    """`name-suffix`, shortened so that it is a DNS label and still belongs to one name only."""
    full = f"{name}-{suffix}"
    if len(full) <= 63:
        return full
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: 63 - len(suffix) - len(digest) - 2].rstrip('-')}-{digest}-{suffix}"


def server_config(spec: VisionToolSpec) -> dict[str, Any]:
    """The server's configuration (`thinkimg.serving.config.ServerConfig`); for a Custom tool, its options."""
    if spec.tool == CUSTOM:
        return {"port": PORT, "options": spec.options}
    entry: dict[str, Any] = {
        "name": spec.tool,
        "backend": spec.backend,
        "options": spec.server_options(Place.WEIGHTS),
    }
    if spec.batching != Batching():
        entry["batching"] = {
            "max_size": spec.batching.max_size,
            "max_wait_ms": spec.batching.max_wait_milliseconds,
        }
    return {
        "tools": [{name: value for name, value in entry.items() if value}],
        "host": "0.0.0.0",
        "port": PORT,
        **({} if spec.auth else {"allow_anonymous": True}),
        "drain_seconds": spec.drain_seconds,
        "default_timeout_seconds": spec.call_timeout_seconds,
    }


# ---- the server -----------------------------------------------------------------------------------------------------


def _deployment(tool: VisionTool, settings: Settings) -> Body:
    spec = tool.spec
    template = _patched(_pod_template(tool, settings), spec.pod_template_patch)
    return {
        **_head("Deployment", tool, tool.name),
        "spec": {
            "replicas": spec.replicas,
            "selector": {"matchLabels": {Label.TOOL: tool.name}},
            "strategy": strategy_of(tool, template),
            "progressDeadlineSeconds": 3600 if spec.weights else 600,
            "revisionHistoryLimit": 3,
            "template": template,
        },
    }


def _patched(template: Body, patch: Body) -> Body:
    return merge_pod_template(template, patch) if patch else template


def _pod_template(tool: VisionTool, settings: Settings) -> Body:
    spec = tool.spec
    volumes, mounts = _volumes(spec)
    pod: Body = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            **({} if spec.tool == CUSTOM else {"runAsUser": USER, "runAsGroup": USER}),
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": _DEREGISTER_SECONDS + spec.drain_seconds + 5,
        "containers": [_container(tool, settings, mounts)],
        "volumes": volumes,
        **_given(
            serviceAccountName=spec.service_account_name,
            imagePullSecrets=[{"name": reference.name} for reference in spec.image_pull_secrets],
            runtimeClassName=spec.runtime_class_name,
            nodeSelector=spec.node_selector,
            tolerations=spec.tolerations,
            affinity=spec.affinity,
            priorityClassName=spec.priority_class_name,
        ),
    }
    annotations = {
        Annotation.SERVER_CONFIG: json.dumps(server_config(spec), sort_keys=True),
        "kubectl.kubernetes.io/default-container": CONTAINER,
    }
    return {"metadata": {"labels": _labels(tool), "annotations": annotations}, "spec": pod}


def _container(tool: VisionTool, settings: Settings, mounts: list[Body]) -> Body:
    spec = tool.spec
    container: Body = {
        "name": CONTAINER,
        "image": image_of(spec, settings),
        "env": _environment(spec),
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": spec.resources.model_dump(exclude_defaults=True),
        "volumeMounts": mounts,
        # Alive while weights load; ready when they are. The first probe waits for Python's imports. The server itself
        # waits until an overload has lasted before it says that it is not ready.
        "startupProbe": _probe(HttpPath.LIVE, periodSeconds=2, failureThreshold=60),
        "livenessProbe": _probe(HttpPath.LIVE, periodSeconds=10, failureThreshold=6, timeoutSeconds=5),
        "readinessProbe": _probe(HttpPath.READY, periodSeconds=2, failureThreshold=2, timeoutSeconds=5),
        # No new calls come before it is told to stop: then it finishes what it has, for at most drainSeconds.
        "lifecycle": {"preStop": {"sleep": {"seconds": _DEREGISTER_SECONDS}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **_given(imagePullPolicy=spec.image_pull_policy),
    }
    if spec.tool != CUSTOM:
        container["command"] = server_command(Place.CONFIG)
    return container


def _probe(path: str, **thresholds: int) -> Body:
    return {"httpGet": {"path": path, "port": "http"}, **thresholds}


def _environment(spec: VisionToolSpec) -> list[Body]:
    variables: list[Body] = [
        {"name": "HOME", "value": Place.TEMPORARY},
        {"name": Variable.HUB_CACHE, "value": f"{Place.CACHE}/huggingface"},
        {"name": Variable.WEIGHTS, "value": f"{Place.CACHE}/weights"},
        {"name": Variable.FETCH_WEIGHTS, "value": "1"},
    ]
    if spec.auth is not None:
        variables.append(_from_secret(Variable.API_KEY, spec.auth.secret_ref.name, spec.auth.secret_ref.key))
    if spec.weights is not None:
        weights = spec.weights
        if weights.secret_ref is not None:
            variables.append(_from_secret(Variable.HUB_TOKEN, weights.secret_ref.name, weights.secret_ref.key))
    own = {variable.name for variable in spec.env}
    return [variable for variable in variables if variable["name"] not in own] + [
        variable.model_dump(exclude_none=True) for variable in spec.env
    ]


def _from_secret(name: str, secret: str, key: str) -> Body:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _volumes(spec: VisionToolSpec) -> tuple[list[Body], list[Body]]:
    """Volumes and their mounts: the configuration, room to write, the cache of weights, weights on a claim."""
    config = {"path": _CONFIG_NAME, "fieldRef": {"fieldPath": f"metadata.annotations['{Annotation.SERVER_CONFIG}']"}}
    weights = spec.weights
    kept = weights.claim_name if weights else None
    cache: Body = {"persistentVolumeClaim": {"claimName": kept}} if kept else {"emptyDir": {}}
    volumes: list[Body] = [
        {"name": "config", "downwardAPI": {"items": [config]}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "cache", **cache},
    ]
    mounts: list[Body] = [
        {"name": "config", "mountPath": _CONFIG_FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": Place.TEMPORARY},
        {"name": "cache", "mountPath": Place.CACHE},
    ]
    claim = _claim_of(weights.uri) if weights and weights.uri else None
    if claim is not None:
        volumes.append({"name": "weights", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        mounts.append({"name": "weights", "mountPath": Place.WEIGHTS, "readOnly": True})
    if spec.shm_size is not None:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": spec.shm_size}})
        mounts.append({"name": "shm", "mountPath": Place.SHARED_MEMORY})
    return volumes, mounts


def claims_of(spec: VisionToolSpec) -> list[str]:
    """Names of the claims that the pods mount."""
    weights = spec.weights
    found = [weights.claim_name, _claim_of(weights.uri) if weights.uri else None] if weights else []
    return [claim for claim in found if claim]


def _claim_of(uri: str) -> str | None:
    """The claim of `pvc://claim/path`; None for other places."""
    scheme, _, rest = uri.partition("://")
    return rest.partition("/")[0] if scheme == "pvc" else None


# ---- around the server ----------------------------------------------------------------------------------------------


def _services(tool: VisionTool) -> list[Body]:
    """One address for everybody, and one DNS record with all servers for clients that balance themselves."""
    ports = [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}]
    spec = {"selector": {Label.TOOL: tool.name}, "ports": ports}
    headless = _head("Service", tool, headless_name(tool))
    headless["metadata"]["labels"] = {**headless["metadata"]["labels"], **_HEADLESS}
    return [
        {**_head("Service", tool, tool.name), "spec": spec},
        {**headless, "spec": {**spec, "clusterIP": "None"}},
    ]


def _disruption_budget(tool: VisionTool) -> Body:
    return {
        **_head("PodDisruptionBudget", tool, tool.name),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": {Label.TOOL: tool.name}},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _autoscaler(tool: VisionTool) -> Body:
    """It scales the VisionTool, whose `replicas` the Deployment follows: one owner for each field, none let go of."""
    scaling = tool.spec.autoscaling
    assert scaling is not None
    if scaling.metric == "CPU":
        target: Body = {"type": "Utilization", "averageUtilization": scaling.target}
        metric: Body = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    else:
        target = {"type": "AverageValue", "averageValue": str(scaling.target)}
        name = {"name": IN_FLIGHT_METRIC}
        metric = {"type": "Pods", "pods": {"metric": name, "target": target}}
    return {
        **_head("HorizontalPodAutoscaler", tool, tool.name),
        "spec": {
            "scaleTargetRef": {"apiVersion": tool.api_version, "kind": tool.kind, "name": tool.name},
            "minReplicas": scaling.min_replicas,
            "maxReplicas": scaling.max_replicas,
            "metrics": [metric],
            **_given(behavior=scaling.behavior),
        },
    }


def _network_policy(tool: VisionTool) -> Body:
    """Callers: pods of the namespace, and of namespaces labelled for it. Tools read untrusted pictures, so those that
    need no network get none; the others do not reach link-local addresses, where clouds keep credentials."""
    spec: Body = {
        "podSelector": {"matchLabels": {Label.TOOL: tool.name}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {
                "from": [
                    {"podSelector": {}},
                    {"namespaceSelector": {"matchLabels": {Label.CALLERS: CALLERS_ALLOWED}}},
                ],
                "ports": [{"port": "http", "protocol": "TCP"}],
            }
        ],
    }
    if not is_self_contained(tool.spec):
        spec["egress"] = open_egress()
    return {**_head("NetworkPolicy", tool, tool.name), "spec": spec}


def is_self_contained(spec: VisionToolSpec) -> bool:
    """Whether the tool never connects to anything: no weights to fetch, no model behind an endpoint."""
    return spec.weights is None and spec.image is None and spec.backend in _SELF_CONTAINED.get(spec.tool, set())


def _service_monitor(tool: VisionTool, labels: Mapping[str, str]) -> Body:
    endpoint: Body = {"port": "http", "path": HttpPath.METRICS}
    if tool.spec.auth is not None:
        reference = tool.spec.auth.secret_ref
        endpoint["authorization"] = {"type": "Bearer", "credentials": {"name": reference.name, "key": reference.key}}
    head = _head("ServiceMonitor", tool, tool.name)
    head["metadata"]["labels"] = {**labels, **head["metadata"]["labels"]}
    return {
        **head,
        "spec": {"selector": {"matchLabels": {Label.TOOL: tool.name, **_HEADLESS}}, "endpoints": [endpoint]},
    }


# ---- parts ----------------------------------------------------------------------------------------------------------


def _head(kind: str, tool: VisionTool, name: str) -> Body:
    metadata = {"name": name, "namespace": tool.metadata.namespace or "default", "labels": _labels(tool)}
    return {"apiVersion": KINDS[kind].api_version, "kind": kind, "metadata": metadata}


def _labels(tool: VisionTool) -> dict[str, str]:
    return {
        Label.TOOL: tool.name,
        "app.kubernetes.io/name": "thinkimg-tool",
        "app.kubernetes.io/instance": tool.name,
        "app.kubernetes.io/component": "vision-tool",
        "app.kubernetes.io/part-of": "thinkimg",
    }


def _given(**fields: Any) -> Mapping[str, Any]:
    """The fields that say something."""
    return {name: value for name, value in fields.items() if value}

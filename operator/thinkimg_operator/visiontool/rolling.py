"""How a tool's servers are replaced when it changes: with one more beside the old ones, or in their place."""

from __future__ import annotations

from typing import Any

from thinkimg.api import VisionTool

from ..kinds import KUEUE_PREFIX, Body

_QUEUE_LABEL = f"{KUEUE_PREFIX}queue-name"
_SURGE = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
_REPLACE = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}


def strategy_of(tool: VisionTool, template: Body) -> Body:
    """The Deployment's `strategy`.

    Args:
        template: the final pod template, patched: it may ask for more than the tool's own fields do.
    """
    wanted = tool.spec.update_strategy
    if wanted != "Auto":
        return _REPLACE if wanted == "Replace" else _SURGE
    try:
        return _REPLACE if _is_scarce(tool, template) else _SURGE
    except (KeyError, TypeError, AttributeError):
        return _SURGE  # a patch has left no pod template: the API server refuses it, and says why


def _is_scarce(tool: VisionTool, template: Body) -> bool:
    """Whether one more pod may never find its place while the old one is there: devices, volumes that only one node
    may mount, and quotas of queues are often all in use."""
    pod = template["spec"]
    labels = tool.metadata.labels | (template["metadata"].get("labels") or {})
    claims = any("persistentVolumeClaim" in volume for volume in pod.get("volumes") or [])
    return _QUEUE_LABEL in labels or claims or bool(pod.get("resourceClaims")) or any(map(_devices, pod["containers"]))


def _devices(container: dict[str, Any]) -> bool:
    """Whether it asks for an extended resource, such as `nvidia.com/gpu`: its name has a domain, and is not one of
    Kubernetes' own."""
    resources = container.get("resources") or {}
    asked = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    extended = (name for name in asked if "/" in name and not name.partition("/")[0].endswith("kubernetes.io"))
    return bool(resources.get("claims")) or any(str(asked[name]) not in ("0", "") for name in extended)

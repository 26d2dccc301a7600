"""What an operator's upgrade leaves alone: the image of tools that an experiment uses, the address of its attempts."""

from __future__ import annotations

from dataclasses import dataclass

from thinkimg.api import VisionTool
from thinkimg.api.pod_contract import CONTAINER, Label, Variable

from ..cluster import Cluster
from ..conditions import is_true
from ..kinds import Body
from ..settings import Settings, image_key
from .render import image_of


@dataclass(frozen=True)
class Held:
    """A tool that keeps an image which is not the operator's default any more."""

    image: str
    default: str
    jobs: tuple[str, ...]


async def held(cluster: Cluster, body: Body, tool: VisionTool, settings: Settings) -> Held | None:
    """The image that the tool keeps because jobs that have started call it; None when it may have the default."""
    before, default = (body.get("status") or {}).get("image", ""), image_of(tool.spec, settings)
    if not before or before == default or not _had_default(body, tool):
        return None
    jobs = cluster.list("ToolRLJob", tool.metadata.namespace or "")
    names = tuple(
        sorted([job["metadata"]["name"] async for job in jobs if _is_under_way(job) and uses(job, tool.name)])
    )
    return Held(before, default, names) if names else None


def _had_default(body: Body, tool: VisionTool) -> bool:
    """Whether the image in the status is a default of the same tool. Operators that did not note it changed the image
    with the default, so that it was one if the spec has not changed since."""
    status = body.get("status") or {}
    if tool.spec.image:
        return False
    if "defaultImageOf" in status:
        return bool(status["defaultImageOf"] == image_key(tool.spec.tool, tool.spec.backend))
    return bool(status.get("observedGeneration") == body["metadata"].get("generation"))


def _is_under_way(job: Body) -> bool:
    over = is_true(job, "Complete") or is_true(job, "Failed")
    return bool((job.get("status") or {}).get("startTime")) and not over


def uses(job: Body, tool: str) -> bool:
    """Whether a ToolRLJob, as the API server has it, names the tool."""
    return any(reference.get("name") == tool for reference in job["spec"].get("tools") or ())


async def is_called(cluster: Cluster, namespace: str, service: str) -> bool:
    """Whether an attempt that is not over was told to find servers by the name of that Service."""
    address = f"//{service}.{namespace}."
    async for job in cluster.list("Job", namespace, labels=Label.JOB):
        over = is_true(job, "Complete") or is_true(job, "Failed")
        if not over and any(address in endpoints for endpoints in _endpoints_of(job)):
            return True
    return False


def _endpoints_of(job: Body) -> list[str]:
    """Addresses of tools that the stage of a Job was told."""
    containers = [one for one in job["spec"]["template"]["spec"]["containers"] if one["name"] == CONTAINER]
    variables = [given for container in containers for given in container.get("env") or ()]
    return [given.get("value") or "" for given in variables if given["name"] == Variable.TOOL_ENDPOINTS]

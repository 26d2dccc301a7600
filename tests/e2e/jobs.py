"""What tests look at of a ToolRLJob."""

from __future__ import annotations

import json
from typing import Any

from e2ecluster import VISION, Cluster


def conditions(job: dict[str, Any]) -> dict[str, str]:
    return {c["type"]: c["status"] for c in job.get("status", {}).get("conditions", [])}


def stage(job: dict[str, Any], name: str) -> dict[str, Any]:
    return next((s for s in job.get("status", {}).get("stages", []) if s["name"] == name), {})


def the_job(cluster: Cluster, name: str) -> dict[str, Any]:
    job: dict[str, Any] = cluster.get("toolrljob", name)
    assert conditions(job).get("Failed") != "True", json.dumps(job["status"], indent=1)
    return job


def pods(cluster: Cluster, job: str, stage_name: str) -> list[dict[str, Any]]:
    """Those that are not being deleted."""
    selector = f"thinkimg.dev/job={job},thinkimg.dev/stage={stage_name}"
    found: list[dict[str, Any]] = cluster.get("pods", "-l", selector)["items"]
    return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]


def claim_text(cluster: Cluster, job: str, file: str) -> str:
    """A file of the job's run on its claim, by its path in the run's folder."""
    uid = the_job(cluster, job)["metadata"]["uid"][:8]
    code = f"print(open('/storage/runs/{job}-{uid}/{file}').read())"
    return cluster.run("reader", code, VISION, claim=f"{job}-storage")

"""What tests look at of a ToolRLJob."""

from __future__ import annotations

import json
from typing import Any

from tests.support.e2e.e2ecluster import VISION, Cluster
from thinkimg.api.pod_contract import Label


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
    selector = f"{Label.JOB}={job},{Label.STAGE}={stage_name}"
    found: list[dict[str, Any]] = cluster.get("pods", "-l", selector)["items"]
    return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]


def running(cluster: Cluster, job: str, stage_name: str, count: int, seconds: float) -> list[dict[str, Any]]:
    """The pods of a stage, once so many run."""

    def found() -> list[dict[str, Any]]:
        the_job(cluster, job)
        seen = pods(cluster, job, stage_name)
        return seen if [pod["status"]["phase"] for pod in seen] == ["Running"] * count else []

    result: list[dict[str, Any]] = cluster.wait(f"{count} pods of {stage_name} run", found, seconds)
    return result


def completed(cluster: Cluster, name: str, seconds: float) -> dict[str, Any]:
    """The job, once it is Complete."""

    def found() -> dict[str, Any]:
        job = the_job(cluster, name)
        return job if conditions(job).get("Complete") == "True" else {}

    result: dict[str, Any] = cluster.wait(f"{name} is Complete", found, seconds)
    return result


def claim_text(cluster: Cluster, job: str, file: str) -> str:
    """A file of the job's run on its claim, by its path in the run's folder."""
    uid = the_job(cluster, job)["metadata"]["uid"][:8]
    code = f"print(open('/storage/runs/{job}-{uid}/{file}').read(), end='')"
    return cluster.run("reader", code, VISION, claim=f"{job}-storage")

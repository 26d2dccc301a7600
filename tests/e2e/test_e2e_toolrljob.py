"""A ToolRLJob through all of its stages in real pods, two of them at once in one stage, and what it survives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support import REPOSITORY
from tests.support.e2e.e2ecluster import SYSTEM, VISION, Cluster
from tests.support.e2e.jobs import completed, pods, running, stage, the_job

JOB = "smoke"
SMOKE = REPOSITORY / "manifests" / "toolrljob-smoke.yaml"


@pytest.fixture(scope="module")
def applied(installed: Cluster) -> Cluster:
    installed.kubectl("apply", "-n", VISION, "-f", str(SMOKE))
    return installed


def test_the_sft_stage_has_two_pods(applied: Cluster) -> None:
    running(applied, JOB, "sft", 2, seconds=1800)


def test_a_lost_operator_pod_restarts_nothing(applied: Cluster) -> None:
    before = {p["metadata"]["uid"] for p in pods(applied, JOB, "sft")}
    leader = applied.get("lease", "thinkimg-operator", namespace=SYSTEM)["spec"]["holderIdentity"].partition("_")[0]
    applied.kubectl("delete", "pod", "-n", SYSTEM, leader, "--wait=false")
    applied.kubectl("rollout", "status", "-n", SYSTEM, "deployment/operator", "--timeout=120s", seconds=130)
    after = {p["metadata"]["uid"] for p in pods(applied, JOB, "sft")}
    assert before == after or stage(the_job(applied, JOB), "sft")["state"] == "Succeeded"


def test_a_deleted_trainer_pod_resumes_from_the_checkpoint(applied: Cluster) -> None:
    def checkpointed() -> int:
        """By the pod's log: the status shows it up to 15 s later, and the whole stage takes hardly twice as long."""
        lines = [line for pod in pods(applied, JOB, "v-toolrl") for line in progress(applied, pod)]
        return max((line.get("checkpoint", {}).get("step", 0) for line in lines), default=0)

    running(applied, JOB, "v-toolrl", 1, 1800)
    step = applied.wait("a checkpoint of v-toolrl", checkpointed, seconds=600)
    [pod] = pods(applied, JOB, "v-toolrl")
    applied.kubectl("delete", "pod", "-n", VISION, pod["metadata"]["name"], "--wait=false")

    def again() -> bool:
        return stage(the_job(applied, JOB), "v-toolrl").get("attempt", 0) >= 2

    applied.wait("another attempt", again, seconds=300)
    log = applied.wait("its log", lambda: resumed_at(applied), seconds=300)
    assert log >= step


def progress(cluster: Cluster, pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of a pod's log that tell a step."""
    printed = cluster.kubectl("logs", "-n", VISION, pod["metadata"]["name"], check=False)
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith('{"')]
    return [line for line in lines if "step" in line]


def resumed_at(cluster: Cluster) -> int:
    """The step that the newest attempt of v-toolrl began at, by its progress lines; 0 as long as there is none."""
    newer = [p for p in pods(cluster, JOB, "v-toolrl") if p["metadata"]["labels"]["thinkimg.dev/attempt"] != "1"]
    return next((int(line["step"]) - 1 for pod in newer for line in progress(cluster, pod)), 0)


def test_it_completes_with_its_results_in_status(applied: Cluster) -> None:
    job = completed(applied, JOB, seconds=1800)
    models = [row["model"] for row in job["status"]["results"]]
    assert models == ["base", "text-sft", "text-rl", "sft", "v-toolrl"]
    assert all(0 <= float(row["accuracy"]) <= 1 for row in job["status"]["results"])

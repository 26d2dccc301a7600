"""A ToolRLJob through all of its stages in real pods, two of them at once in one stage, and what it survives."""

from __future__ import annotations

import json

import pytest
from e2ecluster import REPOSITORY, SYSTEM, VISION, Cluster
from jobs import completed, pods, running, stage, the_job

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
    def checkpointed() -> bool:
        return stage(the_job(applied, JOB), "v-toolrl").get("checkpoint", {}).get("step", 0) >= 5

    applied.wait("a checkpoint of v-toolrl", checkpointed, seconds=1800)
    [pod] = pods(applied, JOB, "v-toolrl")
    step = stage(the_job(applied, JOB), "v-toolrl")["checkpoint"]["step"]
    applied.kubectl("delete", "pod", "-n", VISION, pod["metadata"]["name"], "--wait=false")

    def again() -> bool:
        return stage(the_job(applied, JOB), "v-toolrl").get("attempt", 0) >= 2

    applied.wait("another attempt", again, seconds=300)
    log = applied.wait("its log", lambda: resumed_at(applied), seconds=300)
    assert log >= step


def resumed_at(cluster: Cluster) -> int:
    """The step that the newest attempt of v-toolrl began at, by its progress lines; 0 as long as there is none."""
    for pod in pods(cluster, JOB, "v-toolrl"):
        if pod["metadata"]["labels"]["thinkimg.dev/attempt"] == "1":
            continue
        for line in cluster.kubectl("logs", "-n", VISION, pod["metadata"]["name"], check=False).splitlines():
            if line.startswith("{") and "step" in (progress := json.loads(line)):
                return int(progress["step"]) - 1
    return 0


def test_it_completes_with_its_results_in_status(applied: Cluster) -> None:
    job = completed(applied, JOB, seconds=1800)
    models = [row["model"] for row in job["status"]["results"]]
    assert models == ["base", "text-sft", "text-rl", "sft", "v-toolrl"]
    assert all(0 <= float(row["accuracy"]) <= 1 for row in job["status"]["results"])

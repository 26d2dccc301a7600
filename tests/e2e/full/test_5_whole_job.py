"""`manifests/toolrljob-cpu.yaml`, unchanged, while the cluster is not left in peace: nothing of the job may restart."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import REPOSITORY
from tests.support.e2e.e2ecluster import DOCKER, REGISTRY, SYSTEM, VISION, Cluster
from tests.support.e2e.installing import install_all, timed
from tests.support.e2e.jobs import claim_text, completed, pods, running, stage, the_job

JOB = "demo"
STAGES = ["base", "cold-start", "text-sft", "sft", "text-rl", "v-toolrl", "sft-long", "table"]
MODELS_FAULT = {"malformed_call", "refused", "bad_arguments", "unknown_tool"}
"""Kinds of errors that are the model's own (thinkimg.errors.ModelError)."""


@pytest.fixture(scope="module")
def applied(installed: Cluster) -> Cluster:
    installed.kubectl("apply", "-n", VISION, "-f", str(REPOSITORY / "manifests" / "toolrljob-cpu.yaml"))
    return installed


def same(cluster: Cluster, name: str, before: list[dict[str, Any]]) -> None:
    """The stage's pods are those of before, or it has ended well meanwhile."""
    assert stage(the_job(cluster, JOB), name)["attempt"] == 1
    now = {pod["metadata"]["uid"] for pod in pods(cluster, JOB, name)}
    ended = stage(the_job(cluster, JOB), name)["state"] == "Succeeded"
    assert now == {pod["metadata"]["uid"] for pod in before} or ended


def at_work(cluster: Cluster) -> tuple[str, list[dict[str, Any]]]:
    """A stage that runs, with its pods."""

    def found() -> tuple[str, list[dict[str, Any]]] | None:
        runs = [s["name"] for s in the_job(cluster, JOB).get("status", {}).get("stages", []) if s["state"] == "Running"]
        seen = pods(cluster, JOB, runs[0]) if runs else []
        return (runs[0], seen) if seen and all(pod["status"]["phase"] == "Running" for pod in seen) else None

    result: tuple[str, list[dict[str, Any]]] = cluster.wait("a stage that runs", found, 600)
    return result


def on_node(node: str, *command: str) -> None:
    subprocess.run([DOCKER, "exec", node, *command], check=True)


def test_a_kubelet_that_stops_for_a_minute_restarts_nothing(applied: Cluster) -> None:
    before = running(applied, JOB, "sft", 2, 2400)
    assert len({pod["spec"]["nodeName"] for pod in before}) == 2, "both ranks are on one node"
    node = before[1]["spec"]["nodeName"]
    on_node(node, "systemctl", "stop", "kubelet")
    try:
        time.sleep(60)
    finally:
        on_node(node, "systemctl", "start", "kubelet")
    applied.kubectl("wait", f"node/{node}", "--for=condition=Ready", "--timeout=120s", seconds=130)
    time.sleep(10)
    same(applied, "sft", before)


def test_nobody_else_reaches_the_ranks_of_a_stage(applied: Cluster) -> None:
    [pod, *_] = running(applied, JOB, "sft", 2, 2400)
    code = "import os, socket\nsocket.create_connection((os.environ['HOST'], 29400), timeout=5)"
    applied.make_namespace("outside")
    with pytest.raises(AssertionError, match=r"TimeoutError|ConnectionRefusedError"):  # dropped, or rejected
        applied.run("stranger", code, "outside", HOST=pod["status"]["podIP"])
    applied.kubectl("delete", "pod", "stranger", "-n", "outside", "--ignore-not-found")


def test_charts_go_back_and_forth_and_no_trainer_restarts(applied: Cluster, tmp_path: Path) -> None:
    """Those of the commit before this one with its operator, this one's, and back by `helm rollback`, and again."""
    archive = tmp_path / "previous.tar"
    command = ["git", "archive", "--output", str(archive), "HEAD~1"]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    previous = tmp_path / "previous"
    with tarfile.open(archive) as content:
        content.extractall(previous, filter="data")
    subprocess.run(
        ["hack/docker/build.sh", "operator"], cwd=previous, check=True, env={**os.environ, "VERSION": "previous"}
    )
    timed("load", "hack/kind/kind", "load", f"{REGISTRY}/operator:previous")
    name, before = at_work(applied)
    install_all(applied, previous / "charts", operator_version="previous")
    install_all(applied)
    for release, namespace in (("tools", VISION), ("operator", SYSTEM), ("crds", SYSTEM)):
        applied.helm("rollback", release, "-n", namespace, "--wait")
    same(applied, name, before)
    install_all(applied)
    same(applied, name, before)


def test_tools_that_are_killed_are_not_the_models_fault(applied: Cluster) -> None:
    running(applied, JOB, "v-toolrl", 1, 2400)

    def step() -> int:
        found: int = stage(the_job(applied, JOB), "v-toolrl").get("progress", {}).get("step", 0)
        return found

    for wanted in (3, 15, 30):
        applied.wait(f"step {wanted} of v-toolrl", lambda wanted=wanted: step() >= wanted, 1800)
        applied.kubectl(
            "delete", "pods", "-n", VISION, "-l", "thinkimg.dev/tool", "--grace-period=0", "--force", "--wait=false"
        )
    applied.wait("the end of v-toolrl", lambda: stage(the_job(applied, JOB), "v-toolrl")["state"] == "Succeeded", 2400)
    assert stage(the_job(applied, JOB), "v-toolrl")["attempt"] == 1
    lines = [json.loads(line) for line in claim_text(applied, JOB, "stages/v-toolrl/log.jsonl").splitlines()]
    counted = json.loads(claim_text(applied, JOB, "stages/v-toolrl/tools.json"))["tools"]
    infrastructure = sum(tool["errors"]["infrastructure"] for tool in counted.values())
    masked = sum(line["masked_by"].get("infrastructure", 0) for line in lines)
    retried = sum(tool["retries"] for tool in counted.values())
    print(f"infrastructure errors {infrastructure}, retries {retried}, trajectories put aside {masked}")
    assert {kind for line in lines for kind in line["errors"]} <= MODELS_FAULT


def test_it_completes_with_the_table(applied: Cluster) -> None:
    job = completed(applied, JOB, 3600)
    assert [seen["name"] for seen in job["status"]["stages"]] == STAGES
    assert all(seen["attempt"] == 1 for seen in job["status"]["stages"]), job["status"]["stages"]
    accuracy = {row["model"]: float(row["accuracy"]) for row in job["status"]["results"]}
    assert set(accuracy) == {"base", "text-sft", "text-rl", "sft", "sft-long", "v-toolrl"}
    print(accuracy)
    assert accuracy["v-toolrl"] > accuracy["sft"] > accuracy["base"]


def test_uninstalling_and_installing_keep_job_claim_and_results(applied: Cluster) -> None:
    before, claim = the_job(applied, JOB), applied.get("pvc", f"{JOB}-storage")
    for release, namespace in (("tools", VISION), ("operator", SYSTEM), ("crds", SYSTEM)):
        applied.helm("uninstall", release, "-n", namespace, "--wait")
    kept = the_job(applied, JOB)
    assert (kept["metadata"]["uid"], kept["status"]) == (before["metadata"]["uid"], before["status"])
    install_all(applied)
    time.sleep(20)
    again = the_job(applied, JOB)
    assert again["metadata"]["uid"] == before["metadata"]["uid"]
    assert again["status"]["results"] == before["status"]["results"]
    assert applied.get("pvc", f"{JOB}-storage")["metadata"]["uid"] == claim["metadata"]["uid"]
    assert set(json.loads(claim_text(applied, JOB, "stages/table/done.json"))["models"]) == {
        row["model"] for row in before["status"]["results"]
    }

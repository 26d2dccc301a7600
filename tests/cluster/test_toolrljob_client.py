"""`thinkimg submit`, `status`, `logs`, `results`, `suspend` and `resume` against a real API server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support import REPOSITORY
from tests.support.cluster.joblab import ROW, Lab, job, job_namespace, sft, table
from tests.support.cluster.testcluster import Cluster, wait_for

TOOL = {
    "apiVersion": "thinkimg.dev/v1alpha1",
    "kind": "VisionTool",
    "metadata": {"name": "reader"},
    "spec": {"tool": "OCR"},
}


@pytest.fixture(scope="module")
def lab(cluster: Cluster) -> Iterator[Lab]:
    with job_namespace(cluster, "client") as lab:
        yield lab


def thinkimg(lab: Lab, *arguments: str, code: int = 0) -> str:
    """What the command prints, on both streams; it must end with `code`."""
    command = [sys.executable, "-m", "thinkimg.cli", *arguments, f"--namespace={lab.name}"]
    environment = {**os.environ, "KUBECONFIG": str(lab.cluster.kubeconfig), "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def written(folder: Path, *documents: object) -> str:
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    return str(file)


def mine(name: str, train: str = "pvc://data/trajectories.jsonl", **spec: object) -> dict[str, object]:
    """A job whose data every pod can read."""
    return job(name, sft(), table(), data={"train": {"uri": train}, "test": {"uri": "charts://?questions=10"}}, **spec)


def test_a_job_from_its_file_to_its_table(lab: Lab, tmp_path: Path) -> None:
    file = written(tmp_path, mine("reading", tools=[{"name": "reader"}]), TOOL)
    assert thinkimg(lab, "submit", file) == "VisionTool/reader applied\nToolRLJob/reading applied\n"
    first, second = lab.runs("reading")
    line = {"stage": "sft", "step": 60, "total_steps": 300, "loss": 0.5}
    lab.say(first, "loading", json.dumps(line))
    lab.say(second, "rank 1 is here")
    logs = thinkimg(lab, "logs", "reading").splitlines()
    assert sorted(logs) == [
        "sft/1 rank 0 | loading",
        f"sft/1 rank 0 | {json.dumps(line)}",
        "sft/1 rank 1 | rank 1 is here",
    ]
    assert thinkimg(lab, "logs", "reading", "--rank=1", "--stage=sft").splitlines() == ["sft/1 rank 1 | rank 1 is here"]
    assert "thinkimg status reading" in thinkimg(lab, "results", "reading", code=2)
    wait_for("progress", lambda: lab.stage("reading", "sft").get("progress"))
    tree = thinkimg(lab, "status", "reading").splitlines()
    assert tree[0] == "reading  Running: sft"
    assert tree[1].split()[:4] == ["├─", "▶", "sft", "Running"]
    assert "60/300 · loss 0.5" in tree[1]
    assert tree[2].split()[:4] == ["└─", "·", "table", "Pending"]
    lab.succeed("reading")
    lab.succeed("reading", "table", results=[ROW])
    lab.comes_to("reading", "Complete", "True", "AllStagesSucceeded")
    assert thinkimg(lab, "status", "reading").splitlines()[0] == "reading  Complete"
    assert "sft 77.8 % 73.0 – 82.0 1.40" in " ".join(thinkimg(lab, "results", "reading").split())
    assert json.loads(thinkimg(lab, "results", "reading", "--json")) == [ROW]
    assert "reading Complete 2/2" in " ".join(thinkimg(lab, "status").split())


def test_the_job_of_the_guide_starts_as_it_stands(lab: Lab, tmp_path: Path) -> None:
    guide = (REPOSITORY / "docs" / "guides" / "run-on-a-cluster.md").read_text()
    block = re.search(r"<!-- file: cluster.yaml -->\n```yaml\n(.*?)```", guide, re.DOTALL)
    assert block is not None
    (tmp_path / "job.yaml").write_text(block[1])
    assert thinkimg(lab, "submit", str(tmp_path / "job.yaml")).splitlines()[-1] == "ToolRLJob/totals applied"
    lab.succeed("totals")
    lab.succeed("totals", "table", results=[ROW])
    lab.comes_to("totals", "Complete", "True", "AllStagesSucceeded")


def test_logs_are_followed_through_the_stages_until_the_job_is_over(lab: Lab, tmp_path: Path) -> None:
    thinkimg(lab, "submit", written(tmp_path, mine("followed")))
    lab.runs("followed")
    command = [sys.executable, "-m", "thinkimg.cli", "logs", "followed", "-f", f"--namespace={lab.name}"]
    environment = {**os.environ, "KUBECONFIG": str(lab.cluster.kubeconfig)}
    following = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        for pod in lab.runs("followed"):
            lab.say(pod, "here")
        lab.succeed("followed")
        (pod,) = lab.runs("followed", "table")
        lab.say(pod, "a table")
        lab.succeed("followed", "table")
        output, _ = following.communicate(timeout=300)
    finally:
        following.kill()
    assert {"sft/1 rank 0 | here", "sft/1 rank 1 | here", "table/1 rank 0 | a table"} <= set(output.splitlines())
    assert following.returncode == 0


def test_suspend_and_resume(lab: Lab, tmp_path: Path) -> None:
    thinkimg(lab, "submit", written(tmp_path, mine("paused")))
    lab.runs("paused")
    assert "`thinkimg resume paused` goes on" in thinkimg(lab, "suspend", "paused")
    lab.comes_to("paused", "Suspended", "True", "Suspended")
    assert thinkimg(lab, "status", "paused").splitlines()[0] == "paused  Suspended"
    thinkimg(lab, "resume", "paused")
    lab.runs("paused", attempt=2)


def test_what_has_to_be_done_is_said(lab: Lab, tmp_path: Path) -> None:
    refused = thinkimg(lab, "submit", written(tmp_path, mine("local", "data/train.jsonl")), code=2)
    assert "spec.data.train.uri" in refused
    assert '"data/train.jsonl" is a path of this machine, and pods do not see it' in refused
    assert "pvc://CLAIM/PATH" in refused
    assert lab.get("local") is None
    thinkimg(lab, "submit", written(tmp_path, mine("waits", tools=[{"name": "reeder"}])))
    lab.comes_to("waits", "ToolsReady", "False", "ToolNotFound")
    assert "ToolNotFound there is no VisionTool reeder in this namespace." in thinkimg(lab, "status", "waits")
    unknown = thinkimg(lab, "logs", "wait", code=2)
    assert f'there is no ToolRLJob "wait" in namespace {lab.name}. Did you mean "waits"?' in unknown
    assert "no pod of waits has a log yet" in thinkimg(lab, "logs", "waits", code=2)


def test_without_a_cluster_it_says_so(lab: Lab, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "thinkimg.cli", "status"]
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "nothing")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 2
    assert "there is no cluster to talk to" in done.stderr

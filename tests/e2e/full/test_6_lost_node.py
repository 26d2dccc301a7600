"""The machine of one rank is switched off: the next attempt runs on the other one. Last, as the node stays away."""

from __future__ import annotations

import subprocess
from typing import Any

import yaml

from tests.support import REPOSITORY
from tests.support.e2e.e2ecluster import DOCKER, VISION, Cluster, document
from tests.support.e2e.jobs import completed, running, stage, the_job

JOB = "lost"


def manifest() -> str:
    """The first stages of the smoke manifest, with a shorter patience for nodes."""
    documents = list(yaml.safe_load_all((REPOSITORY / "manifests" / "toolrljob-smoke.yaml").read_text()))
    spec: dict[str, Any] = documents[-1]["spec"]
    spec["stages"] = [s for s in spec["stages"] if s["name"] in ("cold-start", "sft")]
    sft = spec["stages"][-1]["sft"]
    sft["maxSteps"] = 300
    del sft["gate"]
    spec["failurePolicy"] = {"nodeLostSeconds": 30}
    return document("thinkimg.dev/v1alpha1", "ToolRLJob", {"name": JOB, "namespace": VISION}, spec=spec)


def test_a_rank_whose_node_is_gone_runs_on_another(installed: Cluster) -> None:
    installed.kubectl("apply", "-f", "-", stdin=manifest())

    first = running(installed, JOB, "sft", 2, 1800)
    node = first[1]["spec"]["nodeName"]
    installed.wait("steps", lambda: stage(the_job(installed, JOB), "sft").get("progress", {}).get("step", 0) > 5, 600)
    subprocess.run([DOCKER, "stop", "--time", "1", node], check=True)
    installed.wait("another attempt", lambda: stage(the_job(installed, JOB), "sft").get("attempt", 0) == 2, 300)
    second = running(installed, JOB, "sft", 2, 300)
    assert node not in {pod["spec"]["nodeName"] for pod in second}
    completed(installed, JOB, 1800)
    assert stage(the_job(installed, JOB), "sft")["attempt"] == 2

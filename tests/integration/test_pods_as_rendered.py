"""Pods exactly as the operator renders them: `thinkimg stage` and the tool server start with their command, environment
and files, and the operator reads what they leave. A word that only one side knows fails here."""

import http.client
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from thinkimg_operator.settings import Settings
from thinkimg_operator.toolrljob.attempts import failure_of, last_words, observe_pod
from thinkimg_operator.toolrljob.failure_policy import action_after
from thinkimg_operator.toolrljob.progress import read_checkpoint, read_progress, read_results
from thinkimg_operator.toolrljob.render import ToolEndpoint, names_of, render_attempt, render_manifest, run_folder
from thinkimg_operator.visiontool.render import render

from tests.support.operator.kubelet import Ended, Kubelet
from tests.support.training.scripted_agent import World, picture
from thinkimg.api import SecretRef, ToolRLJob, VisionTool
from thinkimg.api.pod_contract import CONTAINER, progress_lines
from thinkimg.jobs.layout import Run
from thinkimg.message import ImageBlock, TextBlock
from thinkimg.trajectory import Trajectory, write_trajectories

pytestmark = pytest.mark.slow

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
KEY = "key of the tool"
SPEC: dict[str, Any] = {
    "model": {"uri": "pvc://models/base"},
    "data": {"train": {"uri": "mine.jsonl"}, "test": {"uri": "charts://?questions=2&difficulty=1"}},
    "tools": [{"name": "crop"}],
    "agent": {"maxTokensPerTurn": 4, "maxRounds": 1},
    "checkpoint": {"everySteps": 2},
    "stages": [
        {"name": "sft", "type": "SFT", "sft": {"maxSteps": 10, "batchSize": 2, "args": {"bf16": False}}},
        {"name": "table", "type": "Evaluate", "evaluate": {"models": ["base"], "sampled": False}},
    ],
}


def make_job(**spec: Any) -> ToolRLJob:
    metadata = {"name": "demo", "namespace": "vision", "uid": "0123456789ab"}
    return ToolRLJob.model_validate({"metadata": metadata, "spec": SPEC | spec}, by_alias=True)


CROP = VisionTool.model_validate(
    {
        "metadata": {"name": "crop", "namespace": "vision"},
        "spec": {"tool": "Crop", "auth": {"secretRef": {"name": "tools", "key": "key"}}},
    },
    by_alias=True,
)


class Cluster:
    """What the operator and a kubelet make of a job. The tool's server is the one that the operator renders, too."""

    def __init__(self, root: Path, tool_url: str) -> None:
        self.job = make_job()
        manifest = render_manifest(self.job, [CROP])
        self.kubelet = Kubelet(
            root, {manifest["metadata"]["name"]: manifest["data"]}, {"tools": {"key": KEY}}, {"HF_HUB_OFFLINE": "1"}
        )
        self.storage = self.kubelet.claim("demo-storage")
        self.run = Run(self.storage / run_folder(self.job))
        self.endpoint = ToolEndpoint("crop", tool_url, SecretRef(name="tools", key="key"))
        world, base = World(), self.kubelet.claim("models") / "base"
        world.model.save_pretrained(base)
        world.processor.save_pretrained(base)
        write_trajectories([trajectory(number) for number in range(6)], self.storage / "mine.jsonl")

    def rendered(self, stage: str, attempt: int = 1) -> dict[str, Any]:
        return render_attempt(self.job, stage, attempt, [self.endpoint], "runtime:1")


def trajectory(number: int) -> Trajectory:
    made = Trajectory(question="what is the value of the bar", status="answered", answer=f"answer {number}")
    shown = made.add_image(picture(number))
    made.add("user", ImageBlock(handle=shown), TextBlock(text="what is the value of the bar"))
    made.add("assistant", TextBlock(text=f"answer {number}"))
    return made


@contextmanager
def tool_server(root: Path) -> Iterator[str]:
    """The server of a rendered VisionTool, on a free port instead of the pod's own; its address."""
    deployment = next(child for child in render(CROP, Settings()) if child["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    (annotation,) = [name for name, text in template["metadata"]["annotations"].items() if text.startswith("{")]
    config = json.loads(template["metadata"]["annotations"][annotation])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        config["port"] = port = probe.getsockname()[1]
    template["metadata"]["annotations"][annotation] = json.dumps(config)
    kubelet = Kubelet(root, secrets={"tools": {"key": KEY}})
    container = kubelet.place({"metadata": {"name": "crop-1", **template["metadata"]}, "spec": template["spec"]})
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(container.command, env=container.environment, stdout=log, stderr=log)
    try:
        (rendered,) = template["spec"]["containers"]
        wait_until_ready(port, rendered["readinessProbe"]["httpGet"]["path"], root / "server.log")
        yield f"http://127.0.0.1:{port}"
        assert get(port, rendered["livenessProbe"]["httpGet"]["path"])[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def get(port: int, path: str, key: str = "") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def wait_until_ready(port: int, path: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if get(port, path)[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def tool_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tool_server(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, tool_url: str) -> Cluster:
    return Cluster(tmp_path_factory.mktemp("pods"), tool_url)


def ended_well(cluster: Cluster, stage: str) -> Ended:
    pod = cluster.kubelet.run(cluster.rendered(stage))
    seen = observe_pod(pod.body)
    assert (seen.phase, seen.exit_code) == ("Succeeded", 0), pod.log
    assert (seen.stage, seen.attempt, seen.index) == (stage, 1, 0)
    assert pod.container == CONTAINER, "the operator reads another container's log"
    assert cluster.run.done(stage) is not None
    return pod


def test_a_training_stage_finds_its_model_and_data_and_says_how_far_it_is(cluster: Cluster) -> None:
    pod = ended_well(cluster, "sft")
    assert (cluster.run.model("sft") / "config.json").exists()
    assert (cluster.run.stage("sft") / "attempt").read_text().strip() == "1"
    line = next(progress_lines(pod.log, "sft"))
    progress, checkpoint = read_progress(line, None, NOW), read_checkpoint(line)
    assert progress is not None
    assert (progress.step, progress.total_steps) == (10, 10)
    assert "loss" in {metric.name for metric in progress.metrics}
    assert checkpoint is not None
    assert checkpoint.step == 10
    assert checkpoint.path.startswith(run_folder(cluster.job)), "it is relative to the storage root"


def test_an_evaluation_calls_the_tools_with_their_key_and_leaves_the_table(cluster: Cluster) -> None:
    pod = ended_well(cluster, "table")
    (row,) = read_results(observe_pod(pod.body).message)
    assert row.model == "base"
    assert 0 <= float(row.accuracy) <= 1
    assert len(row.ci95) == 2
    assert float(row.tool_calls_per_answer) >= 0
    assert list(cluster.run.stage("table").glob("**/tools.json")), "the tool client was connected"
    assert next(progress_lines(pod.log, "table")).message == "evaluating base"


def test_without_the_key_the_stage_fails_and_says_so(cluster: Cluster) -> None:
    cluster.kubelet.secrets, good = {"tools": {"key": "another"}}, cluster.kubelet.secrets
    job = make_job(stages=[SPEC["stages"][1] | {"name": "again"}])
    cluster.kubelet.config_maps = {names_of(job).manifest: render_manifest(job, [CROP])["data"]}
    try:
        pod = cluster.kubelet.run(render_attempt(job, "again", 1, [cluster.endpoint], "runtime:1"))
    finally:
        cluster.kubelet.secrets = good
        cluster.kubelet.config_maps = {names_of(cluster.job).manifest: render_manifest(cluster.job, [CROP])["data"]}
    seen = observe_pod(pod.body)
    assert seen.exit_code == 2, pod.log
    failure = failure_of(None, [seen], NOW)
    assert failure is not None
    assert failure.user_error
    assert action_after(failure, "again", job.spec.failure_policy) == "Fail"
    assert "key" in failure.text


def test_data_that_is_missing_is_the_users_error_and_is_named(cluster: Cluster) -> None:
    job = make_job(data=SPEC["data"] | {"train": {"uri": "pvc://questions/none.jsonl"}})
    job.metadata.uid = "another-uid"  # so that it has a folder of its own
    cluster.kubelet.claim("questions")
    cluster.kubelet.config_maps = {names_of(job).manifest: render_manifest(job, [CROP])["data"]}
    try:
        pod = cluster.kubelet.run(render_attempt(job, "sft", 1, [cluster.endpoint], "runtime:1"))
    finally:
        cluster.kubelet.config_maps = {names_of(cluster.job).manifest: render_manifest(cluster.job, [CROP])["data"]}
    seen = observe_pod(pod.body)
    assert seen.exit_code == 2, pod.log
    assert "claims/questions/none.jsonl" in last_words(seen.message)


def test_a_stage_refuses_an_operator_of_another_contract_at_once(cluster: Cluster) -> None:
    rendered = cluster.rendered("sft", 2)
    (container,) = rendered["spec"]["template"]["spec"]["containers"]
    (said,) = [variable for variable in container["env"] if variable["name"] == "THINKIMG_CONTRACT"]
    said["value"] = "99"
    pod = cluster.kubelet.run(rendered)
    seen = observe_pod(pod.body)
    failure = failure_of(None, [seen], NOW)
    assert failure is not None
    assert failure.user_error
    assert "the operator speaks version 99 of the contract between operator and stages" in failure.text
    assert failure.text.endswith("in the version of the image.")


def test_torchrun_reads_ranks_and_master_from_the_pods_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.run import parse_args

    from thinkimg.jobs.runner.launch import wants_torchrun

    training = {"name": "sft", "type": "SFT", "nodes": 2, "procsPerNode": 4, "sft": {}}
    job = make_job(stages=[training])
    rendered = render_attempt(job, "sft", 3, [], "runtime:1")
    kubelet = Kubelet(tmp_path, {names_of(job).manifest: render_manifest(job, [])["data"]})
    environment = kubelet.place(kubelet.pod_of(rendered, 1)).environment
    assert wants_torchrun(environment)
    for name in [name for name in environment if name.startswith("PET_")]:
        monkeypatch.setenv(name, environment[name])
    options = parse_args(["--module", "thinkimg.cli"])
    assert (options.nnodes, options.nproc_per_node, int(options.node_rank)) == ("2", "4", 1)
    assert (options.master_addr, int(options.master_port)) == (
        f"{rendered['metadata']['name']}-0.{names_of(job).service}",
        29400,
    )


def test_the_servers_interface_is_what_the_operator_probes_scales_and_scrapes(tool_url: str) -> None:
    port = int(tool_url.rpartition(":")[2])
    assert get(port, "/v1/tools")[0] == 401
    assert get(port, "/v1/tools", KEY)[0] == 200
    monitored = VisionTool.model_validate(
        yaml.safe_load(
            "{metadata: {name: crop}, spec: {tool: Crop, autoscaling: {minReplicas: 1, maxReplicas: 2, target: 4}}}"
        ),
        by_alias=True,
    )
    children = {child["kind"]: child for child in render(monitored, Settings(service_monitors=True))}
    (metric,) = children["HorizontalPodAutoscaler"]["spec"]["metrics"]
    (scraped,) = children["ServiceMonitor"]["spec"]["endpoints"]
    status, text = get(port, scraped["path"], KEY)
    assert status == 200
    assert f"\n{metric['pods']['metric']['name']} " in text

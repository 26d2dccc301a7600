"""hack/cluster/cluster: a cluster comes up, says where it is, simulates pods, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import binaries
import pytest

from tests.support import REPOSITORY
from tests.support.cluster.testcluster import Cluster, Namespace, wait_for

FRONT = REPOSITORY / "hack" / "cluster" / "cluster"
GUIDE = REPOSITORY / "docs" / "guides" / "cluster-development.md"
IMAGE = "registry.example.com/pause:1"


@pytest.fixture
def own_cluster_only(cluster: Cluster) -> None:
    """Tests of simulated pods and of the audit log say nothing about a cluster that the user named."""
    if cluster.plane is None:
        pytest.skip("a cluster that the user named has real nodes and no audit log for us")


def pod(name: str, **annotations: str) -> dict[str, object]:
    marks = {f"sim.thinkimg.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    containers = [{"name": "main", "image": IMAGE, "resources": {"limits": {"nvidia.com/gpu": "1"}}}]
    metadata = {"name": name, "annotations": marks}
    spec = {"containers": containers, "restartPolicy": "Never"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def phase(namespace: Namespace, name: str) -> str | None:
    found = namespace.get("pod", name)
    return found and found["status"].get("phase")


@pytest.mark.usefixtures("own_cluster_only")
def test_a_pod_runs_until_the_test_ends_it(namespace: Namespace) -> None:
    namespace.apply(pod("rank-0"))
    wait_for("the pod runs", lambda: phase(namespace, "rank-0") == "Running")
    namespace.end_pod("rank-0", exit_code=70, reason="NCCL", message='{"step": 3}')
    wait_for("the pod failed", lambda: phase(namespace, "rank-0") == "Failed")
    ended = namespace.get("pod", "rank-0")
    assert ended is not None
    state = ended["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["reason"], json.loads(state["message"])) == (70, "NCCL", {"step": 3})


@pytest.mark.usefixtures("own_cluster_only")
def test_annotations_of_the_template_direct_a_job(namespace: Namespace) -> None:
    template = pod("", finish_after="500ms", message="done")
    del template["metadata"]["name"], template["apiVersion"], template["kind"]  # type: ignore[attr-defined]
    spec = {"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimit": 0, "template": template}
    namespace.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "train"}, "spec": spec})
    job = wait_for("the Job has ended", lambda: _ended(namespace, "train"))
    assert (job["status"]["succeeded"], job["status"]["completedIndexes"]) == (2, "0,1")


def _ended(namespace: Namespace, name: str) -> dict[str, dict[str, object]] | None:
    job = namespace.get("job", name)
    conditions = (job or {}).get("status", {}).get("conditions", [])
    return job if any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions) else None


@pytest.mark.usefixtures("own_cluster_only")
def test_gpus_are_counted(cluster: Cluster, namespace: Namespace) -> None:
    greedy = pod("greedy")
    greedy["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "9"  # type: ignore[index]
    namespace.apply(greedy)

    def refusal() -> str | None:
        found = namespace.get("pod", "greedy")
        return found and next((c["message"] for c in found["status"].get("conditions", []) if c.get("message")), None)

    assert "Insufficient nvidia.com/gpu" in wait_for("the scheduler has spoken", refusal)


@pytest.mark.usefixtures("own_cluster_only")
def test_kubectl_logs_shows_the_file_of_a_pod(namespace: Namespace) -> None:
    namespace.apply(pod("rank-0"))
    wait_for("the pod runs", lambda: phase(namespace, "rank-0") == "Running")
    lines = "".join(f'2026-01-01T00:00:00Z stdout F {{"step": {step}}}\n' for step in (1, 2))
    namespace.log_of_pod("rank-0").write_text(lines)
    assert wait_for("the log is there", lambda: _log(namespace)) == '{"step": 1}\n{"step": 2}\n'


def _log(namespace: Namespace) -> str | None:
    try:
        return namespace.kubectl("logs", "rank-0") or None
    except Exception:
        return None


@pytest.mark.usefixtures("own_cluster_only")
def test_the_audit_log_tells_service_accounts_apart(cluster: Cluster, namespace: Namespace) -> None:
    namespace.kubectl("create", "serviceaccount", "robot")
    kubeconfig = cluster.service_account_kubeconfig(namespace.name, "robot")
    with pytest.raises(Exception, match="cannot list resource"):
        cluster.kubectl("get", "pods", "-n", namespace.name, kubeconfig=kubeconfig)
    user = f"system:serviceaccount:{namespace.name}:robot"
    seen = [event for event in cluster.audit() if event["user"]["username"] == user and "objectRef" in event]
    assert seen[-1]["verb"] == "list"
    assert seen[-1]["objectRef"]["resource"] == "pods"
    assert seen[-1]["annotations"]["authorization.k8s.io/decision"] == "forbid"


def test_a_named_cluster_comes_up_and_goes_down(cluster: Cluster) -> None:
    name = f"test-{os.getpid()}"

    def front(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(FRONT), *arguments, "--name", name], capture_output=True, text=True, timeout=400)

    try:
        up = front("up", "--nodes", "1", "--gpus", "4")
        assert up.returncode == 0, up.stderr
        kubeconfig = Path(front("kubeconfig").stdout.strip())
        nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json", kubeconfig=kubeconfig))["items"]
        assert [node["status"]["allocatable"]["nvidia.com/gpu"] for node in nodes] == ["4"]
        assert "runs Kubernetes v1." in front("status").stdout
        robot = Path(front("kubeconfig", "--service-account", "default/default").stdout.strip())
        assert "default" in cluster.kubectl("auth", "whoami", kubeconfig=robot)
    finally:
        assert front("down").returncode == 0
    assert front("status").returncode == 3
    assert not kubeconfig.exists()


def test_nothing_is_left_when_the_caller_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    caller = subprocess.Popen(
        [str(FRONT), "run", "--nodes", "0", "--", "sh", "-c", "echo $KUBECONFIG; sleep 60"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert caller.stdout is not None
    folder = Path(caller.stdout.readline().strip()).parent
    assert _processes_of(folder) >= {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    wait_for("all processes of the cluster have ended", lambda: not _processes_of(folder), seconds=120)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death")
def test_nothing_is_left_when_the_supervisor_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    caller = subprocess.Popen(
        [str(FRONT), "run", "--nodes", "0", "--", "sh", "-c", "echo $KUBECONFIG; sleep 60"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert caller.stdout is not None
    folder = Path(caller.stdout.readline().strip()).parent
    os.kill(int((folder / "lock").read_text()), signal.SIGKILL)
    wait_for("all components have ended", lambda: not _processes_of(folder) - {"cluster"}, seconds=120)
    caller.kill()
    caller.wait()


def _processes_of(folder: Path) -> set[str]:
    """Names of the processes whose command line names the cluster's folder."""
    shown = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    return {Path(line.split()[0]).name for line in shown.splitlines() if str(folder) in line}


def test_missing_programs_are_said_and_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Go and without a network: no cluster, and a reason that a person can act on."""
    monkeypatch.setenv("THINKIMG_CLUSTER_CACHE", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setattr(binaries.toolchain, "_version_of", lambda _: None)
    monkeypatch.setenv("GOPROXY", "http://127.0.0.1:9")
    monkeypatch.setattr(binaries.toolchain, "PUBLIC_PROXY", "http://127.0.0.1:9")
    with pytest.raises(
        binaries.BinariesError, match=r"kubernetes cannot be built: Go .* could not be fetched: .*refused"
    ):
        binaries.ensure(["etcd"], say=lambda _: None)


def test_a_folder_of_programs_comes_before_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kubectl").touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert binaries.find("kubectl") == tmp_path / "kubectl"


def test_the_guide_runs(cluster: Cluster, tmp_path: Path) -> None:
    """The commands of docs/guides/cluster-development.md, as they stand there."""
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    script = blocks[0].replace("hack/cluster/cluster down", blocks[2] + "hack/cluster/cluster down") + blocks[1]
    # A cache of its own, so that the developer's own cluster is left alone; the programs are those that are there.
    environment = {
        **os.environ,
        "KUBEBUILDER_ASSETS": str(_folder_of_programs(tmp_path)),
        "THINKIMG_CLUSTER_CACHE": str(tmp_path / "cache"),
    }
    started = time.monotonic()
    done = subprocess.run(
        ["bash", "-euc", script], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stderr
    for expected in ("visiontool.thinkimg.dev/ocr", "FIELDS:", "runs Kubernetes v1.", "is down", "node-1"):
        assert expected in done.stdout, (
            f"{expected!r} is not in\n{done.stdout}\n(after {time.monotonic() - started:.0f} s)"
        )


def _folder_of_programs(tmp_path: Path) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir()
    for program, path in binaries.ensure(binaries.CONTROL_PLANE).items():
        (folder / program).symlink_to(path)
    return folder

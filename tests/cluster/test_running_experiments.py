"""An operator's upgrade changes no running experiment, and no two objects of ours want one name."""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.joblab import Lab, job, job_namespace, sft, table
from tests.support.cluster.shipped_access import ACCOUNT, grant
from tests.support.cluster.testcluster import OPERATOR, Cluster, Namespace, Object, Operator, wait_for
from thinkimg.api.pod_contract import VERSION

pytestmark = pytest.mark.usefixtures("own_cluster_only")
OLD, NEW = "registry.example.com/trainer:1", "registry.example.com/trainer:2"
DIGEST = "sha256:" + "ab" * 32


def tool(name: str, **spec: Any) -> Object:
    spec = {"tool": "Crop", "replicas": 1, **spec}
    return {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool", "metadata": {"name": name}, "spec": spec}


@contextmanager
def operator_of(lab: Lab, sources: Path | None, *arguments: str) -> Iterator[Operator]:
    """The operator as it stands, or of other sources, until the context ends."""
    access = [*grant(lab.namespace), "--log-format=text", "--no-leader-election", "--resync-seconds=2", *arguments]
    ours = lab.cluster.service_account_kubeconfig(lab.name, ACCOUNT)
    kubeconfig = lab.cluster.kubeconfig if sources else ours  # the other one had the rights of its own chart
    log = lab.cluster.folder / f"{lab.name}-{secrets.token_hex(3)}.log"
    paths = {"PYTHONPATH": f"{sources / 'operator'}:{sources}"} if sources else {}
    operator = Operator(kubeconfig, log, access, paths, command=[sys.executable, "-c", OPERATOR])
    operator.start()
    lab.operator = operator
    try:
        yield operator
    finally:
        lab.operator = None
        operator.stop()


def image(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def manifest_of(lab: Lab, pod: Object) -> Object:
    """The ConfigMap that a pod mounts as its manifest."""
    volume = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "manifest")
    return lab.namespace.get("configmap", volume["configMap"]["name"])


def says_image(lab: Lab, pod: Object, image_id: str) -> None:
    """A node says what image a pod runs, as its kubelet does."""
    path = f"{lab.pod_path(pod)}/status"
    statuses = lab.cluster.request("GET", lab.pod_path(pod))[1]["status"]["containerStatuses"]
    lab.patch(path, {"status": {"containerStatuses": [{**seen, "imageID": image_id} for seen in statuses]}})


def two_resyncs(operator: Operator) -> None:
    since = operator.metric("thinkimg_resyncs_total")
    enough = lambda: operator.check() or operator.metric("thinkimg_resyncs_total") >= since + 3  # noqa: E731
    wait_for("it has looked at everything twice", enough)


# ---- names -----------------------------------------------------------------------------------------------------------


def test_a_job_and_a_tool_of_one_name_and_jobs_whose_attempts_read_alike_run_side_by_side(cluster: Cluster) -> None:
    with job_namespace(cluster, "alike") as lab:
        lab.namespace.apply(tool("b"))
        for body in (job("b"), job("exp", sft("text-sft")), job("exp-text", sft("sft"))):
            lab.submit(body)
        lab.runs("b")
        lab.runs("exp", "text-sft")
        lab.runs("exp-text")
        tool_serves(lab.namespace, "b")
        service = lab.namespace.get("service", "b")
        assert service["spec"]["selector"] == {"thinkimg.dev/tool": "b"}
        (of_exp,), (of_text,) = lab.jobs("exp"), lab.jobs("exp-text")
        assert of_exp["metadata"]["name"].startswith("exp-text-sft-1-")
        assert of_text["metadata"]["name"].startswith("exp-text-sft-1-")
        assert of_exp["metadata"]["ownerReferences"][0]["name"] == "exp"
        assert of_text["metadata"]["ownerReferences"][0]["name"] == "exp-text"


def test_two_tools_of_which_one_has_the_name_of_the_others_service(cluster: Cluster) -> None:
    """Whichever is there first; an attempt that has the old address keeps it until it ends."""
    with job_namespace(cluster, "pairs", ["--resync-seconds=2"]) as lab:
        lab.namespace.apply(tool("zoom"))
        tool_serves(lab.namespace, "zoom")
        evaluating = {"name": "table", "type": "Evaluate", "evaluate": {"models": ["sft"]}}
        lab.submit(job("asks", sft(nodes=1), evaluating, tools=[{"name": "zoom"}]))
        lab.succeed("asks")
        (caller,) = lab.runs("asks", "table")
        assert f"//zoom-pods.{lab.name}." in endpoints(caller)
        lab.namespace.apply(tool("zoom-pods"))
        wait_for("another name", lambda: servers_service(lab, "zoom").startswith("zoom-pods-"))
        wait_for("it is refused", lambda: accepted(lab, "zoom-pods")[:2] == ("False", "NameTaken"))
        assert selects(lab, "zoom-pods") == selects(lab, servers_service(lab, "zoom")) == "zoom"
        lab.succeed("asks", "table")
        wait_for("the name is free", lambda: selects(lab, "zoom-pods") != "zoom")
        lab.namespace.kubectl("annotate", "visiontool", "zoom-pods", "example.com/look=again")  # or wait for 30 s
        tool_serves(lab.namespace, "zoom-pods")
        assert selects(lab, "zoom-pods") == "zoom-pods"
        assert selects(lab, servers_service(lab, "zoom")) == "zoom"
        lab.namespace.apply(tool("crop-pods"))
        tool_serves(lab.namespace, "crop-pods")
        lab.namespace.apply(tool("crop"))
        tool_serves(lab.namespace, "crop")
        assert (selects(lab, "crop-pods"), selects(lab, servers_service(lab, "crop"))) == ("crop-pods", "crop")
        lab.submit(job("asks-again", sft(nodes=1), evaluating, tools=[{"name": "zoom"}]))
        lab.succeed("asks-again")
        (caller,) = lab.runs("asks-again", "table")
        assert f"//{servers_service(lab, 'zoom')}.{lab.name}." in endpoints(caller)


def endpoints(pod: Object) -> str:
    values = {one["name"]: one.get("value", "") for one in pod["spec"]["containers"][0]["env"]}
    return str(values["THINKIMG_TOOL_ENDPOINTS"])


def status_of_tool(lab: Lab, name: str) -> Object:
    return dict((lab.namespace.get("visiontool", name) or {}).get("status") or {})


def servers_service(lab: Lab, name: str) -> str:
    return str(status_of_tool(lab, name).get("serversService", ""))


def accepted(lab: Lab, name: str, type_: str = "Accepted") -> tuple[str, str, str]:
    """Status, reason and message of a condition of a tool."""
    conditions = status_of_tool(lab, name).get("conditions", [])
    said = [(c["status"], c["reason"], c["message"]) for c in conditions if c["type"] == type_]
    return said[0] if said else ("", "", "")


def selects(lab: Lab, service: str) -> str:
    """The tool whose servers a Service has; empty where there is none."""
    status, body = lab.cluster.request("GET", f"/api/v1/namespaces/{lab.name}/services/{service}")
    return str(body["spec"]["selector"]["thinkimg.dev/tool"]) if status == 200 else ""


def tool_serves(namespace: Namespace, name: str) -> None:
    def available() -> bool:
        status = (namespace.get("visiontool", name) or {}).get("status") or {}
        return any(c["type"] == "Available" and c["status"] == "True" for c in status.get("conditions", []))

    wait_for(f"{name} is Available", available)


# ---- upgrades --------------------------------------------------------------------------------------------------------


def test_a_later_attempt_has_the_first_ones_image_and_manifest(namespace: Namespace) -> None:
    lab = Lab(namespace)
    lab.prepare()
    with operator_of(lab, None, f"--runtime-image={OLD}"):
        for name in ("pulled", "loaded"):
            lab.submit(job(name, sft(nodes=1), table()))
        (pulled,), (loaded,) = lab.runs("pulled"), lab.runs("loaded")
        says_image(lab, pulled, f"registry.example.com/trainer@{DIGEST}")
        says_image(lab, loaded, f"docker.io/library/import-2026-01-01@{DIGEST}")
        wait_for(
            "what ran is known", lambda: all(lab.get(name)["status"].get("images") for name in ("pulled", "loaded"))
        )
        manifest = manifest_of(lab, pulled)
        assert manifest["immutable"]
        said = lab.get("loaded")["status"]["images"]
        assert said == [{"image": OLD, "digest": "", "message": said[0]["message"]}]
        assert said[0]["message"].startswith("not pinned: ")
    with operator_of(lab, None, f"--runtime-image={NEW}") as upgraded:
        two_resyncs(upgraded)
        assert [pod["metadata"]["uid"] for pod in lab.pods("pulled")] == [pulled["metadata"]["uid"]]
        lab.delete_pod(pulled)
        lab.end(loaded, exit_code=1)
        (again,), (unpinned,) = lab.runs("pulled", attempt=2), lab.runs("loaded", attempt=2)
        assert (image(again), image(unpinned)) == (f"{OLD}@{DIGEST}", OLD)
        assert manifest_of(lab, again) == manifest
        pinned = lab.get("pulled")["status"]["pinned"]
        assert (pinned["image"], pinned["contractVersion"]) == (OLD, VERSION)
        lab.succeed("pulled", attempt=2)
        (evaluating,) = lab.runs("pulled", "table")
        assert image(evaluating) == f"{OLD}@{DIGEST}"
        lab.submit(job("fresh", sft(nodes=1)))
        (fresh,) = lab.runs("fresh")
        assert image(fresh) == NEW


def test_a_tool_keeps_its_image_while_a_job_that_has_started_calls_it(namespace: Namespace) -> None:
    lab = Lab(namespace)
    lab.prepare()
    with operator_of(lab, None, "--tool-image=*=registry.example.com/tool:1"):
        for name in ("used", "idle", "named"):
            spec = {"image": "registry.example.com/mine:1"} if name == "named" else {}
            namespace.apply(tool(name, **spec))
            tool_serves(namespace, name)
        lab.submit(job("asks", sft(nodes=1), tools=[{"name": "used"}, {"name": "named"}]))
        lab.runs("asks")
    servers = namespace.list("pods", selector="thinkimg.dev/tool=used")
    with operator_of(lab, None, "--tool-image=*=registry.example.com/tool:2") as upgraded:
        wait_for("it is held", lambda: accepted(lab, "used", "HeldByJobs")[:2] == ("True", "JobsUnderWay"))
        message = accepted(lab, "used", "HeldByJobs")[2]
        assert "keeps registry.example.com/tool:1 until these jobs are over: asks." in message
        wait_for("the others", lambda: status_of_tool(lab, "idle")["image"] == "registry.example.com/tool:2")
        namespace.kubectl("scale", "visiontool/used", "--replicas=2")
        two_resyncs(upgraded)
        assert uids(servers) <= uids(namespace.list("pods", selector="thinkimg.dev/tool=used"))
        assert status_of_tool(lab, "used")["image"] == "registry.example.com/tool:1"
        assert accepted(lab, "named", "HeldByJobs") == ("", "", "")
        lab.succeed("asks")
        wait_for("it is let go", lambda: status_of_tool(lab, "used")["image"] == "registry.example.com/tool:2")
        assert accepted(lab, "used", "HeldByJobs")[:2] == ("False", "NotHeld")


def test_a_manifest_that_was_deleted_is_not_written_anew_as_another(namespace: Namespace) -> None:
    lab = Lab(namespace)
    lab.prepare()
    with operator_of(lab, None):
        lab.namespace.apply(tool("reader"))
        lab.submit(job("bare", sft(nodes=1), tools=[{"name": "reader"}]))
        (pod,) = lab.runs("bare")
        manifest = manifest_of(lab, pod)
        lab.namespace.kubectl("delete", "configmap", manifest["metadata"]["name"])
        lab.namespace.apply(tool("reader", callTimeoutSeconds=17))
        lab.end(pod, exit_code=1)
        message = lab.comes_to("bare", "Accepted", "False", "Refused")
        assert "would be another if written anew. Restore it from a backup" in message
        metadata = {key: manifest["metadata"][key] for key in ("name", "labels", "ownerReferences")}
        lab.namespace.apply({**manifest, "metadata": metadata})
        lab.namespace.kubectl("annotate", "toolrljob", "bare", "example.com/look=again")  # or wait for 30 s
        (again,) = lab.runs("bare", attempt=2)
        assert manifest_of(lab, again)["data"] == manifest["data"]


def test_a_job_that_the_release_before_started_goes_on_under_its_names(namespace: Namespace, before_uids: Path) -> None:
    lab = Lab(namespace)
    lab.prepare()
    with operator_of(lab, before_uids, f"--runtime-image={OLD}"):
        lab.submit(job("going", sft(), table()))
        before = lab.runs("going")
        assert [body["metadata"]["name"] for body in lab.jobs("going")] == ["going-sft-1"]
    manifest = manifest_of(lab, before[0])
    with operator_of(lab, None, f"--runtime-image={NEW}") as upgraded:
        two_resyncs(upgraded)
        assert uids(lab.pods("going")) == uids(before)
        status = lab.get("going")["status"]
        assert status["names"] == {"service": "going", "manifest": "going-manifest"}
        assert status["pinned"]["image"] == OLD
        lab.end(before[0], exit_code=1)
        again = lab.runs("going", attempt=2)
        assert re.fullmatch(r"going-sft-2-[0-9a-f]{5}", lab.stage("going", "sft")["jobName"])
        assert {(image(pod), pod["spec"]["subdomain"]) for pod in again} == {(OLD, "going")}
        assert manifest_of(lab, again[0]) == manifest
        lab.succeed("going", attempt=2)
        lab.succeed("going", "table")
        lab.comes_to("going", "Complete", "True", "AllStagesSucceeded")


def uids(objects: list[Object]) -> set[str]:
    return {body["metadata"]["uid"] for body in objects}

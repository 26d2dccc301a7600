"""ToolRLJobs on a real API server: stages in order, failures, suspension, deadlines, and what is said about them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from thinkimg_operator.kinds import KINDS
from thinkimg_operator.toolrljob.advance import SIDECAR_PATIENCE

from tests.support.cluster.joblab import CLAIM, JOBS, ROW, Lab, job, job_namespace, sft, table, watched, words
from tests.support.cluster.testcluster import Cluster, KubectlError, wait_for


@pytest.fixture(scope="module")
def lab(cluster: Cluster) -> Iterator[Lab]:
    with job_namespace(cluster, "toolrljob", ["--resync-seconds=5"]) as lab:
        yield lab


def tool(name: str, **spec: Any) -> dict[str, Any]:
    kind = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool"}
    return {**kind, "metadata": {"name": name}, "spec": {"tool": "OCR", **spec}}


def container(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]["containers"][0]
    return found


def slow(**more: Any) -> dict[str, Any]:
    """A patch that keeps simulated pods from becoming ready."""
    return {"podTemplatePatch": {"metadata": {"annotations": {"sim.thinkimg.dev/ready-after": "1h"}}}, **more}


# ---- the way it should go --------------------------------------------------------------------------------------------


def _names(lab: Lab, service: str) -> list[str | None]:
    """Host names that DNS knows below a headless Service."""
    slices = lab.namespace.list("endpointslices", selector=f"kubernetes.io/service-name={service}")
    return [endpoint.get("hostname") for body in slices for endpoint in body.get("endpoints") or []]


def test_a_job_waits_for_its_tools_runs_its_stages_and_shows_its_results(lab: Lab) -> None:
    lab.namespace.apply(tool("reader", replicas=0))
    lab.submit(job("whole", sft(), table(), tools=[{"name": "reader"}]))
    lab.comes_to("whole", "ToolsReady", "False", "ToolNotAvailable")
    why = "waiting for reader: There are no servers, as spec.replicas is 0. Set it to 1 or more to use the tool."
    wait_for("it says why", lambda: lab.condition("whole", "ToolsReady")[2] == why)
    assert lab.jobs("whole") == []
    lab.namespace.kubectl("scale", "visiontool/reader", "--replicas=1")
    first, second = lab.runs("whole")
    service, attempt = lab.get("whole")["status"]["names"]["service"], lab.stage("whole", "sft")["jobName"]
    assert first["metadata"]["name"].startswith(f"{attempt}-0-")
    assert (first["spec"]["hostname"], first["spec"]["subdomain"]) == (f"{attempt}-0", service)
    variables = {v["name"]: v.get("value") for v in container(second)["env"]}
    assert variables["PET_MASTER_ADDR"] == f"{attempt}-0.{service}"
    wait_for("rank 0 has its name, and no other pod has one", lambda: _names(lab, service) == [f"{attempt}-0"])
    lab.succeed("whole")
    (evaluating,) = lab.runs("whole", "table")
    given = {v["name"]: v.get("value") for v in container(evaluating)["env"]}
    assert given["THINKIMG_TOOL_ENDPOINTS"] == f"dns+http://reader-pods.{lab.name}.svc:8000"
    lab.succeed("whole", "table", results=[ROW])
    lab.comes_to("whole", "Complete", "True", "AllStagesSucceeded")
    status = lab.get("whole")["status"]
    assert status["results"] == [ROW]
    assert [(s["name"], s["state"], s["attempt"]) for s in status["stages"]] == [
        ("sft", "Succeeded", 1),
        ("table", "Succeeded", 1),
    ]
    assert [reason for reason, _ in lab.events("whole")] == [
        "StageStarted",
        "StageSucceeded",
        "StageStarted",
        "StageSucceeded",
        "Complete",
    ]


def test_its_stages_find_manifest_names_and_storage(lab: Lab) -> None:
    lab.submit(job("found", code={"configMapRef": {"name": "rewards"}}))
    message = lab.comes_to("found", "PodsReady", "False", "CodeNotFound")
    assert message == "there is no ConfigMap rewards in this namespace; create it, or correct spec.code.configMapRef"
    lab.namespace.kubectl("create", "configmap", "rewards", "--from-literal=mine.py=")
    (first, _) = lab.runs("found")
    config = lab.namespace.get("configmap", lab.get("found")["status"]["names"]["manifest"])
    assert config["immutable"]
    assert yaml.safe_load(config["data"]["manifest.yaml"])["spec"]["checkpoint"] == {"everySteps": 50, "keep": 3}
    name = lab.get("found")["status"]["names"]["service"]
    service = lab.namespace.get("service", name)
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    claims = [v["persistentVolumeClaim"]["claimName"] for v in first["spec"]["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [CLAIM]
    lab.namespace.kubectl("delete", "service", name)
    wait_for("a new Service", lambda: lab.namespace.get("service", name))


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_a_claim_that_is_made_is_kept_unless_it_is_to_be_deleted(lab: Lab, policy: str) -> None:
    name = f"claims-{policy.lower()}"
    storage = {"size": "1Gi", "accessModes": ["ReadWriteMany"], "retentionPolicy": policy}
    lab.submit(job(name, storage=storage))
    lab.comes_to(name, "PodsReady", "False", "Unschedulable")  # nobody makes volumes here
    claim = lab.namespace.get("persistentvolumeclaim", f"{name}-storage")
    assert claim["spec"]["resources"]["requests"] == {"storage": "1Gi"}
    assert ("ownerReferences" in claim["metadata"]) == (policy == "Delete")


def test_progress_comes_from_rank_0s_log(lab: Lab) -> None:
    lab.submit(job("shown", sft(nodes=1)))
    pod = wait_for("a pod", lambda: next(iter(lab.pods("shown")), None))
    saved = {"step": 50, "path": "runs/shown/stages/sft/checkpoint-50", "time": "2026-01-01T00:00:00Z"}
    line = {"stage": "sft", "step": 60, "total_steps": 300, "loss": 0.5, "checkpoint": saved}
    lab.say(pod, "loading", json.dumps(line), "noise")
    stage = wait_for("progress", lambda: (s := lab.stage("shown", "sft")).get("progress") and s)
    assert stage["progress"]["step"] == 60
    assert stage["progress"]["totalSteps"] == 300
    assert stage["progress"]["metrics"] == [{"name": "loss", "value": "0.5"}]
    assert stage["checkpoint"] == saved


def test_a_stage_of_another_contract_succeeds_without_its_figures_and_it_is_told(lab: Lab) -> None:
    lab.submit(job("newer", sft(nodes=1)))
    lab.runs("newer")
    lab.succeed("newer", contract=99, results=[{"model": "sft", "accuracy": "0.778"}])
    lab.comes_to("newer", "Complete", "True", "AllStagesSucceeded")
    ((_, note),) = [event for event in lab.events("newer") if event[0] == "NotUnderstood"]
    assert note.startswith("stage sft: the stage's image speaks version 99 of the contract")
    assert not lab.get("newer")["status"].get("results")


def test_a_sidecar_that_outlives_its_stage_is_ended_and_named(lab: Lab) -> None:
    """A mesh's proxy as an ordinary container: the kubelet leaves the pod Running for as long as it runs."""
    proxy = {"containers": [{"name": "istio-proxy", "image": "proxy"}]}
    lab.submit(job("meshed", sft(nodes=1), podTemplatePatch={"spec": proxy}))
    (pod,) = lab.runs("meshed")
    ended = (datetime.now(UTC) - SIDECAR_PATIENCE + timedelta(seconds=5)).isoformat()
    stage = {"exitCode": 0, "reason": "Completed", "finishedAt": ended, "message": words("sft")}
    known = {"image": "", "imageID": "", "restartCount": 0}
    containers = [
        {**known, "name": "stage", "ready": False, "state": {"terminated": stage}},
        {**known, "name": "istio-proxy", "ready": True, "state": {"running": {"startedAt": ended}}},
    ]
    unready = [{"type": type_, "status": "False"} for type_ in ("Ready", "ContainersReady")]
    seen = {"conditions": unready, "containerStatuses": containers}
    status = json.dumps({"status": seen})
    lab.namespace.kubectl(
        "patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=strategic", "-p", status
    )
    lab.comes_to("meshed", "Complete", "True", "AllStagesSucceeded")
    assert ("SidecarsEnded", "stage sft is done; istio-proxy ran on and is ended") in lab.events("meshed")
    wait_for("its pod is gone", lambda: lab.pods("meshed") == [])


# ---- failures --------------------------------------------------------------------------------------------------------


def test_any_failed_pod_restarts_all_and_only_so_often(lab: Lab) -> None:
    lab.submit(job("failing", failurePolicy={"maxRestarts": 1}))
    lab.end(lab.runs("failing")[1], exit_code=1)
    lab.end(lab.runs("failing", attempt=2)[0], exit_code=70, message=words("sft", "Failed", message="the disk is gone"))
    message = lab.comes_to("failing", "Failed", "True", "RestartsExhausted")
    assert re.match(r"all 1 restarts are used: stage sft, attempt 2: pod failing-sft-2-\w{5}-0-", message)
    assert message.endswith("ended with exit code 70, infrastructure: the disk is gone")
    assert lab.get("failing")["status"]["restarts"] == 1
    reasons = [reason for reason, _ in lab.events("failing")]
    assert reasons == ["StageStarted", "AttemptFailed", "StageRestarting", "AttemptFailed", "Failed"]
    wait_for("the other pod ends", lambda: all(p["status"]["phase"] == "Failed" for p in lab.pods("failing")))
    assert lab.pods("failing"), "the pods stay, for their logs to be read"


def test_the_users_error_is_not_tried_again(lab: Lab) -> None:
    lab.submit(job("wrong"))
    said = words("sft", "Failed", message="spec.data.train.uri: there is no such file")
    lab.end(lab.runs("wrong")[0], exit_code=2, message=said)
    message = lab.comes_to("wrong", "Failed", "True", "UserError")
    assert message.endswith("exit code 2, the user's error: spec.data.train.uri: there is no such file")
    assert len(lab.jobs("wrong")) == 1


def test_a_rule_can_end_the_job_or_forgive(lab: Lab) -> None:
    rules = [
        {"action": "RestartUncounted", "onPodReasons": ["OOMKilled"]},
        {"action": "Fail", "onExitCodes": {"operator": "In", "values": [9]}},
    ]
    lab.submit(job("ruled", failurePolicy={"maxRestarts": 0, "rules": rules}))
    lab.end(lab.runs("ruled")[0], exit_code=137, reason="OOMKilled")
    lab.end(lab.runs("ruled", attempt=2)[0], exit_code=9)
    lab.comes_to("ruled", "Failed", "True", "FailedByRule")
    assert lab.get("ruled")["status"]["restarts"] == 0


def test_deleted_and_evicted_pods_restart_without_counting(lab: Lab) -> None:
    lab.submit(job("moved", failurePolicy={"maxRestarts": 0}))
    lab.delete_pod(lab.runs("moved")[1])
    pod = lab.runs("moved", attempt=2)[0]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["metadata"]["name"]}}
    lab.create(f"{lab.pod_path(pod)}/eviction", eviction)
    lab.runs("moved", attempt=3)
    assert lab.get("moved")["status"]["restarts"] == 0
    notes = [note for reason, note in lab.events("moved") if reason == "AttemptFailed"]
    assert "(Deleted)" in notes[0]
    assert "Drained)" in notes[1], "alone, or after Deleted: as it was seen, marked or already going"


def test_a_deleted_job_of_an_attempt_restarts_too(lab: Lab) -> None:
    lab.submit(job("jobless"))
    lab.runs("jobless")
    lab.namespace.kubectl("delete", "job", lab.stage("jobless", "sft")["jobName"], "--wait=false")
    lab.runs("jobless", attempt=2)


def test_the_next_attempt_waits_for_the_last_pod_and_for_a_pause_from_the_second_on(lab: Lab) -> None:
    policy = {"backoffSeconds": 3, "maxRestarts": 5}
    stuck = {"metadata": {"annotations": {"sim.thinkimg.dev/terminate-after": "2s"}}}
    with watched(lab) as (jobs, pods):
        lab.submit(job("paused", failurePolicy=policy, podTemplatePatch=stuck))
        lab.end(lab.runs("paused")[1], exit_code=1)
        lab.end(lab.runs("paused", attempt=2)[1], exit_code=1)
        lab.runs("paused", attempt=3)
    made = {seen.attempt[2]: seen.at for seen in jobs.sightings if seen.type == "ADDED"}
    gone = {seen.attempt[2]: seen.at for seen in pods.sightings if seen.type == "DELETED"}
    failed = {seen.attempt[2]: seen.at for seen in reversed(pods.sightings) if seen.unwell}
    assert 0 <= made[2] - gone[1] < 2, "none before the first restart"
    assert gone[1] - failed[1] > 1.5, "its other pod took its time"
    assert made[3] > gone[2]
    assert made[3] - failed[2] > 2.0, "whole seconds of status: up to one less than the pause"


def test_a_pod_that_does_not_go_is_removed_by_force(lab: Lab) -> None:
    stuck = {"metadata": {"annotations": {"sim.thinkimg.dev/terminate-after": "1h"}}}
    grace = {"spec": {"terminationGracePeriodSeconds": 1}}
    lab.submit(job("forced", failurePolicy={"nodeLostSeconds": 2}, podTemplatePatch=stuck | grace))
    lab.end(lab.runs("forced")[0], exit_code=1)
    lab.runs("forced", attempt=2)
    assert [reason for reason, _ in lab.events("forced")].count("PodForceDeleted") >= 1
    lab.namespace.kubectl("delete", "toolrljob", "forced")
    lab.namespace.kubectl("delete", "pods", "--selector=thinkimg.dev/job=forced", "--force", "--wait=false")


# ---- suspension and time ---------------------------------------------------------------------------------------------


def test_suspending_stops_the_pods_and_resuming_goes_on(lab: Lab) -> None:
    lab.submit(job("asleep"))
    lab.runs("asleep")
    lab.change("asleep", suspend=True)
    lab.comes_to("asleep", "Suspended", "True", "Suspended")
    assert lab.condition("asleep", "PodsReady")[:2] == ("Unknown", "Suspended")
    wait_for("no pod is left", lambda: not lab.pods("asleep"))
    lab.change("asleep", suspend=False)
    lab.runs("asleep", attempt=2)
    assert lab.get("asleep")["status"]["restarts"] == 0
    assert [r for r, _ in lab.events("asleep") if r in ("Suspended", "Resumed")] == ["Suspended", "Resumed"]


def test_a_job_made_suspended_starts_nothing(lab: Lab) -> None:
    lab.submit(job("unborn", suspend=True))
    lab.comes_to("unborn", "Suspended", "True", "Suspended")
    time.sleep(1)
    assert lab.jobs("unborn") == []
    lab.change("unborn", suspend=False)
    lab.succeed("unborn")
    lab.comes_to("unborn", "Complete", "True", "AllStagesSucceeded")


def test_deadlines_end_a_job_and_its_pods(lab: Lab) -> None:
    lab.submit(job("long", activeDeadlineSeconds=3))
    lab.submit(job("late", **slow(startDeadlineSeconds=3)))
    message = lab.comes_to("long", "Failed", "True", "ActiveDeadlineExceeded")
    assert message == "it was active for more than 3 s; raise spec.activeDeadlineSeconds, or ask for less"
    message = lab.comes_to("late", "Failed", "True", "StartDeadlineExceeded")
    assert message == "stage sft was not ready after 3 s: stage sft: 0 of 2 pods are ready"
    wait_for("no pod is left", lambda: not lab.pods("long") + lab.pods("late"))


def test_a_finished_job_goes_after_its_time_and_the_claim_stays(lab: Lab) -> None:
    lab.submit(job("brief", ttlSecondsAfterFinished=2))
    lab.succeed("brief")
    lab.comes_to("brief", "Complete", "True", "AllStagesSucceeded")
    wait_for("it is gone", lambda: lab.get("brief") is None)
    wait_for("with all it had", lambda: not lab.pods("brief") and lab.namespace.get("service", "brief") is None)
    assert lab.namespace.get("persistentvolumeclaim", CLAIM)


def test_a_queue_decides_when_it_starts(lab: Lab) -> None:
    body = job("queued")
    body["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "team"}
    lab.submit(body)
    lab.comes_to("queued", "PodsReady", "False", "WaitingForQuota")
    (attempt,) = lab.jobs("queued")
    assert attempt["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    path = f"/apis/batch/v1/namespaces/{lab.name}/jobs/{lab.stage('queued', 'sft')['jobName']}"
    lab.patch(path, {"spec": {"suspend": False}})
    lab.runs("queued")
    lab.patch(path, {"spec": {"suspend": True}})  # evicted: another job is more important
    lab.comes_to("queued", "PodsReady", "False", "WaitingForQuota")
    lab.patch(path, {"spec": {"suspend": False}})
    lab.runs("queued")
    assert lab.stage("queued", "sft")["attempt"] == 1, "what the queue stops is no failure"


def test_another_controllers_job_is_left_alone(lab: Lab) -> None:
    lab.submit(job("theirs", managedBy="example.com/other"))
    time.sleep(1.5)
    assert "status" not in lab.get("theirs")


# ---- mistakes, within ten seconds ------------------------------------------------------------------------------------


def test_an_unknown_tool_is_named_with_the_one_that_was_meant(lab: Lab) -> None:
    lab.namespace.apply(tool("segmenter"))
    lab.submit(job("typo", tools=[{"name": "segmentor"}]))
    message = lab.comes_to("typo", "ToolsReady", "False", "ToolNotFound")
    assert message == (
        'there is no VisionTool segmentor in this namespace. Did you mean "segmenter"? '
        "Create it, or correct spec.tools."
    )
    assert lab.condition("typo", "PodsReady")[1] == "WaitingForTools"


def test_a_missing_claim_is_named_and_taken_when_it_comes(lab: Lab) -> None:
    lab.submit(job("claimless", storage={"claimName": "nowhere"}))
    message = lab.comes_to("claimless", "PodsReady", "False", "ClaimNotFound")
    assert "there is no PersistentVolumeClaim nowhere in this namespace; create it" in message


def test_gpus_that_no_node_has_show(lab: Lab) -> None:
    lab.submit(job("hungry", sft(resources={"limits": {"nvidia.com/gpu": 64}})))
    message = lab.comes_to("hungry", "PodsReady", "False", "Unschedulable")
    assert "Insufficient nvidia.com/gpu" in message
    assert "Ask for less in spec.stages[].resources, or add nodes." in message
    assert "Insufficient nvidia.com/gpu" in lab.namespace.kubectl("describe", "toolrljob", "hungry")


def test_a_wrong_trainer_argument_is_refused_with_its_place(lab: Lab) -> None:
    lab.submit(job("args", {**sft(), "sft": {"args": {"learning_rates": 1}}}))
    message = lab.comes_to("args", "Accepted", "False", "Invalid")
    assert message.startswith("spec.stages[0].sft.args.learning_rates: ")
    assert [reason for reason, _ in lab.events("args")] == ["Refused"]


def test_from_must_name_an_earlier_stage(lab: Lab) -> None:
    with pytest.raises(KubectlError, match="from"):
        lab.namespace.apply(job("order", sft("one", **{"from": "two"}), sft("two")))


def test_a_patch_that_cannot_be_is_refused_until_it_is_right(lab: Lab) -> None:
    broken = {"spec": {"containers": [{"name": "stage", "image": None}]}}
    lab.submit(job("patched", podTemplatePatch=broken))
    message = lab.comes_to("patched", "Accepted", "False", "Refused")
    assert "spec.template.spec.containers[0].image: Required value" in message
    lab.patch(f"{JOBS.format(lab.name)}/patched", {"spec": {"podTemplatePatch": None}})
    lab.runs("patched")
    lab.submit(job("misspelt", podTemplatePatch={"spec": {"nodeselector": {"gpu": "a100"}}}))
    message = lab.comes_to("misspelt", "Accepted", "False", "Refused")
    assert 'unknown field "spec.template.spec.nodeselector"' in message
    assert lab.jobs("misspelt") == []
    assert lab.condition("patched", "Accepted")[:2] == ("True", "Valid")


@pytest.mark.parametrize(
    ("kind", "holds"),
    [
        ("Service", {"spec": {"ports": [{"port": 5432}]}}),
        ("NetworkPolicy", {"spec": {"podSelector": {"matchLabels": {"app": "theirs"}}}}),
        ("ConfigMap", {"data": {"important": "yes"}}),
    ],
)
def test_what_has_the_name_of_a_child_and_is_somebody_elses_is_left_alone(
    lab: Lab, kind: str, holds: dict[str, Any]
) -> None:
    name = f"app-{kind.lower()}"
    lab.submit(job(name, suspend=True))
    child = f"{name}-{lab.get(name)['metadata']['uid'][:5]}"
    theirs = {"apiVersion": KINDS[kind].api_version, "kind": kind, "metadata": {"name": child}, **holds}
    lab.namespace.apply(theirs)
    before = lab.namespace.get(kind, child)
    lab.change(name, suspend=False)
    message = lab.comes_to(name, "Accepted", "False", "Refused")
    taken = f"{kind} {lab.name}/{child} exists already and is not ours"
    assert message == f"{taken}. Delete that {kind}, or rename the job."
    assert "startTime" not in lab.get(name)["status"]
    assert lab.jobs(name) == []
    lab.namespace.kubectl("delete", "toolrljob", name, "--cascade=foreground", "--wait")
    assert lab.namespace.get(kind, child) == before


def test_a_job_of_the_name_of_an_attempt_that_is_somebody_elses_is_left_alone(lab: Lab) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "theirs", "image": "theirs"}]}}
    path = f"/apis/batch/v1/namespaces/{lab.name}/jobs"
    lab.submit(job("taken", suspend=True))
    lab.submit(job("taken-later"))
    first, second = (lab.get(name)["metadata"]["uid"][:5] for name in ("taken", "taken-later"))
    names = f"taken-sft-1-{first}", f"taken-later-sft-2-{second}"
    for name in names:
        lab.create(path, {"metadata": {"name": name}, "spec": {"template": template}})
    lab.change("taken", suspend=False)
    message = lab.comes_to("taken", "Accepted", "False", "Refused")
    assert message == (
        f'jobs.batch "{names[0]}" already exists, and it is somebody else\'s. Delete it, or rename the job.'
    )
    assert "startTime" not in lab.get("taken")["status"]
    lab.end(lab.runs("taken-later")[0], exit_code=1)
    lab.comes_to("taken-later", "Accepted", "False", "Refused")
    lab.namespace.kubectl("delete", "job", names[1])
    lab.namespace.kubectl("annotate", "toolrljob", "taken-later", "example.com/look=again")  # or wait for 30 s
    lab.runs("taken-later", attempt=2)


def test_gang_scheduling_is_refused_instead_of_ignored(lab: Lab) -> None:
    lab.submit(job("gang", scheduling={"gang": "Volcano"}))
    lab.comes_to("gang", "Accepted", "False", "NotSupported")
    assert lab.condition("gang", "PodsReady")[1] == "NotStarted"


@pytest.mark.parametrize(
    ("waiting", "reason"),
    [("ImagePullBackOff", "ImagePullFailed"), ("CreateContainerConfigError", "ContainerNotStarted")],
)
def test_what_keeps_a_container_from_starting_shows(lab: Lab, waiting: str, reason: str) -> None:
    name = f"stuck-{reason.lower()}"
    lab.submit(job(name, **slow()))
    pods = wait_for("pods", lambda: len(pods := lab.pods(name)) == 2 and pods)
    state = {"waiting": {"reason": waiting, "message": "so it is"}}
    statuses = [{"name": "stage", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}]
    lab.patch(f"{lab.pod_path(pods[1])}/status", {"status": {"containerStatuses": statuses}})  # as the kubelet does
    message = lab.comes_to(name, "PodsReady", "False", reason)
    assert "so it is" in message


# ---- a dead node -----------------------------------------------------------------------------------------------------


def test_a_dead_node_ends_the_attempt_and_its_pods_are_given_up(lab: Lab) -> None:
    lab.submit(job("orphaned", failurePolicy={"nodeLostSeconds": 5, "maxRestarts": 0}))
    pods = lab.runs("orphaned")
    node = pods[0]["spec"]["nodeName"]
    with watched(lab) as (jobs, seen):
        lab.cluster.stop_heartbeats(node)
        try:
            lab.runs("orphaned", attempt=2, seconds=120)
        finally:
            lab.cluster.resume_heartbeats(node)
    wait_for("the node is back, with its address", lambda: node_is_well(lab, node))
    mine = [s for s in seen.sightings if s.attempt[:2] == ("orphaned", "sft")]
    unwell = next(s.at for s in mine if s.unwell)
    torn_down = next(s.at for s in jobs.sightings if s.attempt == ("orphaned", "sft", 1) and s.deleting)
    assert 4 < torn_down - unwell < 5 + 3  # the API's times have whole seconds
    assert "PodForceDeleted" in [reason for reason, _ in lab.events("orphaned")]
    assert lab.get("orphaned")["status"]["restarts"] == 0
    new = lab.pods("orphaned", attempt=2)
    assert all(pod["spec"]["nodeName"] != node for pod in new)


def test_a_node_that_comes_back_in_time_restarts_nothing(lab: Lab) -> None:
    lab.submit(job("patient", failurePolicy={"nodeLostSeconds": 20}))
    before = lab.runs("patient")
    others = [c for c in before[1]["status"]["conditions"] if c["type"] != "Ready"]
    for ready, reason in (("False", "NodeLost"), ("True", "AllReady")):  # the node controller says it, then the kubelet
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        conditions = [*others, {"type": "Ready", "status": ready, "lastTransitionTime": now}]
        lab.patch(f"{lab.pod_path(before[1])}/status", {"status": {"conditions": conditions}})
        message = lab.comes_to("patient", "PodsReady", ready, reason)
        assert (before[1]["metadata"]["name"] in message) == (ready == "False")
    assert [pod["metadata"]["uid"] for pod in lab.pods("patient")] == [pod["metadata"]["uid"] for pod in before]
    assert lab.stage("patient", "sft")["attempt"] == 1


def node_is_well(lab: Lab, name: str) -> bool:
    """Ready, and with an address by which logs are read."""
    status = lab.cluster.request("GET", f"/api/v1/nodes/{name}")[1]["status"]
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status["conditions"])
    return ready and any(address["type"] == "InternalIP" for address in status.get("addresses", []))

"""What is said about a VisionTool: pure, the same for the same world."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thinkimg_operator.conditions import find_condition
from thinkimg_operator.visiontool.reconcile import transitions
from thinkimg_operator.visiontool.status import (
    REASONS,
    DeploymentState,
    PodProblem,
    Refusal,
    deployment_state,
    pod_problem,
    refused_status,
    status_of,
)

from thinkimg.api.v1alpha1 import VisionTool

QUICK = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
READY = DeploymentState(observed=True, desired=2, replicas=2, updated=2, ready=2)


def tool(**spec) -> VisionTool:
    return VisionTool.model_validate(
        {"metadata": {"name": "ocr", "namespace": "team"}, "spec": {"tool": "OCR", **spec}}
    )


def status(state, problem=None, previous=None, now=NOON, **spec):
    return status_of(tool(**spec), "image:1", 3, state, problem, previous or {}, now)


def reasons(found) -> dict[str, str]:
    return {c["type"]: f"{c['status']} {c['reason']}" for c in found["conditions"]}


states = st.builds(
    DeploymentState,
    st.booleans(),
    *(st.integers(0, 3) for _ in range(4)),
    st.sampled_from(["", "it took too long."]),
    st.sampled_from(["", "exceeded quota"]),
)
problems = st.none() | st.builds(PodProblem, st.sampled_from(["Unschedulable", "Crashing"]), st.just("Why. Do this."))


@QUICK
@given(states, problems, states, problems)
def test_saying_it_twice_changes_nothing_and_every_reason_is_declared(before, first, state, problem):
    previous = status(before, first)
    once = status(state, problem, previous)
    assert status(state, problem, once, NOON + timedelta(hours=1)) == once
    for condition in once["conditions"]:
        assert condition["reason"] in REASONS[condition["type"]]
    assert transitions({"status": once}, once) == []


def test_ready_servers_make_it_available_also_while_others_start():
    assert reasons(status(READY, replicas=2)) == {
        "Accepted": "True Valid",
        "Available": "True ServersReady",
        "Progressing": "False Settled",
    }
    half = DeploymentState(observed=True, desired=2, replicas=3, updated=1, ready=2)
    assert reasons(status(half, replicas=2))["Available"] == "True ServersReady"
    assert reasons(status(half, replicas=2))["Progressing"] == "True RollingOut"


def test_without_servers_it_says_why():
    none = DeploymentState(observed=True, desired=1, replicas=1, updated=1)
    zero = DeploymentState(observed=True)
    assert reasons(status(none))["Available"] == "False NoServerReady"
    assert reasons(status(None))["Progressing"] == "True RollingOut"
    assert reasons(status(zero, replicas=0)) == {
        "Accepted": "True Valid",
        "Available": "False ScaledToZero",
        "Progressing": "False Settled",
    }


@pytest.mark.parametrize(
    ("state", "problem", "expected"),
    [
        (DeploymentState(observed=True, desired=1, refused="no quota"), None, "True PodsRefused"),
        (DeploymentState(observed=True, desired=1, stuck="late."), None, "False DeadlineExceeded"),
        (DeploymentState(observed=True, desired=1, stuck="late."), PodProblem("Crashing", "x"), "True Crashing"),
    ],
)
def test_the_most_telling_problem_is_said(state, problem, expected):
    assert reasons(status(state, problem))["Progressing"] == expected


def test_a_refused_change_leaves_what_runs_available():
    running = status(READY, replicas=2)
    found = refused_status(Refusal("Invalid", "spec.tool: wrong."), 4, running, NOON)
    assert reasons(found) == {
        "Accepted": "False Invalid",
        "Available": "True ServersReady",
        "Progressing": "False NotAccepted",
    }
    assert found["readyReplicas"] == 2
    assert reasons(refused_status(Refusal("Invalid", "wrong"), 1, {}, NOON))["Available"] == "False NotAccepted"


def test_events_tell_transitions_once():
    created = {"status": {}}
    first = status(DeploymentState(observed=True, desired=1))
    assert transitions(created, first) == []
    up = status(READY, previous=first)
    (event,) = transitions({"status": first}, up)
    assert event[:3] == ("ServersReady", "The tool answers calls.", False)
    down = status(DeploymentState(observed=True, desired=2, replicas=2), previous=up, now=NOON + timedelta(minutes=1))
    (event,) = transitions({"status": up}, down)
    assert (event[0], event[2]) == ("NoServerReady", True)
    again = status(READY, previous=down, now=NOON + timedelta(minutes=2))
    (second,) = transitions({"status": down}, again)
    assert second[3] != transitions({"status": first}, up)[0][3]


def deployment(conditions=(), observed=2, **counts) -> dict:
    body = {"metadata": {"generation": 2}, "spec": {"replicas": 2}}
    return {**body, "status": {"observedGeneration": observed, "conditions": list(conditions), **counts}}


def test_a_deployment_is_settled_when_all_of_the_current_spec_are_ready():
    counts = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2}
    assert deployment_state(deployment(**counts)).settled
    assert not deployment_state(deployment(observed=1, **counts)).settled
    assert not deployment_state(deployment(**{**counts, "readyReplicas": 1})).settled
    assert not deployment_state({"metadata": {"generation": 1}, "spec": {"replicas": 0}}).settled


def test_a_deployments_complaints_are_kept():
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"}
    quota = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    state = deployment_state(deployment([late, quota]))
    assert (state.stuck, state.refused) == ("late", "exceeded quota")


def waiting(reason: str, message: str = "", last: dict | None = None) -> dict:
    state = {"state": {"waiting": {"reason": reason, "message": message}}, "lastState": last or {}}
    return {"metadata": {}, "status": {"containerStatuses": [state]}}


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no GPU."}
PENDING = {"metadata": {}, "status": {"conditions": [UNSCHEDULABLE]}}
REFUSED = 'loading\n{"event": "failed", "family": "user", "field": "options", "message": "unknown field", "pid": 7}\n'
CRASHED = waiting("CrashLoopBackOff", "back-off", {"terminated": {"exitCode": 2, "message": REFUSED}})
SECRET = "Traceback ...\nKeyError: 'hf_canary'\n"
DIED = waiting("CrashLoopBackOff", "back-off", {"terminated": {"exitCode": 1, "reason": "Error", "message": SECRET}})


@pytest.mark.parametrize(
    ("pod", "reason", "text"),
    [
        (PENDING, "Unschedulable", "0/3 nodes: no GPU. Free or add nodes"),
        (waiting("ImagePullBackOff", "not found"), "ImagePullFailed", "Correct spec.image"),
        (waiting("CreateContainerConfigError", 'secret "hub" not found'), "ConfigurationMissing", "hub"),
        (CRASHED, "Crashing", "it ended with code 2: options: unknown field. See the log"),
        (DIED, "Crashing", "it ended with code 1: Error. See the log"),
    ],
)
def test_a_waiting_pod_tells_what_to_do(pod, reason, text):
    problem = pod_problem([{"metadata": {}, "status": {}}, pod])
    assert problem.reason == reason
    assert text in problem.message
    assert "canary" not in problem.message
    assert problem.reason in REASONS["Progressing"]


def test_a_tool_without_a_key_says_so():
    for auth, said in ((None, "The tool has no spec.auth"), ({"secretRef": {"name": "k", "key": "key"}}, None)):
        accepted = find_condition({"status": status(READY, auth=auth)}, "Accepted")
        assert (accepted["status"], accepted["reason"]) == ("True", "Valid")
        assert ("may call them" in accepted["message"]) == (said is not None)


def test_pods_that_start_or_go_are_no_problem():
    going = {**PENDING, "metadata": {"deletionTimestamp": "2026-11-23T12:00:00Z"}}
    assert pod_problem([going, waiting("ContainerCreating"), {"metadata": {}}]) is None


@QUICK
@given(st.permutations([PENDING, waiting("ErrImagePull", "b"), waiting("ErrImagePull", "a"), CRASHED]))
def test_the_order_of_pods_does_not_matter(pods):
    assert pod_problem(pods).reason == "Unschedulable"
    assert find_condition({"status": status(None, pod_problem(pods))}, "Progressing")["reason"] == "Unschedulable"

"""Reading pods and Jobs: what they say of an attempt."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thinkimg_operator.toolrljob.attempts import (
    Failure,
    failure_of,
    observe_job,
    observe_pod,
    overdue_at,
)
from thinkimg_operator.toolrljob.failure_policy import action_after, backoff_seconds

from thinkimg.api import FailurePolicy

UNSCHEDULED = {"type": "PodScheduled", "status": "False"}
T0 = "2026-01-01T00:00:00Z"
NEVER = datetime(2000, 1, 1, tzinfo=UTC)
"""No node has been away since then."""


def at(seconds: int) -> str:
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(phase: str = "Running", ready: bool = True, container: Any = None, **fields: Any) -> dict[str, Any]:
    """A pod of the API. `container`: state of the stage's container; `metadata` and `conditions` add to the rest."""
    state = container or {"running": {}}
    metadata = {
        "name": "demo-sft-2-1",
        "uid": "u",
        "creationTimestamp": T0,
        "labels": {"thinkimg.dev/stage": "sft", "thinkimg.dev/attempt": "2"},
        "annotations": {"batch.kubernetes.io/job-completion-index": "1"},
        **fields.pop("metadata", {}),
    }
    conditions = [
        {"type": "Ready", "status": str(ready), "lastTransitionTime": at(5)},
        *fields.pop("conditions", []),
    ]
    status = {
        "phase": phase,
        "conditions": conditions,
        "containerStatuses": [{"name": "stage", "ready": phase == "Running", "state": state}],
        **fields,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": status}


def disruption(reason: str) -> dict[str, Any]:
    return {"type": "DisruptionTarget", "status": "True", "reason": reason}


def ended(code: int, seconds: int = 9, **more: Any) -> dict[str, Any]:
    reason = "Error" if code else "Completed"
    return {"terminated": {"exitCode": code, "finishedAt": at(seconds), "reason": reason, **more}}


def test_a_running_pod_is_well() -> None:
    seen = observe_pod(pod())
    assert (seen.stage, seen.attempt, seen.index, seen.ready) == ("sft", 2, 1, True)
    assert seen.failed_at is None
    assert not seen.finished


def test_a_failed_pod_says_its_code_its_reason_and_its_last_words() -> None:
    seen = observe_pod(pod("Failed", False, ended(70, message='noise\n{"message": "the store is gone"}\n')))
    assert seen.exit_code == 70
    assert seen.finished
    failure = failure_of(None, [seen], NEVER)
    assert failure is not None
    assert failure.text == "pod demo-sft-2-1 ended with exit code 70, infrastructure: the store is gone"


def test_the_end_of_a_log_is_not_repeated_where_others_may_read_it() -> None:
    seen = observe_pod(pod("Failed", False, ended(1, message="Traceback ...\nKeyError: 'hf_canary'\n")))
    failure = failure_of(None, [seen], NEVER)
    assert failure is not None
    assert failure.text == "pod demo-sft-2-1 ended with exit code 1: its log says why"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (pod("Failed", False, ended(137, reason="OOMKilled")), "OOMKilled"),
        (pod("Failed", False, {"waiting": {}}, reason="Evicted", message="The node had low memory"), "Evicted"),
        (pod(metadata={"deletionTimestamp": at(70), "deletionGracePeriodSeconds": 60}), "Deleted"),
        (pod(conditions=[disruption("PreemptionByScheduler")]), "Preempted"),
        (pod(conditions=[disruption("EvictionByEvictionAPI")]), "Drained"),
    ],
)  # fmt: skip
def test_why_a_pod_ends_is_told_in_the_words_of_the_rules(body: dict[str, Any], reason: str) -> None:
    seen = observe_pod(body)
    assert reason in seen.reasons
    assert seen.failed_at is not None


def test_a_pod_that_succeeded_may_be_deleted() -> None:
    gone = {"deletionTimestamp": at(70), "deletionGracePeriodSeconds": 60}
    assert observe_pod(pod("Succeeded", False, ended(0), metadata=gone)).failed_at is None


def test_a_pod_whose_node_is_not_heard_of_has_failed_only_when_it_is_given_up() -> None:
    seen = observe_pod(pod(ready=False))
    assert (seen.failed_at, seen.reasons) == (None, frozenset())
    assert seen.lost_since is not None
    job = observe_job({"metadata": {"name": "j", "uid": "u", "creationTimestamp": T0}})
    assert failure_of(job, [seen], seen.lost_since - timedelta(seconds=1)) is None
    failure = failure_of(job, [seen], seen.lost_since)
    assert failure is not None
    assert failure.text == "pod demo-sft-2-1 failed (NodeLost)"


def test_a_pod_that_is_still_starting_is_not_lost() -> None:
    body = pod(ready=False)
    body["status"]["containerStatuses"][0]["ready"] = False
    assert observe_pod(body).lost_since is None


def test_deleting_a_pod_after_its_crash_does_not_excuse_the_crash() -> None:
    gone = {"deletionTimestamp": at(80), "deletionGracePeriodSeconds": 60}  # asked for at 20 s
    crashed = observe_pod(pod("Failed", False, ended(1, seconds=9), metadata=gone))
    stopped = observe_pod(pod("Failed", False, ended(1, seconds=25), metadata=gone))
    assert "Deleted" not in crashed.reasons
    assert "Deleted" in stopped.reasons


@pytest.mark.parametrize(
    ("condition", "state", "reason"),
    [
        ({**UNSCHEDULED, "reason": "Unschedulable", "message": "no gpu"}, None, "Unschedulable"),
        (None, {"waiting": {"reason": "ImagePullBackOff", "message": "no gpu"}}, "ImagePullBackOff"),
        (None, {"waiting": {"reason": "ContainerCreating"}}, None),
    ],
)  # fmt: skip
def test_what_keeps_a_pod_from_starting_is_seen(condition: Any, state: Any, reason: str | None) -> None:
    seen = observe_pod(pod("Pending", False, state, conditions=[condition] if condition else []))
    assert (seen.blocked and seen.blocked[0]) == reason


def test_a_jobs_failure_counts_when_no_pod_tells_one() -> None:
    body = {
        "metadata": {"name": "j", "uid": "u", "creationTimestamp": T0},
        "spec": {},
        "status": {"conditions": [{"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded"}]},
    }
    failure = failure_of(observe_job(body), [], NEVER)
    assert failure is not None
    assert failure.text == "its Job failed: BackoffLimitExceeded: "


def test_a_suspended_job_has_no_failure() -> None:
    body = {"metadata": {"name": "j", "uid": "u", "creationTimestamp": T0}, "spec": {"suspend": True}, "status": {}}
    gone = {"deletionTimestamp": at(70), "deletionGracePeriodSeconds": 60}
    assert failure_of(observe_job(body), [observe_pod(pod(metadata=gone))], NEVER) is None


def test_the_first_failure_decides_but_the_users_error_goes_before_it() -> None:
    first = observe_pod(pod("Failed", False, ended(1, seconds=9)))
    later = observe_pod(pod("Failed", False, ended(2, seconds=30)))
    failure = failure_of(None, [first, later], NEVER)
    assert failure is not None
    assert failure.user_error


def test_a_pod_that_is_deleted_because_another_failed_is_not_the_cause() -> None:
    failed = observe_pod(pod("Failed", False, ended(70, seconds=9)))
    gone = {"deletionTimestamp": at(69), "deletionGracePeriodSeconds": 60}  # asked for at 9 s
    deleted = pod(metadata=gone)
    deleted["metadata"]["annotations"] = {"batch.kubernetes.io/job-completion-index": "0"}
    failure = failure_of(None, [observe_pod(deleted), failed], NEVER)
    assert failure is not None
    assert failure.exit_code == 70


@given(codes=st.lists(st.sampled_from([1, 2, 70, 75, 137]), min_size=1, max_size=4), order=st.randoms())
def test_the_order_in_which_pods_are_seen_does_not_matter(codes: list[int], order: Any) -> None:
    pods = []
    for number, code in enumerate(codes):
        body = pod("Failed", False, ended(code, seconds=number // 2))  # two of them in the same second
        body["metadata"]["annotations"] = {"batch.kubernetes.io/job-completion-index": str(number)}
        pods.append(observe_pod(body))
    shuffled = list(pods)
    order.shuffle(shuffled)
    assert failure_of(None, pods, NEVER) == failure_of(None, shuffled, NEVER)


@given(
    code=st.one_of(st.none(), st.integers(1, 255)),
    reasons=st.frozensets(st.sampled_from(["Error", "Evicted", "Deleted", "NodeLost", "OOMKilled"])),
)
def test_the_users_error_is_never_repeated_and_everything_else_is(code: int | None, reasons: frozenset[str]) -> None:
    action = action_after(Failure("", reasons, code), "sft", FailurePolicy())
    assert (action == "Fail") == (code == 2)


@given(restart=st.integers(1, 1000), first=st.integers(0, 600), longest=st.integers(0, 3600))
def test_pauses_grow_and_stay_within_bounds(restart: int, first: int, longest: int) -> None:
    policy = FailurePolicy(backoff_seconds=min(first, longest), max_backoff_seconds=longest)
    pause, next_pause = backoff_seconds(restart, policy), backoff_seconds(restart + 1, policy)
    assert backoff_seconds(1, policy) == 0
    assert pause <= next_pause <= longest


def test_a_pod_is_given_up_when_its_node_or_its_end_is_overdue() -> None:
    assert overdue_at(observe_pod(pod(ready=False)), 120) is None  # nobody deletes it yet
    gone = {"deletionTimestamp": at(70), "deletionGracePeriodSeconds": 60}
    lost = overdue_at(observe_pod(pod(ready=False, metadata=gone)), 120)
    stuck = overdue_at(observe_pod(pod(metadata=gone)), 120)
    assert lost is not None
    assert stuck is not None
    assert lost.strftime("%M:%S") == "02:05"  # unready since 5 s
    assert stuck.strftime("%M:%S") == "03:10"  # should have been gone at 70 s


# ---- sidecars --------------------------------------------------------------------------------------------------------

SIDECARS: dict[str, tuple[dict[str, Any], bool]] = {
    "runs": ({"running": {}}, True),
    "is unready": ({"running": {}}, False),
    "has ended with 0": (ended(0), False),
    "crashed and starts again": (ended(1), False),
    "was stopped": (ended(143), False),
}
"""What a sidecar does: its state, and whether it is ready."""


def with_sidecar(native: bool, does: str, stage: Any = None, phase: str = "Running") -> dict[str, Any]:
    """A pod with a mesh's container beside the stage. `stage`: state of the stage's container; None: it runs."""
    state, ready = SIDECARS[does]
    seen = {"name": "istio-proxy", "ready": ready, "state": state}
    body = pod(phase, ready and stage is None, stage)
    body["status"]["containerStatuses"][0]["ready"] = stage is None
    if native:
        body["spec"]["initContainers"] = [{"name": "weights"}, {"name": "istio-proxy", "restartPolicy": "Always"}]
        body["status"]["initContainerStatuses"] = [{"name": "weights", "ready": True, "state": ended(0)}, seen]
    else:
        body["status"]["containerStatuses"].append(seen)
    return body


@pytest.mark.parametrize("does", SIDECARS)
@pytest.mark.parametrize("native", [True, False], ids=["native", "classic"])
def test_a_sidecar_decides_nothing_while_the_stage_runs(native: bool, does: str) -> None:
    seen = observe_pod(with_sidecar(native, does))
    assert seen.ready
    assert not seen.succeeded
    assert (seen.exit_code, seen.failed_at, seen.lost_since) == (None, None, None)


@pytest.mark.parametrize("code", [2, 70, 75])
@pytest.mark.parametrize("does", SIDECARS)
@pytest.mark.parametrize("native", [True, False], ids=["native", "classic"])
def test_the_stages_exit_code_counts_whatever_a_sidecar_says(native: bool, does: str, code: int) -> None:
    seen = observe_pod(with_sidecar(native, does, ended(code), "Failed"))
    assert seen.exit_code == code
    assert seen.failed_at is not None


@pytest.mark.parametrize("phase", ["Running", "Failed", "Succeeded"])
@pytest.mark.parametrize("does", SIDECARS)
@pytest.mark.parametrize("native", [True, False], ids=["native", "classic"])
def test_a_stage_that_ended_with_0_has_succeeded_whatever_a_sidecar_says(native: bool, does: str, phase: str) -> None:
    seen = observe_pod(with_sidecar(native, does, ended(0), phase))
    assert (seen.exit_code, seen.failed_at, seen.reasons, seen.succeeded) == (0, None, frozenset(), True)
    assert seen.lingering == (("istio-proxy",) if "running" in SIDECARS[does][0] else ())


def test_an_ordinary_init_container_that_fails_ends_the_pod() -> None:
    body = with_sidecar(True, "runs", {"waiting": {"reason": "PodInitializing"}}, "Failed")
    body["status"]["initContainerStatuses"][0]["state"] = ended(2, message='{"message": "no such revision"}')
    seen = observe_pod(body)
    assert seen.exit_code == 2
    assert failure_of(None, [seen], NEVER).user_error


def test_a_lost_node_is_seen_beside_a_sidecar_too() -> None:
    body = with_sidecar(True, "runs")
    body["status"]["conditions"][0]["status"] = "False"  # the node's controller says so; all containers were ready
    seen = observe_pod(body)
    assert seen.lost_since is not None
    assert not seen.ready

"""Deciding about a ToolRLJob: order of stages, failures, suspension, deadlines, and what holds whatever happens."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thinkimg_operator.toolrljob.decision import decide
from thinkimg_operator.toolrljob.status import dump, refused, terminal
from thinkimg_operator.toolrljob.transitions import misunderstandings, outlived, transitions
from thinkimg_operator.toolrljob.world import ToolSeen

from tests.support.operator.toolrljob_world import START, PretendCluster, make_job


def running(**spec: Any) -> PretendCluster:
    cluster = PretendCluster(make_job(**spec))
    cluster.settle()
    cluster.run()
    cluster.settle()
    return cluster


def test_a_job_runs_its_stages_in_order_and_completes() -> None:
    cluster = PretendCluster(make_job(stages=2))
    cluster.settle()
    assert cluster.made == ["demo-s1-1-d3m00"]
    assert cluster.condition("PodsReady").message == "stage s1: 0 of 2 pods are ready"
    cluster.run()
    cluster.settle()
    assert cluster.condition("PodsReady").status == "True"
    assert cluster.job.status.current_stage == "s1"
    cluster.succeed()
    cluster.settle()
    assert cluster.made == ["demo-s1-1-d3m00", "demo-s2-1-d3m00"]
    cluster.run()
    cluster.succeed()
    cluster.settle()
    assert [stage.state for stage in cluster.job.status.stages] == ["Succeeded", "Succeeded"]
    assert cluster.condition("Complete").status == "True"
    assert cluster.job.status.completion_time == cluster.now


def test_the_status_names_an_attempt_before_its_job_is_made() -> None:
    cluster = PretendCluster(make_job())
    decision = cluster.step(crash_after_status=True)
    assert decision.create == ("s1", 1)
    assert cluster.made == []
    assert cluster.stage("s1").attempt == 1
    cluster.step()
    assert cluster.made == ["demo-s1-1-d3m00"]


def test_a_preset_makes_its_base_first() -> None:
    cluster = PretendCluster(make_job(model={"uri": "preset://tiny"}))
    cluster.settle()
    assert cluster.made == ["demo-base-1-d3m00"]
    assert len(cluster.pods) == 1


@pytest.mark.parametrize(
    ("how", "counted"),
    [
        (lambda cluster: cluster.fail("demo-s1-1-d3m00-0", 1), 1),
        (lambda cluster: cluster.fail("demo-s1-1-d3m00-1", 70), 1),
        (lambda cluster: cluster.fail("demo-s1-1-d3m00-1", None, "Evicted"), 1),
        (lambda cluster: cluster.fail("demo-s1-1-d3m00-1", 75), 0),
        (lambda cluster: cluster.delete_pod("demo-s1-1-d3m00-1"), 0),
        (lambda cluster: cluster.fail("demo-s1-1-d3m00-0", 1, "Preempted"), 0),
    ],
)
def test_any_pod_that_fails_ends_the_attempt_and_the_next_waits_for_all_pods(how: Any, counted: int) -> None:
    cluster = running()
    how(cluster)
    decision = cluster.step()
    assert [job.name for job in decision.delete_jobs] == ["demo-s1-1-d3m00"]
    assert cluster.stage("s1").state == "Restarting"
    assert cluster.job.status.restarts == counted
    assert cluster.step().create is None  # pods of attempt 1 are still there
    cluster.let_go()
    assert cluster.step().create == ("s1", 2)  # none is left, and the first restart has no pause
    assert cluster.made == ["demo-s1-1-d3m00", "demo-s1-2-d3m00"]


def test_a_jobs_own_deletion_ends_the_attempt() -> None:
    cluster = running()
    del cluster.jobs["demo-s1-1-d3m00"]
    cluster.step()
    assert cluster.stage("s1").state == "Restarting"
    assert cluster.step().create is None
    for pod in list(cluster.pods):
        cluster.delete_pod(pod)
    cluster.settle()
    assert cluster.made == ["demo-s1-1-d3m00", "demo-s1-2-d3m00"]


def test_pods_whose_job_is_gone_are_ended_and_the_next_attempt_has_a_number_of_its_own() -> None:
    cluster = PretendCluster(make_job())
    cluster.step()
    cluster.run()
    del cluster.jobs["demo-s1-1-d3m00"]  # before anybody saw it, and without its pods
    decision = cluster.step()
    assert {pod.name for pod in decision.delete_pods} == {"demo-s1-1-d3m00-0", "demo-s1-1-d3m00-1"}
    cluster.let_go()
    cluster.settle()
    assert cluster.made == ["demo-s1-1-d3m00", "demo-s1-2-d3m00"]
    assert cluster.job.status.restarts == 0


def test_the_users_error_ends_the_job_with_what_the_stage_said() -> None:
    cluster = running()
    words = json.dumps({"stage": "s1", "state": "Failed", "message": "spec.data.train.uri: no such file"})
    cluster.fail("demo-s1-1-d3m00-1", 1)
    cluster.fail("demo-s1-1-d3m00-0", 2, message=f"noise\n{words}\n")
    cluster.settle()
    failed = cluster.condition("Failed")
    assert failed.status == "True"
    assert failed.reason == "UserError"
    assert "exit code 2, the user's error: spec.data.train.uri: no such file" in failed.message
    assert cluster.stage("s1").state == "Failed"
    assert cluster.made == ["demo-s1-1-d3m00"]
    assert set(cluster.pods) >= {"demo-s1-1-d3m00-0"}, "its log can still be read"


def test_restarts_are_bounded_and_pauses_double() -> None:
    cluster = running(failurePolicy={"maxRestarts": 3, "backoffSeconds": 10, "maxBackoffSeconds": 15})
    pauses = []
    for attempt in (1, 2, 3):
        cluster.fail(f"demo-s1-{attempt}-d3m00-0")
        cluster.settle()
        began = cluster.now
        while f"demo-s1-{attempt + 1}-d3m00" not in cluster.made:
            cluster.wait(1)
            cluster.settle()
        pauses.append((cluster.now - began).total_seconds())
        cluster.run()
        cluster.settle()
    assert pauses == [0, 10, 15]
    cluster.fail("demo-s1-4-d3m00-1")
    cluster.settle()
    assert cluster.condition("Failed").reason == "RestartsExhausted"
    assert "all 3 restarts are used" in cluster.condition("Failed").message


def test_rules_decide_before_the_default() -> None:
    rules = [
        {"action": "Fail", "onExitCodes": {"operator": "In", "values": [3]}},
        {"action": "RestartUncounted", "stages": ["s2"], "onExitCodes": {"operator": "NotIn", "values": [4]}},
        {"action": "Restart", "onPodReasons": ["Preempted", "Evicted"]},
    ]
    cluster = running(failurePolicy={"rules": rules, "maxRestarts": 5})
    cluster.fail("demo-s1-1-d3m00-0", 9)  # the second rule is for s2 only
    cluster.settle()
    assert cluster.job.status.restarts == 1
    cluster.run()
    cluster.fail("demo-s1-2-d3m00-0", None, "Drained")  # people say Evicted
    cluster.settle()
    assert cluster.job.status.restarts == 2
    cluster.wait(30)
    cluster.settle()
    cluster.run()
    cluster.fail("demo-s1-3-d3m00-0", 3)
    cluster.settle()
    assert cluster.condition("Failed").reason == "FailedByRule"


def test_a_lost_node_is_given_up_after_its_time_and_its_pods_are_removed_by_force() -> None:
    cluster = running(failurePolicy={"nodeLostSeconds": 120})
    cluster.lose_node("demo-s1-1-d3m00-1")
    cluster.settle()
    assert cluster.condition("PodsReady").reason == "NodeLost"
    assert "demo-s1-1-d3m00-1" in cluster.condition("PodsReady").message
    cluster.wait(119)
    cluster.settle()
    assert cluster.stage("s1").state == "Running"
    assert cluster.decide().requeue_after == 1
    cluster.wait(1)
    decision = cluster.step()
    assert cluster.stage("s1").state == "Restarting"
    assert cluster.stage("s1").failure == "attempt 1: pod demo-s1-1-d3m00-1 failed (NodeLost)"
    assert [job.name for job in decision.delete_jobs] == ["demo-s1-1-d3m00"]
    assert [pod.name for pod in cluster.step().force_pods] == ["demo-s1-1-d3m00-1"]
    cluster.settle()
    assert cluster.made == ["demo-s1-1-d3m00", "demo-s1-2-d3m00"]
    assert cluster.job.status.restarts == 0


def test_a_node_that_comes_back_in_time_restarts_nothing() -> None:
    cluster = running(failurePolicy={"nodeLostSeconds": 120}, startDeadlineSeconds=30)
    cluster.lose_node("demo-s1-1-d3m00-1")
    cluster.settle()
    cluster.wait(60)
    cluster.settle()
    cluster.find_node("demo-s1-1-d3m00-1")
    cluster.settle()
    cluster.wait(120)
    cluster.settle()
    assert cluster.made == ["demo-s1-1-d3m00"]
    assert cluster.condition("PodsReady").status == "True"


def test_a_rank_that_ends_because_another_ones_node_went_away_is_not_the_cause() -> None:
    cluster = running(failurePolicy={"nodeLostSeconds": 120, "maxRestarts": 0})
    cluster.lose_node("demo-s1-1-d3m00-1")
    cluster.wait(10)
    cluster.fail("demo-s1-1-d3m00-0", 1)
    cluster.step()
    assert cluster.stage("s1").failure == "attempt 1: pod demo-s1-1-d3m00-1 failed (NodeLost)"


def test_suspending_stops_the_pods_and_resuming_goes_on_without_counting() -> None:
    cluster = running()
    cluster.job.spec.suspend = True
    decision = cluster.step()
    assert [job.name for job in decision.delete_jobs] == ["demo-s1-1-d3m00"]
    assert cluster.condition("Suspended").status == "True"
    assert "2 pods have yet to end" in cluster.condition("Suspended").message
    cluster.settle()
    cluster.wait(1000)
    assert cluster.settle().create is None
    cluster.job.spec.suspend = False
    cluster.settle()
    assert cluster.made == ["demo-s1-1-d3m00", "demo-s1-2-d3m00"]
    assert cluster.job.status.restarts == 0
    assert cluster.job.status.suspended_seconds == 1000
    cluster.run()
    cluster.fail("demo-s1-2-d3m00-0")
    cluster.settle()
    assert cluster.made[-1] == "demo-s1-3-d3m00", "it is the first restart after a failure, so there is no pause"
    assert cluster.condition("Suspended").status == "False"


def test_a_job_that_is_made_suspended_makes_nothing() -> None:
    cluster = PretendCluster(make_job(suspend=True))
    cluster.settle()
    assert cluster.made == []
    assert cluster.job.status.start_time is None


def test_the_active_deadline_leaves_out_suspended_time() -> None:
    cluster = running(activeDeadlineSeconds=100)
    cluster.wait(60)
    cluster.job.spec.suspend = True
    cluster.settle()
    cluster.wait(500)
    cluster.job.spec.suspend = False
    cluster.settle()
    cluster.run()
    cluster.wait(39)
    cluster.settle()
    assert not terminal(cluster.job.status)
    assert cluster.decide().requeue_after <= 1
    cluster.wait(1)
    decision = cluster.step()
    assert cluster.condition("Failed").reason == "ActiveDeadlineExceeded"
    assert [job.name for job in decision.delete_jobs] == ["demo-s1-2-d3m00"]


def test_the_start_deadline_ends_a_job_whose_pods_are_not_ready_in_time() -> None:
    cluster = PretendCluster(make_job(startDeadlineSeconds=60))
    cluster.settle()
    cluster.wait(59)
    cluster.settle()
    assert not terminal(cluster.job.status)
    cluster.wait(1)
    cluster.settle()
    assert cluster.condition("Failed").reason == "StartDeadlineExceeded"
    assert "0 of 2 pods are ready" in cluster.condition("Failed").message


def test_a_stage_that_was_ready_in_time_may_last() -> None:
    cluster = running(startDeadlineSeconds=60)
    cluster.wait(1000)
    cluster.settle()
    cluster.succeed()
    cluster.settle()
    cluster.wait(59)
    cluster.settle()
    assert not terminal(cluster.job.status)


def test_it_waits_for_tools_and_says_for_which() -> None:
    cluster = PretendCluster(make_job(tools=[{"name": "ocr"}, {"name": "zoom"}]))
    cluster.tools = {"ocrs": ToolSeen("ocrs", True)}
    assert cluster.settle().requeue_after == 5
    assert cluster.condition("ToolsReady").reason == "ToolNotFound"
    assert 'VisionTool ocr, zoom in this namespace. Did you mean "ocrs"?' in cluster.condition("ToolsReady").message
    cluster.tools = {"ocr": ToolSeen("ocr", True), "zoom": ToolSeen("zoom", False, "0 of 1 replicas are ready")}
    cluster.settle()
    assert cluster.condition("ToolsReady").reason == "ToolNotAvailable"
    assert cluster.condition("ToolsReady").message == "waiting for zoom: 0 of 1 replicas are ready"
    assert cluster.condition("PodsReady").reason == "WaitingForTools"
    assert cluster.job.status.start_time is None
    cluster.tools["zoom"] = ToolSeen("zoom", True)
    cluster.settle()
    assert cluster.made == ["demo-s1-1-d3m00"]


def test_a_missing_claim_is_named() -> None:
    cluster = PretendCluster(make_job(storage={"claimName": "data"}), missing_claims=["data"])
    cluster.settle()
    assert cluster.condition("PodsReady").reason == "ClaimNotFound"
    assert "no PersistentVolumeClaim data in this namespace" in cluster.condition("PodsReady").message
    assert cluster.made == []


def test_gang_scheduling_is_refused_instead_of_ignored() -> None:
    cluster = PretendCluster(make_job(scheduling={"gang": "Volcano"}))
    cluster.settle()
    assert cluster.condition("Accepted").reason == "NotSupported"
    assert cluster.made == []


def test_what_keeps_pods_from_starting_is_said() -> None:
    cluster = PretendCluster(make_job())
    cluster.settle()
    pod = cluster.pods["demo-s1-1-d3m00-1"]
    for reason, ours in [
        ("Unschedulable", "Unschedulable"),
        ("ImagePullBackOff", "ImagePullFailed"),
        ("CreateContainerConfigError", "ContainerNotStarted"),
    ]:
        cluster.pods["demo-s1-1-d3m00-1"] = replace(pod, blocked=(reason, "0/3 nodes: no nvidia.com/gpu."))
        cluster.step()
        assert cluster.condition("PodsReady").reason == ours
        assert "demo-s1-1-d3m00-1: 0/3 nodes: no nvidia.com/gpu." in cluster.condition("PodsReady").message


def test_a_sidecar_that_outlives_its_stage_is_ended_and_named() -> None:
    cluster = running(stages=2, startDeadlineSeconds=40)
    cluster.finish_stage("istio-proxy")
    cluster.wait(59)
    decision = cluster.settle()
    assert cluster.stage("s1").state == "Running"
    assert cluster.condition("PodsReady").status == "True"  # it is not late for anything
    assert decision.requeue_after is not None
    assert decision.requeue_after <= 1
    cluster.wait(1)
    before, world = cluster.job.status, cluster.world()
    decision = cluster.step()
    assert cluster.stage("s1").state == "Succeeded"
    assert [job.name for job in decision.delete_jobs] == ["demo-s1-1-d3m00"]
    (told,) = outlived(before, decision.status, world.pods)
    assert told.note == "stage s1 is done; istio-proxy ran on and is ended"
    cluster.let_go()
    cluster.settle()
    assert cluster.made == ["demo-s1-1-d3m00", "demo-s2-1-d3m00"]
    assert cluster.job.status.restarts == 0


def test_a_stage_that_succeeded_on_every_rank_succeeds_though_a_sidecar_failed_its_job() -> None:
    cluster = running(stages=1)
    cluster.finish_stage()
    cluster.settle()
    assert cluster.stage("s1").state == "Running"  # its Job will say so in a moment, and keeps its logs
    assert "demo-s1-1-d3m00" in cluster.jobs
    name, job = next(iter(cluster.jobs.items()))
    cluster.jobs[name] = replace(job, failed="BackoffLimitExceeded: Job has reached the specified limit")
    cluster.settle()
    assert cluster.condition("Complete").status == "True"


def test_results_come_from_the_last_words_of_rank_0() -> None:
    cluster = running(stages=1)
    row = {"model": "s1", "accuracy": "0.778", "ci95": ["0.73", "0.82"], "toolCallsPerAnswer": "1.4"}
    cluster.succeed(json.dumps({"stage": "s1", "state": "Succeeded", "seconds": 1, "results": [row, {"bad": 1}]}))
    cluster.settle()
    assert [dict(result) for result in dump(cluster.job.status)["results"]] == [row]


def test_a_stage_that_speaks_another_contract_is_told_once_and_its_figures_are_left_out() -> None:
    cluster = running(stages=2)
    row = {"model": "s1", "accuracy": "0.778"}
    cluster.succeed(json.dumps({"stage": "s1", "state": "Succeeded", "contract": 99, "results": [row]}))
    before, world = cluster.job.status, cluster.world()
    after = cluster.step().status
    (told,) = misunderstandings(before, after, world.pods)
    assert told.note.startswith("stage s1: the stage's image speaks version 99 of the contract")
    assert (told.reason, told.occurrence, told.warning) == ("NotUnderstood", "s1", True)
    assert after.results == []
    assert after.stages[0].state == "Succeeded"
    assert misunderstandings(after, cluster.step().status, cluster.world().pods) == []


def test_a_finished_job_deletes_itself_after_its_time_to_live() -> None:
    cluster = running(stages=1, ttlSecondsAfterFinished=60)
    cluster.succeed()
    cluster.settle()
    assert cluster.decide().requeue_after == 60
    cluster.wait(60)
    cluster.step()
    assert cluster.deleted


def test_a_world_newer_than_the_status_is_read_again() -> None:
    cluster = running()
    old = cluster.job.status
    cluster.fail("demo-s1-1-d3m00-0")
    cluster.settle()
    cluster.job.status = old
    assert cluster.decide().stale


def test_a_refusal_keeps_the_rest_of_the_status() -> None:
    cluster = running()
    status = refused(cluster.job.status, "Invalid", "spec.stages[0]: wrong", 2, cluster.now)
    assert status.stages == cluster.job.status.stages
    assert [t.reason for t in transitions(cluster.job.status, status)] == ["Refused"]
    assert transitions(status, status) == []


# ---- whatever happens ------------------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["step", "crash", "run", "succeed", "fail", "infra", "interrupt", "delete", "lose", "suspend", "resume",
             "let go", "wait", "delete job"]
        ),
        st.integers(0, 3),
    ),
    max_size=25,
)  # fmt: skip


def happen(cluster: PretendCluster, event: str, number: int) -> None:
    pods = sorted(name for name, pod in cluster.pods.items() if not pod.finished and pod.gone_by is None)
    pod = pods[number % len(pods)] if pods else None
    codes = {"fail": 1, "infra": 70, "interrupt": 75}
    if event in codes and pod:
        cluster.fail(pod, codes[event])
    elif event == "delete" and pod:
        cluster.delete_pod(pod)
    elif event == "lose" and pod and cluster.pods[pod].phase == "Running":
        cluster.lose_node(pod)
    elif event == "delete job" and cluster.jobs:
        del cluster.jobs[sorted(cluster.jobs)[-1]]
    elif event in ("suspend", "resume"):
        cluster.job.spec.suspend = event == "suspend"
    elif event == "wait":
        cluster.wait(number * 50)
    elif event in ("run", "succeed"):
        {"run": cluster.run, "succeed": cluster.succeed}[event]()
    elif event == "let go":
        cluster.let_go()
    elif event in ("step", "crash"):
        cluster.step(crash_after_status=event == "crash")


@settings(max_examples=80, deadline=None)
@given(events=EVENTS, restarts=st.integers(0, 3))
def test_whatever_happens_attempts_never_overlap_and_the_job_ends(events: Any, restarts: int) -> None:
    cluster = PretendCluster(make_job(failurePolicy={"maxRestarts": restarts}))
    told: list[tuple[str, str]] = []
    for event, number in events:
        before = cluster.job.status
        was_terminal = terminal(before)
        happen(cluster, event, number)
        after = cluster.job.status
        assert len(cluster.alive()) <= 1, f"two attempts are alive: {cluster.alive()}"
        if was_terminal:
            assert after == before, "terminal is sticky"
        if after is not None and after is not before:
            assert after.restarts <= restarts
            told += [(t.reason, t.occurrence) for t in transitions(before, after)]
    assert len(told) == len(set(told)), "a transition was told twice"
    cluster.job.spec.suspend = False
    for _ in range(20):  # left alone, it ends
        cluster.settle(4)
        if terminal(cluster.job.status) and not cluster.alive():
            break
        cluster.wait(400)
        cluster.run()
        cluster.step()
        cluster.succeed()
    assert terminal(cluster.job.status)
    assert len(cluster.made) == len(set(cluster.made)), "a Job was made twice"
    assert cluster.alive() == set()


@settings(max_examples=30, deadline=None)
@given(events=EVENTS, order=st.randoms())
def test_the_same_world_gives_the_same_decision_in_any_order(events: Any, order: Any) -> None:
    cluster = PretendCluster(make_job())
    for event, number in events:
        happen(cluster, event, number)
    world = cluster.world()
    first = decide(cluster.job, world, cluster.now)
    jobs, pods = list(world.jobs), list(world.pods)
    order.shuffle(jobs)
    order.shuffle(pods)
    shuffled = type(world)(jobs, pods, world.tools, world.known_tools, world.missing_claims)
    second = decide(cluster.job, shuffled, cluster.now)
    assert dump(first.status) == dump(second.status)
    assert first.create == second.create
    assert set(first.delete_jobs) == set(second.delete_jobs)
    assert set(first.delete_pods) == set(second.delete_pods)


def test_deciding_twice_changes_nothing() -> None:
    cluster = running()
    first = cluster.decide()
    cluster.job.status = first.status
    later = decide(cluster.job, cluster.world(), START + timedelta(seconds=7))
    assert dump(later.status) == dump(first.status)

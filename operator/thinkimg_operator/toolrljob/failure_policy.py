"""`spec.failurePolicy`: what follows when an attempt has failed."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from thinkimg.api import FailurePolicy, FailureRule, StageStatus
from thinkimg.api.pod_contract import ExitCode

from .attempts import Failure
from .case import Case

Action = Literal["Restart", "RestartUncounted", "Fail"]

FROM_OUTSIDE = {"Deleted", "Drained", "Preempted", "NodeLost"}
"""Reasons of a pod's end that are no failure of the job: restarted without counting, unless a rule says otherwise."""
_SYNONYMS = {"Drained": "Evicted"}
"""A rule on the right word fits the left one too: for people, draining a node evicts its pods."""
_MOST_CHARACTERS = 1024


def restart_or_fail(case: Case, stage: StageStatus, failure: Failure) -> None:
    """Restart the stage as the policy allows, or end the job."""
    action = action_after(failure, stage.name, case.policy)
    stage.failure = f"attempt {stage.attempt}: {failure.text}"[:_MOST_CHARACTERS]
    stage.ready_pods = 0
    if action == "Fail":
        reason = "UserError" if failure.user_error else "FailedByRule"
        case.fail(stage, reason, f"stage {stage.name}, {stage.failure}")
    elif action == "Restart" and case.status.restarts >= case.policy.max_restarts:
        most = case.policy.max_restarts
        used = f"all {most} restarts are used" if most else "none is allowed"
        case.fail(stage, "RestartsExhausted", f"{used}: stage {stage.name}, {stage.failure}")
    else:
        case.status.restarts += action == "Restart"
        stage.restarts += 1
        pause = backoff_seconds(stage.restarts, case.policy)
        stage.state, stage.restart_time = "Restarting", case.now + timedelta(seconds=pause)
        stage.attempt += 1


def action_after(failure: Failure, stage: str, policy: FailurePolicy) -> Action:
    """What the failure policy says. The user's error (exit code 2) always ends the job; then the first rule that fits
    decides; then interruptions from outside restart without counting, and everything else counts."""
    if failure.user_error:
        return "Fail"
    for rule in policy.rules:
        if (not rule.stages or stage in rule.stages) and _fits(rule, failure):
            return rule.action
    outside = failure.exit_code == ExitCode.INTERRUPTED or failure.reasons & FROM_OUTSIDE
    return "RestartUncounted" if outside else "Restart"


def _fits(rule: FailureRule, failure: Failure) -> bool:
    """Both criteria, where both are given."""
    if rule.on_exit_codes is not None:
        among = failure.exit_code in rule.on_exit_codes.values
        if not failure.exit_code or among != (rule.on_exit_codes.operator == "In"):
            return False
    words = failure.reasons | {_SYNONYMS[reason] for reason in failure.reasons if reason in _SYNONYMS}
    return not rule.on_pod_reasons or bool(words & set(rule.on_pod_reasons))


def backoff_seconds(restart: int, policy: FailurePolicy) -> int:
    """Pause before the `restart`-th restart of a stage: none before the first, then doubling."""
    if restart <= 1:
        return 0
    return min(policy.backoff_seconds * 2 ** min(restart - 2, 30), policy.max_backoff_seconds)

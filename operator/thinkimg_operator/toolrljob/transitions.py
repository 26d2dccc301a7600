"""What happened between two statuses of a ToolRLJob: each is told once, as an Event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thinkimg.api import StageStatus, ToolRLJobStatus
from thinkimg.api.pod_contract import TerminationMessage

from .attempts import PodSeen, not_understood


@dataclass(frozen=True)
class Transition:
    """Something that happened, told once as an Event."""

    reason: str
    note: str
    occurrence: str
    """Tells it from a later one of the same reason."""
    warning: bool = False


def transitions(before: ToolRLJobStatus | None, after: ToolRLJobStatus) -> list[Transition]:
    """What happened between two statuses. The same two give the same list."""
    earlier = {stage.name: stage for stage in before.stages} if before else {}
    found = []
    for stage in after.stages:
        was = earlier.get(stage.name) or StageStatus(name=stage.name)
        where = f"{stage.name}/{was.attempt}"
        if stage.failure and stage.failure != was.failure:
            found.append(Transition("AttemptFailed", f"stage {stage.name}, {stage.failure}", where, warning=True))
        if stage.attempt > was.attempt and stage.state in ("Pending", "Restarting"):
            now = f"{stage.name}/{stage.attempt}"
            if stage.state == "Restarting":
                note = f"stage {stage.name} starts again as attempt {stage.attempt}"
                found.append(Transition("StageRestarting", note, now))
            elif was.attempt == 0:
                found.append(Transition("StageStarted", f"stage {stage.name} begins", now))
        if stage.state == "Succeeded" != was.state:
            found.append(Transition("StageSucceeded", f"stage {stage.name} succeeded", stage.name))
    return found + _of_conditions(before, after)


def misunderstandings(
    before: ToolRLJobStatus | None, after: ToolRLJobStatus, pods: Sequence[PodSeen]
) -> list[Transition]:
    """Stages that have just succeeded, but speak a version of the contract that this operator does not know: their
    figures are missing. (A stage that failed says it in its failure.)"""
    ended = _just_succeeded(before, after)
    found = []
    for pod in pods:
        words = TerminationMessage.parse(pod.message) if pod.index == 0 and (pod.stage, pod.attempt) in ended else None
        if words is not None and (problem := not_understood(words)):
            found.append(Transition("NotUnderstood", f"stage {pod.stage}: {problem}", pod.stage, warning=True))
    return found


def outlived(before: ToolRLJobStatus | None, after: ToolRLJobStatus, pods: Sequence[PodSeen]) -> list[Transition]:
    """Stages that have just succeeded while other containers of their pods run on: they are ended with the Job."""
    ended = _just_succeeded(before, after)
    names: dict[str, set[str]] = {}
    for pod in pods:
        if pod.lingering and (pod.stage, pod.attempt) in ended:
            names.setdefault(pod.stage, set()).update(pod.lingering)
    notes = {stage: f"stage {stage} is done; {', '.join(sorted(found))} ran on" for stage, found in names.items()}
    return [Transition("SidecarsEnded", f"{note} and is ended", stage, True) for stage, note in notes.items()]


def _just_succeeded(before: ToolRLJobStatus | None, after: ToolRLJobStatus) -> set[tuple[str, int]]:
    """Names and attempts of the stages that have succeeded between two statuses."""
    already = {stage.name for stage in before.stages if stage.state == "Succeeded"} if before else set()
    return {(s.name, s.attempt) for s in after.stages if s.state == "Succeeded" and s.name not in already}


def _of_conditions(before: ToolRLJobStatus | None, after: ToolRLJobStatus) -> list[Transition]:
    old = {c.type: c for c in before.conditions} if before else {}
    found = []
    for condition in after.conditions:
        was = old.get(condition.type)
        said = was.status if was else "False"
        if condition.status == said:
            continue
        since = str(was.last_transition_time) if was else "first"
        if condition.type in ("Complete", "Failed"):
            found.append(Transition(condition.type, condition.message, "end", condition.type == "Failed"))
        elif condition.type == "Suspended":
            word = "Suspended" if condition.status == "True" else "Resumed"
            found.append(Transition(word, condition.message, since))
        elif condition.type == "Accepted" and condition.status == "False":
            found.append(Transition("Refused", condition.message, since, warning=True))
    if not old.get("Accepted"):
        found += [
            Transition("Refused", c.message, "first", warning=True)
            for c in after.conditions
            if c.type == "Accepted" and c.status == "False"
        ]
    return found

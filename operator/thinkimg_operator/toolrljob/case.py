"""One job while it is decided about: the rules of this package read it and change its status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from thinkimg.api import FailurePolicy, StageStatus, ToolRLJob, ToolRLJobStatus

from .attempts import JobSeen, PodSeen
from .render import pods_of
from .world import World


@dataclass
class Case:
    """A job, the world and the time. `status` is a working copy, which becomes the next status."""

    job: ToolRLJob
    status: ToolRLJobStatus
    world: World
    now: datetime
    failed: tuple[str, str] | None = None
    """Reason and message, once the job has failed."""
    wakes: list[datetime] = field(default_factory=list)
    """Moments at which time alone may change the decision."""

    @property
    def policy(self) -> FailurePolicy:
        return self.job.spec.failure_policy

    @property
    def suspended(self) -> bool:
        return self.job.spec.suspend

    @property
    def current(self) -> StageStatus | None:
        """The first stage that has not succeeded."""
        return next((stage for stage in self.status.stages if stage.state != "Succeeded"), None)

    def job_of(self, stage: StageStatus) -> JobSeen | None:
        """The Job of the stage's current attempt."""
        return next((j for j in self.world.jobs if (j.stage, j.attempt) == (stage.name, stage.attempt)), None)

    def pods_of(self, stage: StageStatus) -> list[PodSeen]:
        """Pods of the stage's current attempt."""
        return [pod for pod in self.world.pods if (pod.stage, pod.attempt) == (stage.name, stage.attempt)]

    def remains_of(self, stage: StageStatus) -> list[JobSeen | PodSeen]:
        """What there is of attempts up to the current one: Jobs, and pods that may run."""
        seen: list[JobSeen | PodSeen] = [*self.world.jobs, *(pod for pod in self.world.pods if not pod.finished)]
        return [one for one in seen if one.stage == stage.name and one.attempt <= stage.attempt]

    def all_ready(self, stage: StageStatus) -> bool:
        """Whether every pod that the stage wants is ready, or has succeeded."""
        if stage.state != "Running":
            return False
        well = sum(pod.ready or pod.succeeded for pod in self.pods_of(stage))
        return well >= pods_of(self.job, stage.name)

    def is_outdated(self) -> Callable[[JobSeen | PodSeen], bool]:
        """A test for Jobs and pods: do they belong to an attempt that another one has followed?"""
        attempts = {stage.name: stage.attempt for stage in self.status.stages}
        return lambda one: one.attempt < attempts.get(one.stage, 0)

    def condition(self, type_: str) -> Any:
        """The condition as it stands in the status; None when it was never said."""
        return next((c for c in self.status.conditions if c.type == type_), None)

    def fail(self, stage: StageStatus, reason: str, message: str) -> None:
        """End the job."""
        self.failed = (reason, message)
        stage.state, stage.completion_time, stage.restart_time = "Failed", self.now, None

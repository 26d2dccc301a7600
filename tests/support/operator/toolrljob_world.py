"""A pretend cluster for the pure parts of ToolRLJob: Jobs and pods that begin, fail, end and vanish, and a clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from thinkimg_operator.toolrljob.attempts import JobSeen, PodSeen
from thinkimg_operator.toolrljob.decision import Decision, decide
from thinkimg_operator.toolrljob.render import job_name, pods_of
from thinkimg_operator.toolrljob.world import ToolSeen, World

from thinkimg.api.v1alpha1 import ToolRLJob

START = datetime(2026, 1, 1, tzinfo=UTC)


def make_job(stages: int = 2, nodes: int = 2, **spec: Any) -> ToolRLJob:
    """A job of SFT stages `s1`, `s2` … with `nodes` pods each, which learn a file."""
    return ToolRLJob.model_validate(
        {
            "metadata": {"name": "demo", "namespace": "ns", "uid": "d3m00-of-demo", "generation": 1},
            "spec": {
                "model": {"uri": "hf://org/model"},
                "data": {"train": {"uri": "trajectories.jsonl"}},
                "stages": [
                    {
                        "name": f"s{n}",
                        "type": "SFT",
                        "nodes": nodes,
                        "sft": {},
                        **({"from": f"s{n - 1}"} if n > 1 else {}),
                    }
                    for n in range(1, stages + 1)
                ],
                **spec,
            },
        },
        by_alias=True,
    )


@dataclass
class PretendCluster:
    """What the API server would hold. `step` is one pass of the reconciliation; `crash_before` acts out its loss."""

    job: ToolRLJob
    now: datetime = START
    jobs: dict[str, JobSeen] = field(default_factory=dict)
    pods: dict[str, PodSeen] = field(default_factory=dict)
    tools: dict[str, ToolSeen] = field(default_factory=dict)
    missing_claims: list[str] = field(default_factory=list)
    missing_code: str = ""
    deleted: bool = False
    made: list[str] = field(default_factory=list)
    """Names of all Jobs ever made."""

    def world(self) -> World:
        return World(
            jobs=list(self.jobs.values()), pods=list(self.pods.values()), tools=self.tools,
            known_tools=list(self.tools), missing_claims=self.missing_claims,
            missing_code=self.missing_code,
        )  # fmt: skip

    def decide(self) -> Decision:
        return decide(self.job, self.world(), self.now)

    def step(self, crash_after_status: bool = False) -> Decision:
        decision = self.decide()
        if decision.stale:
            return decision
        self.job.status = decision.status
        if not crash_after_status:
            self.act(decision)
        return decision

    def act(self, decision: Decision) -> None:
        for job in decision.delete_jobs:
            self.jobs[job.name] = replace(self.jobs[job.name], deleting=True)
            for name, pod in self.pods.items():
                if (pod.stage, pod.attempt) == (job.stage, job.attempt) and pod.gone_by is None:
                    self.pods[name] = replace(pod, gone_by=self.now + timedelta(seconds=60))
        for pod in decision.delete_pods:
            self.delete_pod(pod.name)
        for pod in decision.force_pods:
            del self.pods[pod.name]
        self.deleted = self.deleted or decision.delete_self
        if decision.create is not None:
            stage, attempt = decision.create
            name = job_name(self.job, stage, attempt)
            if name not in self.jobs:
                self.jobs[name] = JobSeen(name, f"uid-{len(self.made)}", stage, attempt)
                self.made.append(name)
                for index in range(pods_of(self.job, stage)):
                    pod = f"{name}-{index}"
                    self.pods[pod] = PodSeen(pod, f"{pod}-{len(self.made)}", stage, attempt, index)

    # ---- what happens in a cluster --------------------------------------------------------------------------------

    def run(self) -> None:
        """All pods that can are ready."""
        for name, pod in self.pods.items():
            if pod.phase == "Pending" and pod.gone_by is None:
                self.pods[name] = replace(pod, phase="Running", ready=True)

    def succeed(self, message: str = "") -> None:
        """The running attempt ends well."""
        for name, job in self.jobs.items():
            if job.finished or job.deleting:
                continue
            mine = [p for p in self.pods.values() if (p.stage, p.attempt) == (job.stage, job.attempt)]
            if all(pod.failed_at is None and pod.gone_by is None for pod in mine):
                self.jobs[name] = replace(job, complete=True)
                for pod in mine:
                    self.pods[pod.name] = replace(pod, phase="Succeeded", ready=False, exit_code=0, message=message)

    def finish_stage(self, *lingering: str) -> None:
        """Every rank's stage ends with 0; the containers `lingering` of its pods run on, and so does the Job."""
        for name, pod in self.pods.items():
            if pod.phase == "Running" and pod.gone_by is None:
                self.pods[name] = replace(
                    pod, ready=False, exit_code=0, succeeded_at=self.now, lingering=lingering,
                    phase="Running" if lingering else "Succeeded",
                )  # fmt: skip

    def fail(self, name: str, exit_code: int | None = 1, *reasons: str, message: str = "") -> None:
        pod = self.pods[name]
        self.pods[name] = replace(
            pod, phase="Failed", ready=False, exit_code=exit_code, message=message, failed_at=self.now,
            reasons=frozenset(reasons or ("Error",)),
        )  # fmt: skip

    def delete_pod(self, name: str) -> None:
        pod = self.pods[name]
        self.pods[name] = replace(
            pod, failed_at=pod.failed_at or self.now, reasons=pod.reasons | {"Deleted"},
            gone_by=self.now + timedelta(seconds=60),
        )  # fmt: skip

    def lose_node(self, name: str) -> None:
        self.pods[name] = replace(self.pods[name], ready=False, lost_since=self.now)

    def find_node(self, name: str) -> None:
        self.pods[name] = replace(self.pods[name], ready=True, lost_since=None)

    def let_go(self) -> None:
        """Pods that are being deleted are gone, but for those on lost nodes; then so are their Jobs. Jobs with a failed
        pod end the others, as `backoffLimit: 0` says."""
        for name, job in self.jobs.items():
            mine = [p for p in self.pods.values() if (p.stage, p.attempt) == (job.stage, job.attempt)]
            if not job.deleting and any(pod.phase == "Failed" for pod in mine):
                self.jobs[name] = replace(job, failed="BackoffLimitExceeded: Job has reached the specified limit")
                for pod in mine:
                    if not pod.finished and pod.gone_by is None:
                        self.pods[pod.name] = replace(pod, gone_by=self.now + timedelta(seconds=60))
        self.pods = {n: p for n, p in self.pods.items() if p.gone_by is None or p.lost_since is not None}
        left = {(pod.stage, pod.attempt) for pod in self.pods.values()}
        self.jobs = {n: j for n, j in self.jobs.items() if not j.deleting or (j.stage, j.attempt) in left}

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def settle(self, passes: int = 6) -> Decision:
        """Pass after pass until nothing changes any more."""
        for _ in range(passes):
            before = (self.job.status, self.world())
            decision = self.step()
            self.let_go()
            if (decision.status, self.world()) == before:
                break
        return decision

    # ---- reading ----------------------------------------------------------------------------------------------------

    def stage(self, name: str) -> Any:
        assert self.job.status is not None
        return next(stage for stage in self.job.status.stages if stage.name == name)

    def condition(self, type_: str) -> Any:
        assert self.job.status is not None
        return next(c for c in self.job.status.conditions if c.type == type_)

    def alive(self) -> set[tuple[str, int]]:
        """Attempts with a pod whose process may run."""
        return {(pod.stage, pod.attempt) for pod in self.pods.values() if not pod.finished}

"""What ToolRLJobs tell Prometheus: how many are where, what failures cost, and how long the first step takes."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from thinkimg.api import StageStatus, ToolRLJobStatus

STATES = ("Refused", "Waiting", "Starting", "Running", "Restarting", "Suspended", "Complete", "Failed")
_FIRST_STEP_BUCKETS = (10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)


def state_of(status: ToolRLJobStatus | None) -> str:
    """One of `STATES`: where a job stands, in one word."""
    said = {c.type: c.status for c in status.conditions} if status else {}
    for condition, word in (("Complete", "Complete"), ("Failed", "Failed"), ("Suspended", "Suspended")):
        if said.get(condition) == "True":
            return word
    if said.get("Accepted") == "False":
        return "Refused"
    stage = _current(status)
    if stage is None or stage.state == "Pending":
        return "Waiting"
    if stage.state == "Restarting":
        return "Restarting"
    return "Running" if said.get("PodsReady") == "True" else "Starting"


class _JobsByState(Collector):
    def __init__(self, states: Callable[[], Iterable[str]]) -> None:
        self._states = states

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily("thinkimg_toolrljobs", "ToolRLJobs by state.", labels=["state"])
        counts = Tally(self._states())
        for state in STATES:
            family.add_metric([state], counts[state])
        yield family


class JobMetrics:
    """Metrics of all ToolRLJobs in one registry."""

    def __init__(self, registry: CollectorRegistry, states: Callable[[], Iterable[str]]) -> None:
        """
        Args:
            states: the state of every job, asked at each scrape.
        """
        registry.register(_JobsByState(states))
        self.restarts = Counter(
            "thinkimg_toolrljob_restarts", "Attempts that failed and were followed by another.", ["counted"],
            registry=registry,
        )  # fmt: skip
        self.lost_work_seconds = Counter(
            "thinkimg_toolrljob_lost_work_seconds",
            "Seconds that failed attempts had run since their pods were ready, or since their newest checkpoint.",
            registry=registry,
        )
        self.first_step_seconds = Histogram(
            "thinkimg_toolrljob_first_step_seconds",
            "Seconds from a stage's start to the first step that was seen in its log.",
            buckets=_FIRST_STEP_BUCKETS,
            registry=registry,
        )

    def observe(self, before: ToolRLJobStatus | None, after: ToolRLJobStatus, now: datetime) -> None:
        """Count what happened between two statuses, once the second is written."""
        earlier = {stage.name: stage for stage in before.stages} if before else {}
        for stage in after.stages:
            was = earlier.get(stage.name)
            if was is None:
                continue
            failed = bool(stage.failure) and stage.failure != was.failure
            if failed:
                self.lost_work_seconds.inc(_lost_seconds(before, was, now))
            if failed and stage.state == "Restarting":
                counted = before is not None and after.restarts > before.restarts
                self.restarts.labels(str(counted).lower()).inc()
            if _step(stage) and not _step(was) and stage.start_time is not None and stage.attempt == 1:
                self.first_step_seconds.observe((now - stage.start_time).total_seconds())


def _current(status: ToolRLJobStatus | None) -> StageStatus | None:
    return next((stage for stage in status.stages if stage.state != "Succeeded"), None) if status else None


def _step(stage: StageStatus) -> int:
    return stage.progress.step if stage.progress else 0


def _lost_seconds(status: ToolRLJobStatus | None, stage: StageStatus, now: datetime) -> float:
    ready = next((c for c in status.conditions if c.type == "PodsReady"), None) if status else None
    if ready is None or ready.status != "True" or ready.last_transition_time is None:
        return 0.0
    saved = stage.checkpoint.time if stage.checkpoint else None
    since = max(ready.last_transition_time, saved or ready.last_transition_time)
    return max(0.0, (now - since).total_seconds())

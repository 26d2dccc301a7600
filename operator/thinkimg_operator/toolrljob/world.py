"""What a decision about a ToolRLJob is made from, as it was seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from thinkimg.api.pod_contract import ProgressLine

from .attempts import JobSeen, PodSeen


@dataclass(frozen=True)
class ToolSeen:
    """A VisionTool that the job names."""

    name: str
    available: bool
    problem: str = ""
    """Why not, from its conditions."""


@dataclass(frozen=True)
class World:
    """What was seen. Order does not matter."""

    jobs: Sequence[JobSeen] = ()
    pods: Sequence[PodSeen] = ()
    tools: Mapping[str, ToolSeen] | None = None
    """Those of the job's tools that exist; None: not looked at, because nothing waits for them."""
    known_tools: Sequence[str] = ()
    """Names of all VisionTools of the namespace, to suggest one."""
    missing_claims: Sequence[str] = ()
    missing_code: str = ""
    """Name of the ConfigMap with the user's code, when it does not exist."""
    default_image: str = ""
    """The operator's, for stages that name none."""
    taken: frozenset[str] = frozenset()
    """Kinds of objects that have the name of a child from before names had the uid, and are somebody else's."""
    progress: ProgressLine | None = None
    """The last progress line of the running stage."""

    def orphans(self) -> Iterator[PodSeen]:
        """Pods that may run, that nobody is ending, and whose Job does not exist."""
        known = {(job.stage, job.attempt) for job in self.jobs}
        for pod in self.pods:
            if not pod.finished and pod.gone_by is None and (pod.stage, pod.attempt) not in known:
                yield pod

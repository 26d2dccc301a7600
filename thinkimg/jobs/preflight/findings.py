"""What is to run, and what is found wrong with it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thinkimg.api import Manifest, ManifestError, Problem, Stage, ToolRLJob
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.trajectory import Task

Loc = tuple[str | int, ...]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `passing`: nobody's setting need be wrong, another time it may be right."""

    problem: Problem
    passing: bool = False


@dataclass
class Plan:
    """What is to run.

    Attributes:
        job: with the run's seed.
        run: the run's folder.
        waiting: names of the stages that will run.
        secrets: where secrets are files, `NAME/KEY`.
        data_folder: what relative paths of data are below; None: the manifest's folder.
        tasks: by split: the first question, and how many there are. `data` fills it in for the others.
    """

    manifest: Manifest
    job: ToolRLJob
    run: Path
    waiting: Sequence[str]
    secrets: Path | None = None
    data_folder: Path | None = None
    tasks: dict[str, tuple[Task, int]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.data_folder or self.manifest.folder

    def stages(self) -> Iterator[tuple[int, Stage]]:
        """Those that will run, with their places in the manifest."""
        for index, stage in enumerate(self.job.spec.stages):
            if stage.name in self.waiting:
                yield index, stage

    def found(self, loc: Loc, message: str, remedy: str, passing: bool = False) -> Finding:
        """Something that is wrong with a field of the job."""
        document = f"ToolRLJob/{self.job.name}"
        return Finding(self.manifest.problem(document, loc, message.strip().rstrip("."), remedy), passing)

    def refused(self, loc: Loc, error: Exception, remedy: str) -> Finding:
        """What an exception says, without the field that it names itself: `loc` is more exact."""
        said = str(error)
        if isinstance(error, UserError) and error.field:
            said = said.removeprefix(f"{error.field}: ")
        return self.found(loc, said, remedy, isinstance(error, InfrastructureError) or is_unreachable(error))


def is_unreachable(error: BaseException | None) -> bool:
    """Whether somebody could not be reached, rather than refused: seen from what the error came from."""
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError) or type(error).__name__ in _UNREACHABLE:
            return True
        error = error.__cause__ or error.__context__
    return False


_UNREACHABLE = ("OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "LocalEntryNotFoundError")
"""Of httpx and huggingface_hub, which are not imported for it."""


class NotReachable(InfrastructureError):
    """All that is wrong is that somebody cannot be reached, or that there is no room."""


def refuse(findings: Iterable[Finding], source: str) -> None:
    """Raises:
    ManifestError: with every problem found.
    NotReachable: the same, where every one of them may be gone another time.
    """
    found = list(findings)
    if not found:
        return
    error = ManifestError([one.problem for one in found], source)
    if all(one.passing for one in found):
        raise NotReachable(str(error))
    raise error


def block_of(index: int, stage: Stage, *rest: Any) -> Loc:
    """Place of a field in the block of a stage."""
    return ("spec", "stages", index, stage.type.lower(), *rest)

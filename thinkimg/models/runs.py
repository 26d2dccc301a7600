"""Which models a run's folder holds, and which job made them (`thinkimg.jobs.layout` has the rest of the folder)."""

from dataclasses import dataclass
from pathlib import Path

from thinkimg.api import BASE, Manifest, ManifestError, ToolRLJob, load_manifest
from thinkimg.errors import UserError
from thinkimg.jsonfile import read
from thinkimg.models.checkpoint import is_model
from thinkimg.results import RunMarker
from thinkimg.tools.registry import own_tools

MARKER = "run.json"
MANIFEST = "manifest.yaml"
REPLACED = "replaced"
"""Below a run: stages that are being done again, as they were."""
_DEPTH = 5
"""RUN/stages/NAME/extended/checkpoint-50 is the deepest path of a model: so many steps below RUN, and RUN itself."""


def stage_folder(run: Path, stage: str) -> Path:
    return run / BASE if stage == BASE else run / "stages" / stage


def model_folder(run: Path, stage: str) -> Path:
    """Where the model of a stage is, or the base."""
    return run / BASE if stage == BASE else stage_folder(run, stage) / "model"


def models_of(run: Path) -> list[str]:
    """The base and the stages that have a model, by name."""
    found = sorted(path.parent.parent.name for path in run.glob("stages/*/model/config.json"))
    described = (run / MARKER).is_file() and (run / BASE / "done.json").is_file()
    return [BASE, *found] if described or is_model(run / BASE) else found


@dataclass(frozen=True)
class Place:
    """Where a path is in a run: `RUN/STAGE/REST` or `RUN/stages/STAGE/REST`; without a stage it is the run itself."""

    run: Path
    stage: str | None = None
    rest: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether the run has such a stage."""
        return self.stage is not None and (self.stage == BASE or stage_folder(self.run, self.stage).is_dir())

    @property
    def folder(self) -> Path:
        """Of the model: the stage's own, or the one that REST names (a checkpoint)."""
        assert self.stage is not None
        if self.rest in ((), ("model",)):
            return model_folder(self.run, self.stage)
        return stage_folder(self.run, self.stage).joinpath(*self.rest)


def place_of(path: Path) -> Place | None:
    """None for a path that is in no run. The path itself need not exist."""
    path = path.resolve()
    for run in (path, *path.parents)[:_DEPTH]:
        if (run / MARKER).is_file() or (run / "stages").is_dir():
            parts = path.relative_to(run).parts
            parts = parts[1:] if parts[:1] == ("stages",) else parts
            return Place(run, parts[0], parts[1:]) if parts else Place(run)
    return None


@dataclass(frozen=True)
class Origin:
    """What made a run.

    Attributes:
        job: with the run's seed.
        folder: of the file that was run; None for a run of an earlier version, which did not note it.
    """

    manifest: Manifest
    job: ToolRLJob
    folder: Path | None


def origin_of(run: Path) -> Origin | None:
    """None if the folder does not say.

    Raises:
        UserError: its manifest cannot be read (any more).
    """
    marker, manifest = run / MARKER, run / MANIFEST
    if not marker.is_file() or not manifest.is_file():
        return None
    try:
        made = read(marker, RunMarker)
        loaded = load_manifest(manifest, own_tools())
        job = loaded.job(made.job)
        job.spec.seed = made.seed
        return Origin(loaded, job, Path(made.folder) if made.folder else None)
    except (UserError, ManifestError) as error:
        raise UserError(f"the run's manifest cannot be read: {error}", str(run)) from error

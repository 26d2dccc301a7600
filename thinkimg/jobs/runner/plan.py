"""What `thinkimg run` would do with each stage, and why: what a folder holds compared with what the manifest says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from thinkimg.api import Manifest, ToolRLJob, load_manifest
from thinkimg.errors import UserError
from thinkimg.figures import duration
from thinkimg.identity import Identity, differences
from thinkimg.jobs.identity import identities
from thinkimg.jobs.layout import IDENTITY, Run
from thinkimg.jsonfile import read
from thinkimg.results import RunMarker, StageIdentity, is_complete
from thinkimg.tools.registry import own_tools
from thinkimg.training.checkpoints import check_processes, mark_of, newest_checkpoint

Action = Literal["done", "run", "go on", "again", "take back"]
_MODELS = "evaluate.models["
_SCORER = ("scorer.", "code.")
CONTROL = ("evaluate.control", "evaluate.controlScope")
"""What changes no answer to a question with its true pictures."""
_LONGEST = 60
"""Characters of a value that are shown."""


@dataclass(frozen=True)
class Planned:
    """Of one stage.

    Attributes:
        action: `run`: it has never begun. `go on`: it was interrupted. `again`: it is made of something else now.
            `take back`: so it is, but what it was before is still there and is as the manifest says.
        identity: what it is made of, by the manifest.
        before: what its folder is made of; None where nothing is known of it.
        changes: field to its value before and now.
        step: of the checkpoint that it would go on from.
        seconds: that the result took which is done again.
    """

    name: str
    action: Action
    identity: Identity
    before: Identity | None = None
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    step: int | None = None
    seconds: float | None = None

    @property
    def waits(self) -> bool:
        """Whether its processes are to be started."""
        return self.action in ("run", "go on", "again")

    @property
    def judged_anew(self) -> bool:
        """Whether only what judges has changed: of a synthesis its filters, of both it and an evaluation the scorer."""
        kinds: dict[str, tuple[str, ...]] = {"Synthesize": (*_SCORER, "synthesize.filters."), "Evaluate": _SCORER}
        judges = kinds.get(str(self.identity.get("type")), ())
        return bool(self.changes) and all(name.startswith(judges) for name in self.changes)

    @property
    def keeps(self) -> list[str]:
        """What of the stage's folder is as good as made again: answers of models that have not changed, and of a
        synthesis all trajectories. Both are judged anew."""
        if self.identity.get("type") == "Synthesize":
            return ["trajectories"] if self.judged_anew else []
        if not all(name.startswith((_MODELS, *_SCORER)) or name in CONTROL for name in self.changes):
            return []
        models = [name for name in self.identity if name.startswith(_MODELS) and name not in self.changes]
        return [name.removeprefix(_MODELS).removesuffix("]") for name in models]

    @property
    def fate(self) -> str:
        """In words."""
        if self.action == "go on":
            return "would go on" + (f" from step {self.step}" if self.step else "")
        if self.action == "again" and self.judged_anew:
            return "would be judged anew, with all that was made"
        if self.action == "again":
            return "would run again" + (f" (it took {duration(self.seconds)})" if self.seconds else "")
        return {"done": "done", "run": "would run", "take back": "done before, taken back"}[self.action]

    @property
    def reason(self) -> str:
        """Which fields have changed, from what to what."""
        return "; ".join(_change(name, *values) for name, values in self.changes.items())

    def as_json(self) -> dict[str, Any]:
        changes = {name: list(values) for name, values in self.changes.items()}
        return {
            "stage": self.name, "action": self.action, "step": self.step, "seconds": self.seconds, "changes": changes,
        }  # fmt: skip


def plan(run: Run, manifest: Manifest, job: ToolRLJob, seed: int) -> list[Planned]:
    """Of the base and every stage, in order. Nothing is written.

    Raises:
        UserError: the folder holds a run of another job, or a checkpoint that so many processes cannot go on from.
    """
    wanted, earlier = identities(manifest, job, seed, manifest.folder), _Earlier(run, job.name)
    return [_planned(run, name, identity, earlier, job) for name, identity in wanted.items()]


def _planned(run: Run, name: str, wanted: Identity, earlier: "_Earlier", job: ToolRLJob) -> Planned:
    folder, done = run.stage(name), run.done(name)
    before = identity_in(folder) or earlier.identity(name)
    changes = {} if before is None else differences(before, wanted)
    if not changes and done is not None and is_complete(done):
        return Planned(name, "done", wanted, before)
    if (run.replaced(name) / "done.json").exists() and identity_in(run.replaced(name)) == wanted:
        return Planned(name, "take back", wanted, before, changes)
    if done is None and not (folder / "attempt").exists():
        return Planned(name, "run", wanted)
    if not changes:
        newest = newest_checkpoint(folder)
        if newest is not None:
            check_processes(newest, job.spec.stage(name).world_size)  # the base has none
        return Planned(name, "go on", wanted, before, step=None if newest is None else mark_of(newest).step)
    return Planned(name, "again", wanted, before, changes, seconds=None if done is None else done.seconds)


def identity_in(folder: Path) -> Identity | None:
    """As the stage's folder says; None if it does not."""
    path = folder / IDENTITY
    return read(path, StageIdentity).made_of if path.exists() else None


class _Earlier:
    """What the stages of a run were made of that an earlier version began: by the manifest that it ran."""

    def __init__(self, run: Run, job: str) -> None:
        self.run = run
        self.marker = read(run.marker, RunMarker) if run.marker.exists() else None
        self._found: dict[str, Identity] | None = None
        if self.marker is not None and self.marker.job != job:
            raise UserError(
                f"this folder holds a run of another job, {self.marker.job}; name another folder, or delete it",
                f"--run {run.path}",
            )

    def identity(self, name: str) -> Identity | None:
        """None where nothing is known of it."""
        if self._found is None:
            self._found = dict(self._read())
        return self._found.get(name)

    def _read(self) -> Iterator[tuple[str, Identity]]:
        if self.marker is None or not self.run.manifest.exists():
            return
        manifest, folder = load_manifest(self.run.manifest, own_tools()), Path(self.marker.folder or self.run.path)
        yield from identities(manifest, manifest.job(self.marker.job), self.marker.seed, folder).items()


def table_of(planned: Sequence[Planned]) -> Table:
    """For a terminal."""
    table = Table("stage", "what happens", "why", box=None, pad_edge=False)
    for one in planned:
        table.add_row(one.name, one.fate, one.reason)
    return table


def _change(name: str, before: Any, now: Any) -> str:
    """A stage that is done again, or a field with another value."""
    origins = [str(value).partition("@") for value in (before, now)]
    if all(mark for _, mark, _ in origins) and origins[0][0] == origins[1][0]:
        return f"{origins[1][0]} is another one"
    if name.endswith(".content") or name.startswith(("code.", "model.content")):
        return f"{name.removesuffix('.content')} has another content"
    return f"{name}: {_shown(before)} → {_shown(now)}"


def _shown(value: Any) -> str:
    text = "the default" if value is None else str(value).partition("@")[0]
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

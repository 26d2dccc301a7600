"""A stage that is done again: what it was stands in `RUN/replaced/NAME` until the new one is finished."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from thinkimg.jobs.layout import IDENTITY, Run
from thinkimg.jobs.runner.plan import CONTROL, Planned
from thinkimg.jsonfile import write
from thinkimg.results import StageIdentity


def set_aside(run: Run, planned: Planned) -> None:
    """Make room for a stage that is done again. One that was never finished takes no finished one's place. Of an
    evaluation, answers that would be the same are kept: of models that have not changed, and under another control; of
    a synthesis, trajectories that are only judged otherwise."""
    folder, aside = run.stage(planned.name), run.replaced(planned.name)
    if (folder / "done.json").exists() or not aside.exists():
        _move(folder, aside)
    else:
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    note_identity(run, planned)
    others = ("control-*",) if any(name in planned.changes for name in CONTROL) else ()
    for kept in planned.keeps:
        if (aside / kept).is_dir():
            left_out = shutil.ignore_patterns(*others)
            shutil.copytree(aside / kept, folder / kept, ignore=left_out, copy_function=_linked)


def note_identity(run: Run, planned: Planned) -> None:
    """In the stage's folder."""
    write(run.stage(planned.name) / IDENTITY, StageIdentity(made_of=planned.identity))


def note_earlier(run: Run, planned: Planned) -> None:
    """What an earlier version made is known from the run's manifest only, until that is written anew."""
    folder = run.stage(planned.name)
    if planned.before is not None and folder.exists() and not (folder / IDENTITY).exists():
        write(folder / IDENTITY, StageIdentity(made_of=planned.before))


def take_back(run: Run, name: str) -> None:
    """Exchange a stage for what it was before."""
    folder, aside, between = run.stage(name), run.replaced(name), run.replaced(f"{name}.exchanged")
    if folder.exists():
        _move(folder, between)
    aside.rename(folder)
    if between.exists():
        _move(between, aside)


def forget(run: Run, name: str) -> None:
    """The new one is finished."""
    shutil.rmtree(run.replaced(name), ignore_errors=True)


def set_others_aside(run: Run, names: Collection[str]) -> list[str]:
    """Stages that the manifest has no longer; their names."""
    others = [path.name for path in (run.path / "stages").glob("*") if path.is_dir() and path.name not in names]
    for name in others:
        _move(run.stage(name), run.replaced(name))
    return others


def _move(folder: Path, to: Path) -> None:
    shutil.rmtree(to, ignore_errors=True)
    to.parent.mkdir(exist_ok=True)
    folder.rename(to)


def _linked(source: str, target: str) -> None:
    """Pictures are never changed; what is written into is copied."""
    (shutil.copy2 if source.endswith(".jsonl") else os.link)(source, target)

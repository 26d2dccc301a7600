"""Where a run's files are. Runner, stages, report and export agree by this file alone.

RUN/manifest.yaml            the file that was run
RUN/lock                     held while a process works on the run
RUN/base/                    the model before any stage (a made preset; downloaded models stay in their cache)
RUN/stages/NAME/             one stage: output.log, log.jsonl, trajectories/, model/, tools.json
RUN/stages/NAME/done.json    written last: a stage is finished exactly if this file exists
RUN/results.json, results.md, report.html, plots/
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinkimg.api import BASE
from thinkimg.models.runs import model_folder, stage_folder


@dataclass(frozen=True)
class Run:
    path: Path

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.yaml"

    @property
    def base(self) -> Path:
        return self.path / BASE

    def stage(self, name: str) -> Path:
        return stage_folder(self.path, name)

    def model(self, name: str) -> Path:
        """The folder of a trained stage's model, or of the base."""
        return model_folder(self.path, name)

    def done(self, name: str) -> dict[str, Any] | None:
        """What a finished stage left, None if it is not finished."""
        path = self.stage(name) / "done.json"
        return json.loads(path.read_text()) if path.exists() else None

    def finish(self, name: str, record: dict[str, Any]) -> None:
        write_json(self.stage(name) / "done.json", record)


def write_json(path: Path, value: Any) -> None:
    """Atomically: a reader sees the old file or the new one."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    partial.replace(path)

"""Where a run's files are. Runner, stages, report and export agree by this file alone.

RUN/manifest.yaml            the file that was run
RUN/run.json                 whose run this is; a run of another job is refused
RUN/lock                     held while `thinkimg run` works on the run
RUN/stages.lock              held by the processes of its stages, which may outlive it for a moment
RUN/base/                    the model before any stage (a made preset; downloaded models stay in their cache)
RUN/stages/NAME/             one stage: output.log, log.jsonl, trajectories/, model/, tools.json
RUN/stages/NAME/identity.json   what the stage is made of: a stage is done again when that has changed
RUN/stages/NAME/done.json    written last: a stage is finished exactly if this file exists
RUN/replaced/NAME/           a stage that is being done again, until the new one is finished
RUN/results.json, results.md, report.html, plots/

What stands in the JSON files: `thinkimg.results`.
"""

from dataclasses import dataclass
from pathlib import Path

from thinkimg.api import BASE
from thinkimg.jsonfile import read, write
from thinkimg.models.runs import REPLACED, model_folder, stage_folder
from thinkimg.results import AnyDone, ToolCalls, ToolFigures, read_done

IDENTITY = "identity.json"


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

    def replaced(self, name: str) -> Path:
        """What a stage was, until it is done again."""
        return self.path / REPLACED / name

    @property
    def marker(self) -> Path:
        return self.path / "run.json"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    def done(self, name: str) -> AnyDone | None:
        """What a finished stage left, None if it is not finished.

        Raises:
            UserError: the file is there and cannot be read.
        """
        path = self.stage(name) / "done.json"
        return read_done(path, base=name == BASE) if path.exists() else None

    def finish(self, name: str, done: AnyDone) -> None:
        write(self.stage(name) / "done.json", done)

    def tools(self) -> dict[str, dict[str, ToolFigures]]:
        """Tool calls by stage (`v-toolrl`) and, for an Evaluate stage, by stage and model (`table/v-toolrl`)."""
        stages = self.path / "stages"
        return {
            path.parent.relative_to(stages).as_posix(): read(path, ToolCalls).tools
            for path in sorted(stages.glob("**/tools.json"))
        }

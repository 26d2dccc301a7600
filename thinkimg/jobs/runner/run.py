"""`thinkimg run job.yaml`: every stage of a ToolRLJob on this machine, one after another, each in processes of its own.

What is finished is not repeated unless it would be made of something else now, and a stage that was interrupted goes
on from what it saved. The tool servers of a stage live as long as the stage, so that each begins with empty caches and
none outlives the run.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from thinkimg.api import Manifest, ManifestError, Problem, ToolRLJob, check_local, load_manifest, scheme_of, suggestion
from thinkimg.api.pod_contract import ProgressLine, Variable, stage_arguments
from thinkimg.client import merge_stats
from thinkimg.errors import UserError
from thinkimg.evaluation.origins import origins_of_stages
from thinkimg.evaluation.report import terminal_table, write_report
from thinkimg.jobs.attempt import next_attempt
from thinkimg.jobs.environment import environment_of_stage
from thinkimg.jobs.layout import BASE, Run
from thinkimg.jobs.preflight.process import check_before
from thinkimg.jobs.runner.describe import outcome
from thinkimg.jobs.runner.forecast import Forecast
from thinkimg.jobs.runner.plan import Planned, plan
from thinkimg.jobs.runner.processes import StageFailed, locked, run_processes
from thinkimg.jobs.runner.replacing import forget, note_earlier, note_identity, set_aside, set_others_aside, take_back
from thinkimg.jobs.runner.screen import Course, Screen, announce, screen
from thinkimg.jsonfile import read, write
from thinkimg.models.reference import Reader, check_source
from thinkimg.private import write_private
from thinkimg.results import (
    EvaluateDone,
    ModelFigures,
    RunMarker,
    RunResults,
)
from thinkimg.serving import ServerSpec, Supervisor
from thinkimg.serving.supervisor import with_group_key
from thinkimg.serving.vision_tools import server_of
from thinkimg.synthesis.planner import CHAINS
from thinkimg.tools.registry import backends_here, own_tools
from thinkimg.viewer.page import write_page


@dataclass
class JobRun:
    """One run of one job in one folder.

    Args:
        cache_tools: False sends every call over HTTP (to count or to stress them).
        secrets: where secrets are files, `NAME/KEY`.
    """

    manifest: Manifest
    job: ToolRLJob
    run: Run
    seed: int
    cache_tools: bool = True
    secrets: Path | None = None
    console: Console = field(default_factory=lambda: Console(stderr=True))
    _course: Course = field(init=False, repr=False)

    def execute(self) -> bool:
        """Run what is not finished. False if there was nothing to do.

        Raises:
            UserError: another process works on this folder, or it belongs to another job.
            StageFailed: a stage did not finish.
        """
        with locked(self.run, self.console) as held:
            planned = self.plan()
            self._claim_folder(planned)
            others = set_others_aside(self.run, [one.name for one in planned])
            if all(one.action == "done" for one in planned) and not others and (self.run.path / "report.html").exists():
                return False
            self._announce(planned, others)
            with screen(self.console, self._course) as shown:
                for one in planned:
                    self._take(one)
                    if one.waits:
                        self._stage(one, shown, held)
                        forget(self.run, one.name)
            self._report()
        return True

    def plan(self) -> list[Planned]:
        """What would be done with each stage, and why; see `plan`."""
        return plan(self.run, self.manifest, self.job, self.seed)

    def _announce(self, planned: Sequence[Planned], others: Sequence[str]) -> None:
        """What is done again, and where the run begins."""
        say = partial(self.console.print, highlight=False, soft_wrap=True)
        for one in planned:
            if one.action in ("again", "take back"):
                say(f"[bold]{one.name}[/] {one.fate.replace('would run', 'runs')}: {escape(one.reason)}")
        for name in others:
            say(f"[bold]{name}[/] is no longer in the manifest: it stands in {self.run.replaced(name)} now")
        waiting = [one.name for one in planned if one.waits]
        if 0 < len(waiting) < len(planned):
            say(f"going on with [bold]{waiting[0]}[/]: {len(planned) - len(waiting)} stages are done")
        self._course = Course(self.job, self._forecast(), waiting, len(planned))
        if waiting:
            announce(self.console, self._course)

    def _forecast(self) -> Forecast:
        """With what the stages say that were finished before, in one attempt each. How long the base took is not asked:
        it may come from the cache of another run."""
        forecast = Forecast(self.job)
        for stage in self.job.spec.stages:
            done = self.run.done(stage.name)
            if done is not None:
                once = next_attempt(self.run.stage(stage.name)) == 2
                forecast.finished(stage.name, done, done.seconds if once else None)
        return forecast

    def _take(self, planned: Planned) -> None:
        """The stage's folder as it is to begin with, and what it is made of."""
        if planned.action == "again":
            set_aside(self.run, planned)
        if planned.action == "take back":
            take_back(self.run, planned.name)
        self.run.stage(planned.name).mkdir(parents=True, exist_ok=True)
        note_identity(self.run, planned)

    def _claim_folder(self, planned: Sequence[Planned]) -> None:
        text = Path(self.manifest.source).read_text()
        folder = str(self.manifest.folder.resolve())
        self._check([one.name for one in planned if one.waits])
        for one in planned:
            note_earlier(self.run, one)
        write(self.run.marker, RunMarker(manifest=text, job=self.job.name, seed=self.seed, folder=folder))
        write_private(self.run.manifest, text)

    def _check(self, waiting: Sequence[str]) -> None:
        """What would be found out late is looked for before anything runs."""
        if any(name != BASE for name in waiting):
            say = partial(self.console.print, highlight=False, soft_wrap=True)
            say("checking data, model, settings, rewards, tools and endpoints of what will run")
            seconds = check_before(self.manifest, self.job, self.run.path, waiting, self.secrets)
            say(f"checked ({seconds:.0f} s)")

    # ---- one stage ------------------------------------------------------------------------------------------------

    def _stage(self, planned: Planned, shown: Screen, held: int) -> None:
        name = planned.name
        folder = self.run.stage(name)
        shown.begin(name, planned.step if planned.action == "go on" else 0)
        with ExitStack() as stack:
            environment = environment_of_stage(self.job.spec, name, self.secrets)
            environment[Variable.ATTEMPT] = str(next_attempt(folder))
            if self._needs_tools(name):
                shown.note("starting tools")
                servers = self.start_tools(name, folder / "servers", stack)
                environment[Variable.TOOL_ENDPOINTS] = ",".join(servers)
                environment |= {Variable.tool_key(number): key for number, key in enumerate(servers.values())}
            world = 1 if name == BASE else self.job.spec.stage(name).world_size
            log = folder / "output.log"
            code = run_processes(self._command(name), world, environment, log, held, partial(_hear, shown))
        done = self.run.done(name)
        if code or done is None:
            raise StageFailed(name, code or 1, log)
        shown.end(done, outcome(done, folder / "log.jsonl"))

    def start_tools(self, name: str, folder: Path, stack: ExitStack) -> dict[str, str]:
        """Start a stage's tool servers; their addresses with their keys. Experiments put something before them here."""
        entries = with_group_key(servers_of(self.manifest, self.job, self.secrets))
        return stack.enter_context(Supervisor(entries, folder)).keys

    def _command(self, name: str) -> list[str]:
        # The run's own copy: whoever edits the manifest meanwhile does not change the stages to come.
        command = [sys.executable, "-m", "thinkimg.cli"]
        command += stage_arguments(
            str(self.run.manifest), name, str(self.run.path), str(self.manifest.folder.resolve())
        )
        command += ["--seed", str(self.seed), "--job", self.job.name]
        return command if self.cache_tools else [*command, "--no-tool-cache"]

    def _needs_tools(self, name: str) -> bool:
        if name == BASE:
            return False
        stage = self.job.spec.stage(name)
        gated = stage.sft is not None and stage.sft.gate is not None and stage.sft.tool_use == "Enabled"
        return bool(self.job.spec.tools) and (stage.uses_tools or gated or stage.evaluate is not None)

    # ---- results --------------------------------------------------------------------------------------------------

    def _report(self) -> None:
        results = self._results()
        write(self.run.results, results)
        if not results.models:
            return
        report = write_report(self.run.path)
        page = write_page(self.run.path, report)
        self.console.print(terminal_table(report))
        say = partial(self.console.print, highlight=False, soft_wrap=True)
        say(f"its page, with a sample of the trajectories: [bold]{page}[/]")
        say(f"all of them: [bold]thinkimg view {self.run.path}[/]")

    def _results(self) -> RunResults:
        stages = self.job.spec.stages
        finished = {name: self.run.done(name) for name in (*(stage.name for stage in stages), BASE)}
        evaluated = [done for done in finished.values() if isinstance(done, EvaluateDone)]
        seconds = {name: done.seconds or 0.0 for name, done in finished.items() if done is not None}
        if setup := os.environ.get("THINKIMG_SETUP_SECONDS"):
            seconds["setup"] = float(setup)
        tools = self.run.tools()
        return RunResults(
            job=self.job.name,
            seed=self.seed,
            models=_models_of(evaluated),
            stages=origins_of_stages(stages),
            tools=merge_stats(*tools.values()),
            tools_by_stage=tools,
            seconds=dict(seconds),
        )


def _models_of(evaluated: list[EvaluateDone]) -> dict[str, ModelFigures]:
    """As the last stage that measured a model found it, with the controls of all of them."""
    models: dict[str, ModelFigures] = {}
    for done in evaluated:
        for model, figures in done.models.items():
            found = {(one.control, one.scope): one for one in figures.controls}
            earlier = models[model].controls if model in models else []
            kept = [one for one in earlier if (one.control, one.scope) not in found]
            models[model] = figures.model_copy(update={"controls": [*kept, *figures.controls]})
    return models


def servers_of(manifest: Manifest, job: ToolRLJob, secrets: Path | None = None) -> list[ServerSpec]:
    """One process per VisionTool that the job names."""
    return [server_of(manifest.tools[tool.name], secrets) for tool in job.spec.tools]


def job_of(manifest: Manifest, run: Run) -> ToolRLJob:
    """The job that made this run, with its seed."""
    marker = read(run.marker, RunMarker)
    job = manifest.job(marker.job)
    job.spec.seed = marker.seed
    return job


def prepare(
    path: Path,
    folder: Path | None,
    job: str | None = None,
    seed: int | None = None,
    cache_tools: bool = True,
    secrets: Path | None = None,
) -> JobRun:
    """Everything that can be refused, before anything starts.

    Raises:
        ManifestError: the file, with every problem in it.
    """
    console = Console(stderr=True)
    manifest = load_manifest(path, own_tools())
    chosen = manifest.job(job)
    installed = backends_here({tool.spec.tool for tool in manifest.tools.values()})
    check = check_local(manifest, available_tools=installed, secrets_dir=secrets)
    for warning in check.warnings:
        console.print(f"[yellow]warning[/] {escape(str(warning))}", soft_wrap=True)
    problems = [*check.problems, *_unknown_chains(manifest, chosen), *_missing_model(manifest, chosen)]
    if problems:
        raise ManifestError(problems, manifest.source)
    number = chosen.spec.seed if seed is None else seed
    run = Run((folder or Path("runs") / chosen.name).resolve())
    return JobRun(manifest, chosen, run, number, cache_tools, secrets, console)


_MODELS = "Complete the folder, or name another model."


def _missing_model(manifest: Manifest, job: ToolRLJob) -> Iterator[Problem]:
    """A folder that holds no whole model is refused now, not by the first stage that loads it."""
    spec = job.spec.model
    if scheme_of(spec.uri) in ("preset", "pvc"):
        return
    try:
        model = Reader("", manifest.folder, revision=spec.revision).read(spec.uri)
        print(model, file=sys.stderr)
        check_source(model.source)
    except UserError as error:
        yield manifest.problem(f"ToolRLJob/{job.name}", ("spec", "model", "uri"), str(error).lstrip(": "), _MODELS)


def _unknown_chains(manifest: Manifest, job: ToolRLJob) -> Iterator[Problem]:
    for index, stage in enumerate(job.spec.stages):
        for name in stage.synthesize.planner.chains if stage.synthesize else ():
            if name not in CHAINS:
                loc = ("spec", "stages", index, "synthesize", "planner", "chains", name)
                message = f'the scripted planner has no chain "{name}"'
                yield manifest.problem(f"ToolRLJob/{job.name}", loc, message, suggestion(name, CHAINS))


def _hear(shown: Screen, line: str) -> None:
    said = ProgressLine.parse(line)
    if said is not None:
        shown.hear(said)

"""`thinkimg run job.yaml`: every stage of a ToolRLJob on this machine, one after another, each in processes of its own.

What is finished is never repeated; what was interrupted starts again at its stage. The tool servers of a stage live as
long as the stage, so that each begins with empty caches and none outlives the run.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from thinkimg.agent.agent import Agent
from thinkimg.agent.tools import NoTools
from thinkimg.api import Manifest, ManifestError, Problem, ToolRLJob, check_local, load_manifest, scheme_of, suggestion
from thinkimg.api.pod_contract import ExitCode, ProgressLine, Variable, stage_arguments
from thinkimg.client import merge_stats
from thinkimg.errors import UserError
from thinkimg.evaluation.origins import origins_of_stages
from thinkimg.evaluation.report import terminal_table, write_report
from thinkimg.jobs.cores import available_cores
from thinkimg.jobs.environment import environment_of_stage
from thinkimg.jobs.layout import BASE, Run
from thinkimg.jobs.runner.ports import free_port
from thinkimg.jobs.stages.questions import UnaskedModel, load_tasks, load_trajectories
from thinkimg.jsonfile import read, write
from thinkimg.models.reference import Reader, check_source
from thinkimg.results import AnyDone, BaseDone, EvaluateDone, RunMarker, RunResults, SFTDone, SynthesizeDone
from thinkimg.serving import ServerSpec, Supervisor
from thinkimg.serving.vision_tools import server_of
from thinkimg.synthesis.planner import CHAINS
from thinkimg.tools.registry import backends_here, own_tools
from thinkimg.viewer.page import write_page


class StageFailed(Exception):
    """A stage's process ended with another code than 0; `code` is passed on."""

    def __init__(self, name: str, code: int, log: Path) -> None:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        super().__init__(f"stage {name} ended with exit code {code}; its log is {log}\n{tail}")
        self.code = code if code > 0 else ExitCode.INTERRUPTED


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

    def execute(self) -> bool:
        """Run what is not finished. False if there was nothing to do.

        Raises:
            UserError: another process works on this folder, or it belongs to another manifest.
            StageFailed: a stage did not finish.
        """
        names = [BASE, *(stage.name for stage in self.job.spec.stages)]
        with _locked(self.run):
            self._claim_folder()
            waiting = [name for name in names if self.run.done(name) is None]
            if not waiting and (self.run.path / "report.html").exists():
                return False
            if 0 < len(waiting) < len(names):
                self.console.print(f"going on with [bold]{waiting[0]}[/]: {len(names) - len(waiting)} stages are done")
            with _progress(self.console) as progress:
                for name in waiting:
                    self._stage(name, progress)
            self._report()
        return True

    def _claim_folder(self) -> None:
        text = Path(self.manifest.source).read_text()
        folder = str(self.manifest.folder.resolve())
        marker = RunMarker(manifest=text, job=self.job.name, seed=self.seed, folder=folder)
        if self.run.marker.exists():
            if not read(self.run.marker, RunMarker).same_run(marker):
                raise UserError(
                    "this folder holds a run of another manifest, job or seed; name another folder, or delete it",
                    f"--run {self.run.path}",
                )
        else:
            self._check_files()
        write(self.run.marker, marker)
        self.run.manifest.write_text(text)

    def _check_files(self) -> None:
        """Read the files that the job's data names, once, before any work: all questions, all pictures."""
        data, folder = self.job.spec.data, self.manifest.folder
        learns_from_file = any(stage.sft and self.job.spec.data_stage(stage) is None for stage in self.job.spec.stages)
        ready_made = data.trajectories or data.train
        if learns_from_file and "://" not in ready_made.uri:
            load_trajectories(data, folder, lambda: Agent(UnaskedModel(), NoTools()))
        for split in ("train", "validation", "test"):
            source = getattr(data, split)
            if source is None or "://" in source.uri or (learns_from_file and source is ready_made):
                continue
            load_tasks(data, split, self.seed, folder)

    # ---- one stage ------------------------------------------------------------------------------------------------

    def _stage(self, name: str, progress: Progress) -> None:
        folder = self.run.stage(name)
        shutil.rmtree(folder, ignore_errors=True)  # of an interrupted attempt; exact resume is not promised
        folder.mkdir(parents=True)
        task = progress.add_task(name, total=None, note="")
        with ExitStack() as stack:
            environment = environment_of_stage(self.job.spec, name, self.secrets)
            if self._needs_tools(name):
                progress.update(task, note="starting tools")
                environment[Variable.TOOL_ENDPOINTS] = ",".join(self.start_tools(name, folder / "servers", stack))
            world = 1 if name == BASE else self.job.spec.stage(name).world_size
            _run_processes(
                self._command(name), world, environment, folder / "output.log", name,
                lambda line: _show(progress, task, line),
            )  # fmt: skip
        done = self.run.done(name)
        if done is None:
            raise StageFailed(name, 1, folder / "output.log")
        progress.update(task, total=1, completed=1, note=f"[green]done[/] {_summary(done)}")

    def start_tools(self, name: str, folder: Path, stack: ExitStack) -> list[str]:
        """Start a stage's tool servers; their addresses. Experiments put something before them here."""
        entries = servers_of(self.manifest, self.job, self.secrets)
        return stack.enter_context(Supervisor(entries, folder)).endpoints

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
        self.console.print(f"every trajectory: [bold]{page}[/]")

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
            models={model: figures for done in evaluated for model, figures in done.models.items()},
            stages=origins_of_stages(stages),
            tools=merge_stats(*tools.values()),
            tools_by_stage=tools,
            seconds=dict(seconds),
        )


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
    run.path.mkdir(parents=True, exist_ok=True)
    return JobRun(manifest, chosen, run, number, cache_tools, secrets, console)


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
        yield manifest.problem(f"ToolRLJob/{job.name}", ("spec", "model", "uri"), str(error).lstrip(": "), "")


def _unknown_chains(manifest: Manifest, job: ToolRLJob) -> Iterator[Problem]:
    for index, stage in enumerate(job.spec.stages):
        for name in stage.synthesize.planner.chains if stage.synthesize else ():
            if name not in CHAINS:
                loc = ("spec", "stages", index, "synthesize", "planner", "chains", name)
                message = f'the scripted planner has no chain "{name}"'
                yield manifest.problem(f"ToolRLJob/{job.name}", loc, message, suggestion(name, CHAINS))


@contextmanager
def _locked(run: Run) -> Iterator[None]:
    with (run.path / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel frees it, however the process ends
        except BlockingIOError:
            raise UserError("another process is working on this run", f"--run {run.path}") from None
        yield


def _run_processes(
    command: Sequence[str],
    world: int,
    environment: dict[str, str],
    log: Path,
    name: str,
    show: Callable[[str], None],
) -> None:
    """Run one process per rank; rank 0's output is shown and logged, the others' only logged. All end together."""
    threads = str(max(1, available_cores() // world))
    shared = {"OMP_NUM_THREADS": threads, **os.environ, **environment}
    shared |= {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", Variable.PARENT: str(os.getpid())}
    if world > 1:
        shared |= {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        shared |= {"LOCAL_WORLD_SIZE": str(world)}
    processes: list[subprocess.Popen[str]] = []
    with log.open("a") as file:
        try:
            for rank in range(world):
                ranked = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {}
                processes.append(
                    subprocess.Popen(
                        command, env=shared | ranked, stderr=file, text=True,
                        stdout=subprocess.PIPE if rank == 0 else file,
                    )
                )  # fmt: skip
            assert processes[0].stdout is not None
            for line in processes[0].stdout:
                file.write(line)
                file.flush()
                show(line)
            codes = _wait(processes)
        finally:
            _end(processes)
    failed = [code for code in codes if code]
    if failed:
        raise StageFailed(name, failed[0], log)


def _wait(processes: list[subprocess.Popen[str]]) -> list[int]:
    """Exit codes; a rank that fails takes the others with it."""
    while True:
        codes = [process.poll() for process in processes]
        known = [code for code in codes if code is not None]
        if len(known) == len(codes):
            return known
        if any(known):
            _end(processes)
        time.sleep(0.05)


def _end(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# ---- the terminal ---------------------------------------------------------------------------------------------------


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("[bold]{task.description:<12}"), BarColumn(12), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"), console=console,
    )  # fmt: skip


def _show(progress: Progress, task: TaskID, line: str) -> None:
    said = ProgressLine.parse(line)
    if said is None:
        return
    numbers = [f"{name} {value:.3g}" for name, value in said.figures.items()]
    note = " ".join([*filter(None, [said.message]), *numbers])
    if said.step is None:
        progress.update(task, note=note)
    else:
        progress.update(task, note=note, completed=said.step, total=said.total_steps)


def _summary(done: AnyDone) -> str:
    """What a finished stage found, in a few words."""
    if isinstance(done, SynthesizeDone):
        return f"kept {done.kept}"
    figures = {"gate_accuracy": done.gate_accuracy, "loss": done.loss} if isinstance(done, SFTDone) else {}
    if isinstance(done, BaseDone):
        figures = {"loss": done.loss}
    return " ".join(f"{name} {value:.3g}" for name, value in figures.items() if value is not None)

"""`thinkimg run`, `stage` and `table`: the stages of a ToolRLJob on this machine."""

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from thinkimg.cli import completion
from thinkimg.cli.command import TRAIN, Command
from thinkimg.cli.options import AsJson, JobName, Manifest, RunFolder, Secrets, Seed, ToolCache
from thinkimg.cli.screen import notes, print_json, stdout_kept
from thinkimg.errors import UserError

if TYPE_CHECKING:
    from thinkimg.jobs.runner.plan import Planned


def run(
    manifest: Manifest,
    folder: RunFolder = None,
    job: JobName = None,
    seed: Seed = None,
    tool_cache: ToolCache = True,
    secrets_dir: Secrets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which stages would run, and why.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run every stage of a ToolRLJob on this machine.

    Its table and page are written into the run's folder. Run the same command again to go on after an interruption.
    After a correction of the manifest, only those stages run again that depend on it.
    """
    from thinkimg.evaluation.report import read_results
    from thinkimg.jobs.runner.run import prepare

    job_run = prepare(manifest, folder, job, seed, tool_cache, secrets_dir)
    if dry_run:
        show_plan(job_run.plan(), as_json)
        return
    with stdout_kept(as_json):
        worked = job_run.execute()
    if not worked:
        notes.print(f"this run is finished: see {job_run.run.path}/report.html (delete the folder to run it again)")
    if as_json:
        print_json(read_results(job_run.run.path).model_dump(mode="json"))


def show_plan(planned: "Sequence[Planned]", as_json: bool) -> None:
    """A line per stage: what would happen with it, and why."""
    from thinkimg.jobs.runner.plan import table_of

    if as_json:
        print_json([one.as_json() for one in planned])
    else:
        Console().print(table_of(planned))


def stage(
    manifest: Manifest,
    name: Annotated[
        str, typer.Argument(help="The stage, or `base` for the model before any.", autocompletion=completion.stages)
    ],
    folder: Annotated[Path, typer.Option("--run", help="The run's folder.")],
    job: JobName = None,
    seed: Seed = None,
    data_folder: Annotated[Path | None, typer.Option(help="Root of relative data. Default: beside the file.")] = None,
    tool_cache: ToolCache = True,
) -> None:
    """Run one stage: what `thinkimg run`, torchrun and pods execute.

    Ranks are read from RANK and WORLD_SIZE.
    """
    from thinkimg.jobs.environment import check_contract, tool_endpoints, tool_keys
    from thinkimg.jobs.runner.launch import launch, wants_torchrun
    from thinkimg.jobs.termination import told_before

    with told_before(name):
        check_contract(os.environ)
    if wants_torchrun(os.environ):
        raise typer.Exit(launch(sys.argv[1:]))
    _end_with_parent()
    from thinkimg.api import load_manifest
    from thinkimg.jobs.layout import Run
    from thinkimg.jobs.stages.context import Context, call_seconds_of
    from thinkimg.jobs.stages.stage import join_ranks, run_stage
    from thinkimg.tools.registry import own_tools

    with told_before(name):
        loaded = load_manifest(manifest, own_tools())
        chosen = loaded.job(job)
        if seed is not None:
            chosen.spec.seed = seed
        stages = ["base", *(known.name for known in chosen.spec.stages)]
        if name not in stages:
            raise UserError(f"there is no stage {name!r}; there are {', '.join(stages)}", "NAME")
    endpoints = tool_endpoints(os.environ)
    with join_ranks() as (rank, world_size):
        context = Context(
            chosen,
            Run(folder.resolve()),
            [tool.spec.tool for tool in loaded.tools_of(chosen)],
            endpoints,
            tool_keys(endpoints, os.environ),
            call_seconds_of(loaded, chosen),
            data_folder or loaded.folder,
            cache_tools=tool_cache,
            rank=rank,
            world_size=world_size,
        )
        run_stage(context, name)


def _end_with_parent() -> None:
    """A stage ends when `thinkimg run` is gone, however it went: its results would have no reader."""
    from thinkimg.api.pod_contract import ExitCode, Variable

    parent = int(os.environ.get(Variable.PARENT, "0"))
    if not parent:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(ExitCode.INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()


def table(
    manifest: Manifest,
    folder: Annotated[Path, typer.Option("--run", help="The folder for the runs of all seeds.")] = Path("runs/table"),
    job: JobName = None,
    secrets_dir: Secrets = None,
    as_json: AsJson = False,
) -> None:
    """Run a job with each of its seeds; write the table over them.

    The seeds are spec.seeds; the table has means, intervals and paired differences.
    """
    from thinkimg.evaluation.seeds import write_table
    from thinkimg.jobs.runner.run import prepare

    first = prepare(manifest, folder / "check", job, secrets=secrets_dir)
    runs = []
    for seed in first.job.spec.seeds:
        job_run = prepare(manifest, folder / f"seed-{seed}", job, seed, secrets=secrets_dir)
        with stdout_kept(as_json):
            job_run.execute()
        runs.append(job_run.run.path)
    made = write_table(runs, folder, resamples=first.job.spec.resamples)
    notes.print((folder / "results.md").read_text(encoding="utf-8"))
    if as_json:
        print_json(made.model_dump(mode="json"))


COMMANDS = (
    Command(
        "run", run, TRAIN,
        (
            "thinkimg run manifests/toolrljob-cpu.yaml --run runs/demo",
            "thinkimg run job.yaml --dry-run",
            "thinkimg run job.yaml --seed 1 --json > results.json",
        ),
        extras=("train", "tools"), needs=("torch", "transformers"),
    ),
    Command(
        "table", table, TRAIN,
        ("thinkimg table manifests/toolrljob-cpu.yaml --run runs/table",),
        extras=("train", "tools"), needs=("torch", "transformers"),
    ),
    Command(
        "stage", stage, TRAIN,
        ("thinkimg stage job.yaml v-toolrl --run runs/demo",),
        extras=("train",), needs=("torch", "transformers"),
    ),
)  # fmt: skip

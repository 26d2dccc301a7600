"""The command `thinkimg`. Heavy imports (torch, servers) happen inside the commands that need them."""

import json
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from thinkimg import __version__
from thinkimg.api.pod_contract import ExitCode, Variable
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.evaluation import commands as evaluation_commands
from thinkimg.jobs import synthesis

app = typer.Typer(
    help="Teach vision-language models to think with images.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip
gateway_app = typer.Typer(help="Serve tools and models to outsiders.", invoke_without_command=True)
keys_app = typer.Typer(help="Add, list and remove the keys that callers of a gateway need.", no_args_is_help=True)
gateway_app.add_typer(keys_app, name="keys")
app.add_typer(gateway_app, name="gateway")
console = Console(stderr=True)

_TYPER_INTERRUPTED = 130

Manifest = Annotated[Path, typer.Argument(help="A file with a ToolRLJob and its VisionTools.")]
RunFolder = Annotated[Path | None, typer.Option("--run", help="The run's folder. Default: runs/<job>.")]
JobName = Annotated[str | None, typer.Option("--job", help="Which ToolRLJob, if the file has several.")]
Secrets = Annotated[Path | None, typer.Option(help="Where the manifest's secrets are files, DIR/NAME/KEY.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Instead of the manifest's spec.seed.")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def run(
    manifest: Manifest,
    folder: RunFolder = None,
    job: JobName = None,
    seed: Seed = None,
    tool_cache: Annotated[bool, typer.Option(help="Keep tool results in memory during a stage.")] = True,
    secrets_dir: Secrets = None,
) -> None:
    """Run every stage of a ToolRLJob on this machine, and write its table and page. Run again to go on."""
    from thinkimg.jobs.runner.run import prepare

    job_run = prepare(manifest, folder, job, seed, tool_cache, secrets_dir)
    if not job_run.execute():
        console.print(f"this run is finished: see {job_run.run.path}/report.html (delete the folder to run it again)")


@app.command()
def stage(
    manifest: Manifest,
    name: Annotated[str, typer.Argument(help="The stage, or `base` for the model before any.")],
    folder: Annotated[Path, typer.Option("--run", help="The run's folder.")],
    job: JobName = None,
    seed: Seed = None,
    data_folder: Annotated[Path | None, typer.Option(help="Root of relative data. Default: beside the file.")] = None,
    tool_cache: bool = True,
) -> None:
    """Run one stage. `thinkimg run`, torchrun and pods execute this; ranks are read from RANK and WORLD_SIZE."""
    from thinkimg.jobs.environment import check_contract, tool_endpoints, tool_keys
    from thinkimg.jobs.runner.launch import launch, wants_torchrun

    check_contract(os.environ)
    if wants_torchrun(os.environ):
        raise typer.Exit(launch(sys.argv[1:]))
    _end_with_parent()
    from thinkimg.api import load_manifest
    from thinkimg.jobs.layout import Run
    from thinkimg.jobs.stages.context import Context, call_seconds_of
    from thinkimg.jobs.stages.stage import join_ranks, run_stage
    from thinkimg.tools.registry import own_tools

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


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A trained stage: runs/demo/stages/v-toolrl, or runs/demo/v-toolrl.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
) -> None:
    """Write a trained model with its processor and a model card that holds the table."""
    from thinkimg.jobs.export import export_model

    export_model(model, out)
    console.print(f"wrote {out}: load it with transformers' AutoModelForImageTextToText.from_pretrained")


@app.command("view")
def view_runs(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders, or files of trajectories.")],
    host: Annotated[
        str, typer.Option(help="Where to listen. Beyond this machine, a token is asked for.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Default: 8750, or a free one if it is taken.")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="THINKIMG_VIEW_TOKEN", help="Ask for this token, also on this machine.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the selection as one HTML file instead of serving.")] = None,
    select: Annotated[str, typer.Option(help="A filter, or the address of a page that shows it.")] = "",
) -> None:
    """Look at runs and their trajectories in a browser: filters, pictures, tokens, models side by side, curves."""
    try:
        from thinkimg.viewer.command import view
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise UserError("this command needs the extra `serving`: pip install 'thinkimg[serving]'", "thinkimg") from None
    view(paths, host, port, token, out, select, Console())


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    model: Annotated[Path, typer.Option(help="A trained stage of a run.")],
    image: Annotated[list[Path], typer.Option(help="A picture; may be given several times.")],
    out: Annotated[Path | None, typer.Option(help="Write the trajectory (JSON lines and pictures) here.")] = None,
    secrets_dir: Secrets = None,
) -> None:
    """Ask a trained model about your own picture, live tools and all."""
    from thinkimg.jobs.ask import ask_model

    print(ask_model(model, image, question, out, console, secrets_dir))


@app.command()
def table(
    manifest: Manifest,
    folder: Annotated[Path, typer.Option("--run", help="The folder for the runs of all seeds.")] = Path("runs/table"),
    job: JobName = None,
    secrets_dir: Secrets = None,
) -> None:
    """Run a job with each of its spec.seeds; write the table of means, intervals and differences."""
    from thinkimg.evaluation.report import write_table
    from thinkimg.jobs.runner.run import prepare

    first = prepare(manifest, folder / "check", job, secrets=secrets_dir)
    runs = []
    for seed in first.job.spec.seeds:
        job_run = prepare(manifest, folder / f"seed-{seed}", job, seed, secrets=secrets_dir)
        job_run.execute()
        runs.append(job_run.run.path)
    write_table(runs, folder)
    console.print((folder / "results.md").read_text())


app.command("eval")(evaluation_commands.eval_command)
app.command("compare")(evaluation_commands.compare_command)
app.command("synthesize")(synthesis.synthesize_command)


@app.command()
def tools(
    name: Annotated[str | None, typer.Argument(help="Show the schema of this tool.")] = None,
    arguments: Annotated[list[str] | None, typer.Argument(help="Call it: KEY=VALUE …, values as in JSON.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture, img_1; given again, img_2 …")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the result as a picture to this file.")] = None,
    backend: Annotated[str | None, typer.Option(help="Instead of the tool's default.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of the backend.")] = None,
    server: Annotated[str | None, typer.Option(help="Call it at this address instead of in this process.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result's numbers.")] = False,
) -> None:
    """List the vision tools, show one's schema, or call one on a picture: `thinkimg tools OCR --image chart.png`."""
    from thinkimg.serving import tool_commands as commands

    if name is None:
        commands.list_tools(Console(), server)
    elif not (arguments or image):
        print(json.dumps(commands.schema_of(name, server).as_function(), indent=2))
    else:
        call = commands.Call(name, arguments or [], image or [], backend, option or [], server)
        print(commands.show(call, out, as_json))


@app.command()
def serve(
    names: Annotated[list[str] | None, typer.Argument(help="The tools: OCR Crop …")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML or JSON with everything, instead of names.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 0,
    backend: Annotated[str | None, typer.Option(help="Of the tool, if there is one.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of the backend; values as in JSON.")] = None,
    workers: Annotated[int, typer.Option(help="Threads that run tools.")] = 4,
    device: Annotated[str | None, typer.Option(help="CUDA_VISIBLE_DEVICES, e.g. 0.")] = None,
) -> None:
    """Serve tools over HTTP in this process until Ctrl-C or SIGTERM. A key is read from THINKIMG_TOOL_API_KEY."""
    from thinkimg.serving.config import parse_config, read_config
    from thinkimg.serving.process import serve as run_server
    from thinkimg.serving.tool_commands import read_pairs

    if bool(names) == (config is not None):
        raise UserError("name tools to serve, or give --config FILE", "NAMES")
    if config is None:
        entries = [
            {"name": name, "backend": backend, "options": read_pairs(option or [], "--option")} for name in names or ()
        ]
        if len(entries) > 1 and (backend or option):
            raise UserError("--backend and --option speak of one tool; use --config for several", "--backend")
        chosen = parse_config({"tools": entries, "host": host, "port": port, "workers": workers})
    else:
        chosen = read_config(config)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device  # before anything imports torch
    code = run_server(chosen)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a tool that hangs in a thread must not keep the process


@app.command()
def up(
    file: Annotated[Path, typer.Argument(help="A file with `services`, or a manifest with VisionTools.")],
    from_openthinkimg: Annotated[bool, typer.Option(help="The file is OpenThinkIMG's all_service.yaml.")] = False,
    logs: Annotated[
        Path | None, typer.Option(help="Folder for logs, one file a process. Default: logs/<file>.")
    ] = None,
    secrets_dir: Secrets = None,
    keys_file: Annotated[Path | None, typer.Option(help="Of the gateway: what `gateway keys` wrote.")] = None,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="The gateway serves a public interface without keys.")
    ] = False,
) -> None:
    """Start every server of a file, restart those that die, show how they are; Ctrl-C stops all."""
    from thinkimg.openthinkimg.services import read_openthinkimg
    from thinkimg.serving.fleet import read_fleet
    from thinkimg.serving.up import run_fleet

    plan = read_openthinkimg(file) if from_openthinkimg else read_fleet(file, secrets_dir)
    if plan.gateway is not None or keys_file or allow_anonymous:
        from thinkimg.gateway.fleet import on_this_machine_unless_guarded, with_gateway

        if from_openthinkimg:
            plan = on_this_machine_unless_guarded(plan, keys_file, allow_anonymous)
        plan = with_gateway(plan, file.parent, keys_file, allow_anonymous)
    for note in plan.notes:
        console.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True, highlight=False)
    run_fleet(plan.servers, logs or Path("logs") / file.stem, Console())


@gateway_app.callback()
def gateway(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="YAML of a gateway; the options below are stronger.")] = None,
    server: Annotated[list[str] | None, typer.Option(help="A tool server's URL; may be given several times.")] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: 8700; 0 takes a free one.")] = None,
    keys_file: Annotated[
        Path | None, typer.Option(help="What `gateway keys` wrote; every call then needs one.")
    ] = None,
    allow_anonymous: Annotated[bool, typer.Option(help="Serve a public interface without keys.")] = False,
    ready_file: Annotated[Path | None, typer.Option(help="Written when ready, beside the line on stdout.")] = None,
) -> None:
    """Serve tools and models at one address: tools API, OpenAI-compatible chat, MCP, OpenThinkIMG's protocol."""
    if context.invoked_subcommand is not None:
        return
    from thinkimg.gateway.config import parse_config, read_config
    from thinkimg.gateway.process import serve

    overrides: dict[str, Any] = {
        "host": host,
        "port": port,
        "keys_file": keys_file,
        "allow_anonymous": allow_anonymous or None,
    }
    overrides = {name: value for name, value in overrides.items() if value is not None}
    if server:
        overrides["servers"] = [{"url": url} for url in server]
    serve(read_config(config, **overrides) if config else parse_config(overrides), ready_file)


KeysFile = Annotated[Path, typer.Option("--file", help="The file of keys.")]


@keys_app.command("add")
def add_gateway_key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    file: KeysFile,
    days: Annotated[int | None, typer.Option(help="It expires after so many days.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="HTTP requests.")] = None,
    calls_per_day: Annotated[int | None, typer.Option(help="Tool calls and chat completions of a UTC day.")] = None,
    in_flight: Annotated[int | None, typer.Option(help="Requests under way at once.")] = None,
) -> None:
    """Make a key and print it, once: the file holds its hash only."""
    from thinkimg.gateway.keys import add_key

    limits = {"requests_per_minute": requests_per_minute, "calls_per_day": calls_per_day, "in_flight": in_flight}
    expires = datetime.now(UTC) + timedelta(days=days) if days is not None else None
    print(add_key(file, name, expires=expires, **limits))


@keys_app.command("list")
def list_gateway_keys(file: KeysFile) -> None:
    """Show names, ids and limits."""
    from thinkimg.gateway.keys import read_keys

    for key in read_keys(file):
        document = key.model_dump(mode="json", exclude_none=True, exclude={"id", "name", "sha256"})
        print(f"{key.id}  {key.name}  {'  '.join(f'{field}={value}' for field, value in document.items())}")


@keys_app.command("remove")
def remove_gateway_key(name: Annotated[str, typer.Argument(help="Name or id.")], file: KeysFile) -> None:
    """Revoke a key. A gateway that runs notices within a second."""
    from thinkimg.gateway.keys import remove_key

    remove_key(file, name)


# ---- on a cluster ----------------------------------------------------------------------------------------------------

Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Default: kubectl's current one.")]
KubeContext = Annotated[str | None, typer.Option("--context", help="Of the kubeconfig. Default: the current one.")]
ClusterJob = Annotated[str, typer.Argument(metavar="NAME", help="A ToolRLJob.")]


def _cluster() -> ModuleType:
    """The client side, which an extra brings."""
    try:
        from thinkimg.jobs import cluster
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "kubernetes":
            raise
        raise UserError("this command needs the extra `cluster`: pip install 'thinkimg[cluster]'", "thinkimg") from None
    return cluster


@app.command()
def submit(manifest: Manifest, namespace: Namespace = None, context: KubeContext = None) -> None:
    """Apply a file's VisionTools and ToolRLJob to a cluster, checked before anything is sent."""
    cluster = _cluster()
    for name in cluster.submit(cluster.Place.find(namespace, context), manifest):
        console.print(f"{name} applied")


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="A ToolRLJob. Default: list all.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Until the job is over.")] = False,
    namespace: Namespace = None,
    context: KubeContext = None,
) -> None:
    """Show how far a job on a cluster is: its stages, what they wait for, what to do."""
    cluster = _cluster()
    place = cluster.Place.find(namespace, context)
    screen = Console()
    if name is None:
        screen.print(cluster.job_list(place.jobs()))
    elif watch:
        cluster.watch(place, name, screen)
    else:
        screen.print(cluster.stage_tree(place.job(name)))


@app.command()
def logs(
    name: ClusterJob,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job is over.")] = False,
    stage: Annotated[str | None, typer.Option(help="Default: the newest; with -f, all from now on.")] = None,
    rank: Annotated[int | None, typer.Option(help="Only the pod of this rank. Default: all.")] = None,
    tail: Annotated[int | None, typer.Option(help="Only the last lines of what is there. Default: all.")] = None,
    namespace: Namespace = None,
    context: KubeContext = None,
) -> None:
    """Print the logs of a job's pods on a cluster, all ranks together."""
    cluster = _cluster()
    cluster.print_logs(cluster.Place.find(namespace, context), name, stage, rank, follow, tail)


@app.command()
def results(
    name: ClusterJob,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    namespace: Namespace = None,
    context: KubeContext = None,
) -> None:
    """Print the table of a job on a cluster, as far as it is there."""
    cluster = _cluster()
    found = cluster.status_of(cluster.Place.find(namespace, context).job(name)).results
    if as_json:
        print(json.dumps([row.model_dump(by_alias=True) for row in found], indent=2))
    elif not found:
        raise UserError(f"{name} has no results yet; `thinkimg status {name}` says how far it is", "NAME")
    else:
        Console().print(cluster.results_table(found))


@app.command()
def suspend(name: ClusterJob, namespace: Namespace = None, context: KubeContext = None) -> None:
    """Stop a job's pods on a cluster, after they have saved; `resume` goes on from there."""
    cluster = _cluster()
    cluster.Place.find(namespace, context).set_suspend(name, True)
    console.print(f"{name} is asked to stop; `thinkimg resume {name}` goes on from its newest checkpoint")


@app.command()
def resume(name: ClusterJob, namespace: Namespace = None, context: KubeContext = None) -> None:
    """Go on with a suspended job on a cluster."""
    cluster = _cluster()
    cluster.Place.find(namespace, context).set_suspend(name, False)
    console.print(f"{name} goes on")


def _end_with_parent() -> None:
    """A stage ends when `thinkimg run` is gone, however it went: its results would have no reader."""
    parent = int(os.environ.get(Variable.PARENT, "0"))
    if not parent:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(ExitCode.INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()


def main() -> NoReturn:
    """Run the command; turn the families of errors into one line and an exit code."""
    from thinkimg.api import ManifestError

    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    code: int
    try:
        code = app(standalone_mode=False) or 0
        if code == _TYPER_INTERRUPTED:  # typer makes an exit of KeyboardInterrupt, and a return value of an exit
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        console.print("interrupted; run the same command again to go on")
        code = ExitCode.INTERRUPTED
    except (UserError, ManifestError) as error:
        _complain("error", error)
        code = ExitCode.USER
    except InfrastructureError as error:
        _complain("infrastructure", error)
        code = ExitCode.INFRASTRUCTURE
    except typer.Exit as exit:
        code = exit.exit_code
    except typer.Abort:
        code = ExitCode.BUG
    except Exception as error:
        code = _exit_code_of(error)
    sys.stdout.flush()
    sys.exit(code)


def _complain(family: str, error: Exception) -> None:
    """Never wrapped: who looks for a field's path in a log finds it whole."""
    console.print(f"[red]{family}[/] {escape(str(error))}", highlight=False, soft_wrap=True)


def _exit_code_of(error: Exception) -> int:
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # wrong usage; typer has its own copy of click's classes
        error.show()
        return int(error.exit_code)
    code = getattr(error, "code", None)
    if isinstance(code, int):  # a stage that failed has said why; its code is passed on
        _complain("error", error)
        return code
    console.print_exception()
    return ExitCode.BUG

"""`thinkimg submit`, `status`, `logs`, `results`, `suspend` and `resume`: jobs on a cluster."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from thinkimg.cli.command import CLUSTER, Command
from thinkimg.cli.options import AsJson, ClusterJob, KubeContext, Manifest, Namespace
from thinkimg.cli.screen import notes, print_json
from thinkimg.errors import UserError

if TYPE_CHECKING:
    from thinkimg.cluster.place import Place

_POLL_SECONDS = 1.0


def submit(
    manifest: Manifest, namespace: Namespace = None, context: KubeContext = None, as_json: AsJson = False
) -> None:
    """Apply a file's VisionTools and ToolRLJob to a cluster.

    It is checked before anything is sent.
    """
    from thinkimg.cluster.place import Place
    from thinkimg.cluster.submit import apply_manifest

    applied = apply_manifest(Place.find(namespace, context), manifest)
    for name in applied:
        notes.print(f"{name} applied")
    if as_json:
        print_json(applied)


def status(
    name: Annotated[str | None, typer.Argument(help="A ToolRLJob. Default: list all.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Until the job is over.")] = False,
    namespace: Namespace = None,
    context: KubeContext = None,
    as_json: AsJson = False,
) -> None:
    """Show how far a job on a cluster is, or list all jobs.

    Its stages, what they wait for, what to do.
    """
    from thinkimg.cli.cluster_tables import job_list, stage_tree
    from thinkimg.cluster.place import Place

    if watch and as_json:
        raise UserError("it follows a job on a terminal; --json prints one state: leave one of them away", "--watch")
    place = Place.find(namespace, context)
    screen = Console()
    if as_json:
        print_json(_document(place.job(name)) if name is not None else [_document(job) for job in place.jobs()])
    elif name is None:
        screen.print(job_list(place.jobs()))
    elif watch:
        _watch(place, name, screen)
    else:
        screen.print(stage_tree(place.job(name)))


def logs(
    name: ClusterJob,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job is over.")] = False,
    stage: Annotated[str | None, typer.Option(help="Default: the newest; with -f, all from now on.")] = None,
    rank: Annotated[int | None, typer.Option(help="Only the pod of this rank. Default: all.")] = None,
    tail: Annotated[int | None, typer.Option(help="Only the last lines of what is there. Default: all.")] = None,
    namespace: Namespace = None,
    context: KubeContext = None,
) -> None:
    """Print the logs of a job's pods, all ranks together."""
    from thinkimg.cluster.logs import print_logs
    from thinkimg.cluster.place import Place

    print_logs(Place.find(namespace, context), name, stage, rank, follow, tail)


def results(
    name: ClusterJob,
    namespace: Namespace = None,
    context: KubeContext = None,
    as_json: AsJson = False,
) -> None:
    """Print the table of a job, as far as it is there."""
    from thinkimg.cli.cluster_tables import results_table
    from thinkimg.cluster.place import Place
    from thinkimg.cluster.status import status_of

    found = status_of(Place.find(namespace, context).job(name)).results
    if as_json:
        print_json([row.model_dump(by_alias=True) for row in found])
    elif not found:
        raise UserError(f"{name} has no results yet; `thinkimg status {name}` says how far it is", "NAME")
    else:
        Console().print(results_table(found))


def suspend(name: ClusterJob, namespace: Namespace = None, context: KubeContext = None) -> None:
    """Stop a job's pods after they have saved."""
    from thinkimg.cluster.place import Place

    Place.find(namespace, context).set_suspend(name, True)
    notes.print(f"{name} is asked to stop; `thinkimg resume {name}` goes on from its newest checkpoint")


def resume(name: ClusterJob, namespace: Namespace = None, context: KubeContext = None) -> None:
    """Go on with a suspended job from its newest checkpoint."""
    from thinkimg.cluster.place import Place

    Place.find(namespace, context).set_suspend(name, False)
    notes.print(f"{name} goes on")


def _watch(place: "Place", name: str, console: Console) -> None:
    """Show the stage tree until the job is over."""
    from rich.live import Live

    from thinkimg.cli.cluster_tables import stage_tree
    from thinkimg.cluster.status import is_over, status_of

    with Live(console=console, refresh_per_second=2) as live:
        while True:
            job = place.job(name)
            live.update(stage_tree(job))
            if is_over(status_of(job)):
                return
            time.sleep(_POLL_SECONDS)


def _document(job: dict[str, Any]) -> dict[str, Any]:
    from thinkimg.cluster.status import is_over, status_of, summary

    metadata, status = job["metadata"], status_of(job)
    return {
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "summary": summary(status),
        "over": is_over(status),
        "status": job.get("status") or {},
    }


def _command(name: str, function: Callable[..., None], *examples: str) -> Command:
    return Command(name, function, CLUSTER, examples, extras=("cluster",), needs=("kubernetes",))


COMMANDS = (
    _command("submit", submit, "thinkimg submit job.yaml --namespace research"),
    _command("status", status, "thinkimg status", "thinkimg status demo --watch", "thinkimg status demo --json"),
    _command("logs", logs, "thinkimg logs demo --follow", "thinkimg logs demo --stage v-toolrl --rank 0 --tail 100"),
    _command("results", results, "thinkimg results demo --json"),
    _command("suspend", suspend, "thinkimg suspend demo"),
    _command("resume", resume, "thinkimg resume demo"),
)

"""`thinkimg submit`, `status`, `logs`, `results`, `suspend` and `resume`: jobs on a cluster."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from thinkimg.cli.options import ClusterJob, KubeContext, Manifest, Namespace
from thinkimg.cli.screen import notes
from thinkimg.errors import UserError

if TYPE_CHECKING:
    from thinkimg.cluster.place import Place

_POLL_SECONDS = 1.0


def _place(namespace: str | None, context: str | None) -> "Place":
    """Where kubectl would go. Raises `UserError`: the extra is missing, or kubectl has no configuration."""
    try:
        from thinkimg.cluster.place import Place
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "kubernetes":
            raise
        raise UserError("this command needs the extra `cluster`: pip install 'thinkimg[cluster]'", "thinkimg") from None
    return Place.find(namespace, context)


def submit(manifest: Manifest, namespace: Namespace = None, context: KubeContext = None) -> None:
    """Apply a file's VisionTools and ToolRLJob to a cluster, checked before anything is sent."""
    place = _place(namespace, context)
    from thinkimg.cluster.submit import apply_manifest

    for name in apply_manifest(place, manifest):
        notes.print(f"{name} applied")


def status(
    name: Annotated[str | None, typer.Argument(help="A ToolRLJob. Default: list all.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Until the job is over.")] = False,
    namespace: Namespace = None,
    context: KubeContext = None,
) -> None:
    """Show how far a job on a cluster is: its stages, what they wait for, what to do."""
    place = _place(namespace, context)
    from thinkimg.cli.cluster_tables import job_list, stage_tree

    screen = Console()
    if name is None:
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
    """Print the logs of a job's pods on a cluster, all ranks together."""
    place = _place(namespace, context)
    from thinkimg.cluster.logs import print_logs

    print_logs(place, name, stage, rank, follow, tail)


def results(
    name: ClusterJob,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    namespace: Namespace = None,
    context: KubeContext = None,
) -> None:
    """Print the table of a job on a cluster, as far as it is there."""
    place = _place(namespace, context)
    from thinkimg.cli.cluster_tables import results_table
    from thinkimg.cluster.status import status_of

    found = status_of(place.job(name)).results
    if as_json:
        print(json.dumps([row.model_dump(by_alias=True) for row in found], indent=2))
    elif not found:
        raise UserError(f"{name} has no results yet; `thinkimg status {name}` says how far it is", "NAME")
    else:
        Console().print(results_table(found))


def suspend(name: ClusterJob, namespace: Namespace = None, context: KubeContext = None) -> None:
    """Stop a job's pods on a cluster, after they have saved; `resume` goes on from there."""
    _place(namespace, context).set_suspend(name, True)
    notes.print(f"{name} is asked to stop; `thinkimg resume {name}` goes on from its newest checkpoint")


def resume(name: ClusterJob, namespace: Namespace = None, context: KubeContext = None) -> None:
    """Go on with a suspended job on a cluster."""
    _place(namespace, context).set_suspend(name, False)
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

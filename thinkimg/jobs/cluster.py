"""ToolRLJobs on a cluster, seen from a terminal: submit one, see how far it is, read its logs and its table.

Needs the extra `cluster`. Credentials and the current namespace are those of kubectl.
"""

import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TextIO

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from thinkimg.api import (
    API_VERSION,
    GROUP,
    Manifest,
    ManifestError,
    Problem,
    Result,
    StageStatus,
    ToolRLJobStatus,
    load_manifest,
    scheme_of,
    suggestion,
)
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.figures import duration, interval, percent

VERSION = API_VERSION.partition("/")[2]
PLURALS = {"VisionTool": "visiontools", "ToolRLJob": "toolrljobs"}
MANAGER = "thinkimg-submit"
JOB_LABEL, STAGE_LABEL, ATTEMPT_LABEL = (f"{GROUP}/{name}" for name in ("job", "stage", "attempt"))
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
CONTAINER = "stage"
_POLL_SECONDS = 1.0
_LAST_LINES_SECONDS = 5.0
"""What is waited for the last lines of logs when the job is over."""


@dataclass(frozen=True)
class Place:
    """A namespace of a cluster."""

    api: client.ApiClient
    namespace: str

    @classmethod
    def find(cls, namespace: str | None = None, context: str | None = None) -> "Place":
        """Where kubectl would go: KUBECONFIG or ~/.kube/config, and its current context and namespace.

        Raises:
            UserError: there is no such configuration.
        """
        try:
            contexts, current = config.list_kube_config_contexts()
            api = config.new_client_from_config(context=context)
        except config.ConfigException as error:
            raise UserError(f"there is no cluster to talk to: {error}", "KUBECONFIG") from error
        chosen = next((known for known in contexts if known["name"] == context), current)
        return cls(api, namespace or chosen["context"].get("namespace") or "default")

    def job(self, name: str) -> dict[str, Any]:
        """The ToolRLJob. Raises `UserError` when there is none of that name."""
        with _explained(f"ToolRLJob {name}"):
            try:
                found: dict[str, Any] = self._objects.get_namespaced_custom_object(*self._kind("ToolRLJob"), name)
                return found
            except ApiException as error:
                if error.status != 404:
                    raise
        names = [job["metadata"]["name"] for job in self.jobs()]
        near = suggestion(name, names) if names else "There is none at all."
        raise UserError(f'there is no ToolRLJob "{name}" in namespace {self.namespace}. {near}', "NAME")

    def jobs(self) -> list[dict[str, Any]]:
        """All ToolRLJobs of the namespace."""
        with _explained("ToolRLJobs"):
            listed: list[dict[str, Any]] = self._objects.list_namespaced_custom_object(*self._kind("ToolRLJob"))[
                "items"
            ]
            return listed

    def apply(self, document: dict[str, Any]) -> dict[str, Any]:
        """Server-side apply, as `kubectl apply --server-side`."""
        name = document["metadata"]["name"]
        with _explained(f"{document['kind']} {name}"):
            applied: dict[str, Any] = self._objects.patch_namespaced_custom_object(
                *self._kind(document["kind"]), name, document, field_manager=MANAGER,
                _content_type="application/apply-patch+yaml",
            )  # fmt: skip
            return applied

    def set_suspend(self, name: str, value: bool) -> None:
        """Write `spec.suspend`."""
        self.job(name)
        with _explained(f"ToolRLJob {name}"):
            self._objects.patch_namespaced_custom_object(
                *self._kind("ToolRLJob"), name, {"spec": {"suspend": value}},
                _content_type="application/merge-patch+json",
            )  # fmt: skip

    def pods(self, selector: str) -> list[Any]:
        """Pods of stages, by attempt and rank."""
        with _explained("pods"):
            pods = client.CoreV1Api(self.api).list_namespaced_pod(self.namespace, label_selector=selector).items
        return sorted(pods, key=lambda pod: (pod.metadata.creation_timestamp, _rank(pod)))

    def log(self, pod: str, follow: bool, tail: int | None) -> Iterator[str]:
        """Lines of a pod's log; with `follow`, until its container ends."""
        core = client.CoreV1Api(self.api)
        options = {"tail_lines": tail} if tail is not None else {}
        answer = core.read_namespaced_pod_log(
            pod, self.namespace, container=CONTAINER, follow=follow, _preload_content=False, **options
        )
        with answer:
            rest = b""
            for chunk in answer.stream(1 << 16):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace")
            if rest:
                yield rest.decode(errors="replace")

    @property
    def _objects(self) -> client.CustomObjectsApi:
        return client.CustomObjectsApi(self.api)

    def _kind(self, kind: str) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, PLURALS[kind]


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Errors of the API server in the families of ours."""
    try:
        yield
    except ApiException as error:
        _raise(error, what)
    except urllib3.exceptions.HTTPError as error:
        raise InfrastructureError(f"the API server does not answer: {error}") from error


def _raise(error: ApiException, what: str) -> NoReturn:
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = str(error.body or error.reason).strip()
    if error.status == 404:
        raise UserError(f"the cluster knows no {GROUP}/{VERSION}; install the charts thinkimg-crds and "
                        f"thinkimg-operator ({message})", what) from error  # fmt: skip
    if error.status in (400, 401, 403, 409, 422):
        raise UserError(message, what) from error
    raise InfrastructureError(f"{what}: the API server answered {error.status}: {message}") from error


# ---- submit ----------------------------------------------------------------------------------------------------------


def submit(place: Place, file: Path) -> list[str]:
    """Apply the file's VisionTools and ToolRLJobs, tools first; what was applied, as `ToolRLJob/demo`.

    Raises:
        ManifestError: the file, with every problem in it; data that only this machine has.
    """
    manifest = load_manifest(file)
    problems = list(_data_of_this_machine(manifest))
    if problems:
        raise ManifestError(problems, manifest.source)
    documents = [document for document in yaml.safe_load_all(file.read_text(encoding="utf-8")) if document]
    ours = [document for document in documents if document.get("kind") in PLURALS]
    ours.sort(key=lambda document: document["kind"] == "ToolRLJob")
    for document in ours:
        place.apply(document)
    return [f"{document['kind']}/{document['metadata']['name']}" for document in ours]


def _data_of_this_machine(manifest: Manifest) -> Iterator[Problem]:
    for job in manifest.jobs:
        for split in ("train", "validation", "test", "trajectories"):
            source = getattr(job.spec.data, split)
            if source is None or scheme_of(source.uri):
                continue
            remedy = (
                "Put it on a claim and name it as pvc://CLAIM/PATH, or on the hub as hf://OWNER/NAME. If it already is "
                "below the root of the job's storage, `kubectl apply -f` takes the file as it is."
            )
            yield manifest.problem(
                f"ToolRLJob/{job.name}", ("spec", "data", split, "uri"),
                f'"{source.uri}" is a path of this machine, and pods do not see it', remedy,
            )  # fmt: skip


# ---- status ----------------------------------------------------------------------------------------------------------

_MARKS = {"Succeeded": "[green]✔[/]", "Failed": "[red]✘[/]", "Running": "[cyan]▶[/]", "Restarting": "[yellow]↻[/]"}


def status_of(job: dict[str, Any]) -> ToolRLJobStatus:
    """The status as the API server has it; empty when the operator has not seen the job yet."""
    return ToolRLJobStatus.model_validate(job.get("status") or {}, by_alias=True, by_name=False)


def is_over(status: ToolRLJobStatus) -> bool:
    """Complete or Failed."""
    return any(c.type in ("Complete", "Failed") and c.status == "True" for c in status.conditions)


def stage_tree(job: dict[str, Any], now: datetime | None = None) -> RenderableType:
    """A job for the terminal: its stages with marks and bars, and what has to be said about it."""
    now = now or datetime.now(UTC)
    status = status_of(job)
    head = Text.assemble((job["metadata"]["name"], "bold"), "  ", summary(status))
    stages = Table.grid(padding=(0, 2))
    names = [stage["name"] for stage in job["spec"]["stages"]]
    known = {stage.name: stage for stage in status.stages}
    listed = [name for name in known if name not in names] + names
    for number, name in enumerate(listed):
        branch = "└─" if number == len(listed) - 1 else "├─"
        stages.add_row(*_row(branch, known.get(name) or StageStatus(name=name), now))
    notes = [f"[yellow]{type_}[/] {escape(message)}" for type_, message in _notes(status)]
    return Group(head, stages, *notes)


def summary(status: ToolRLJobStatus) -> str:
    """Where a job stands, in a few words."""
    if not status.conditions:
        return "not seen by an operator yet"
    said = {condition.type: condition for condition in status.conditions}
    for type_ in ("Complete", "Failed", "Suspended"):
        if type_ in said and said[type_].status == "True":
            return type_
    if "Accepted" in said and said["Accepted"].status == "False":
        return "Refused"
    current = next((stage for stage in status.stages if stage.name == status.current_stage), None)
    if current is None:
        return "Waiting"
    again = f", attempt {current.attempt}" if current.attempt > 1 else ""
    return f"{current.state}: {current.name}{again}"


def _row(branch: str, stage: StageStatus, now: datetime) -> Sequence[RenderableType]:
    mark = _MARKS.get(stage.state, "[dim]·[/]")
    progress = stage.progress
    bar: RenderableType = ""
    notes = []
    if progress is not None and progress.total_steps and stage.state not in ("Succeeded", "Failed"):
        bar = ProgressBar(total=progress.total_steps, completed=progress.step, width=24)
        notes.append(f"{progress.step}/{progress.total_steps}")
    if progress is not None and stage.state != "Succeeded":
        notes += [f"{metric.name} {metric.value}" for metric in progress.metrics]
    if stage.checkpoint is not None and stage.state != "Succeeded":
        notes.append(f"checkpoint {stage.checkpoint.step}")
    if stage.attempt > 1:
        notes.append(f"attempt {stage.attempt}")
    if stage.start_time is not None:
        notes.append(
            duration(max(0.0, ((stage.completion_time or now) - stage.start_time).total_seconds()), decimals=0)
        )
    return f"{branch} {mark} {stage.name}", stage.state, bar, " · ".join(notes)


def _notes(status: ToolRLJobStatus) -> Iterator[tuple[str, str]]:
    """What somebody has to do something about, or wait for."""
    said = {condition.type: condition for condition in status.conditions}
    if "Failed" in said and said["Failed"].status == "True":
        yield said["Failed"].reason, said["Failed"].message
        return
    for type_ in ("Accepted", "ToolsReady", "PodsReady"):
        condition = said.get(type_)
        if condition is not None and condition.status == "False" and condition.reason != "Finished":
            yield condition.reason, condition.message
            return


def job_list(jobs: Iterable[dict[str, Any]]) -> RenderableType:
    """All jobs of a namespace, one line each."""
    grid = Table(box=None, pad_edge=False)
    for title in ("NAME", "STATUS", "STAGES", "RESTARTS"):
        grid.add_column(title)
    for job in jobs:
        status = status_of(job)
        done = sum(stage.state == "Succeeded" for stage in status.stages)
        total = len(status.stages) or len(job["spec"]["stages"])
        grid.add_row(job["metadata"]["name"], summary(status), f"{done}/{total}", str(status.restarts))
    return grid


# ---- results ---------------------------------------------------------------------------------------------------------


def results_table(results: Sequence[Result]) -> RenderableType:
    """The job's table, as far as it is there."""
    table = Table(box=None, pad_edge=False)
    for title in ("Model", "Accuracy", "95 % interval", "Tool calls per answer"):
        table.add_column(title, justify="left" if title == "Model" else "right")
    for row in results:
        bounds = [float(figure) for figure in row.ci95]
        table.add_row(row.model, percent(float(row.accuracy)), interval(bounds or None), row.tool_calls_per_answer)
    return table


# ---- logs ------------------------------------------------------------------------------------------------------------


def print_logs(
    place: Place,
    name: str,
    stage: str | None,
    rank: int | None,
    follow: bool,
    tail: int | None,
    out: TextIO = sys.stdout,
) -> None:
    """Print the logs of a job's ranks, each line with where it comes from; with `follow`, until the job is over.

    Without `stage`: of the stage that runs, or the last one. Every attempt whose pods are still there is shown.

    Raises:
        UserError: there is no such job, stage or rank.
    """
    job = place.job(name)
    names = ["base", *(known["name"] for known in job["spec"]["stages"])]
    if stage is not None and stage not in names:
        raise UserError(f"there is no stage {stage!r}; there are {', '.join(names)}", "--stage")
    _Logs(place, name, stage, rank, tail, out).show(follow)


class _Logs:
    """The logs of one job's pods, written line by line by one thread per pod."""

    def __init__(
        self, place: Place, name: str, stage: str | None, rank: int | None, tail: int | None, out: TextIO
    ) -> None:
        self.place, self.name, self.stage, self.rank, self.tail, self.out = place, name, stage, rank, tail, out
        self.lock = threading.Lock()
        self.threads: dict[str, threading.Thread] = {}

    def show(self, follow: bool) -> None:
        while True:
            over = is_over(status_of(self.place.job(self.name)))
            for pod in self._pods(follow):
                self._start(pod, follow)
            if not follow or over:
                break
            time.sleep(_POLL_SECONDS)
        if not self.threads:
            raise UserError(f"no pod of {self.name} has a log{' any more' if over else ' yet'}", "NAME")
        deadline = time.monotonic() + _LAST_LINES_SECONDS
        for thread in list(self.threads.values()):  # the stream of a lost node's pod never ends
            thread.join(max(deadline - time.monotonic(), 0) if follow else None)

    def _pods(self, follow: bool) -> list[Any]:
        """Pods with a log, of the stage that was asked for, else of the newest."""
        selector = f"{JOB_LABEL}={self.name}" + (f",{STAGE_LABEL}={self.stage}" if self.stage else "")
        pods = [pod for pod in self.place.pods(selector) if pod.status.phase in ("Running", "Succeeded", "Failed")]
        if pods and self.stage is None and not follow:
            pods = [pod for pod in pods if pod.metadata.labels[STAGE_LABEL] == pods[-1].metadata.labels[STAGE_LABEL]]
        return [pod for pod in pods if self.rank is None or _rank(pod) == self.rank]

    def _start(self, pod: Any, follow: bool) -> None:
        if pod.metadata.uid in self.threads:
            return
        labels = pod.metadata.labels
        label = f"{labels[STAGE_LABEL]}/{labels[ATTEMPT_LABEL]} rank {_rank(pod)} | "
        follow = follow and pod.status.phase == "Running"
        thread = threading.Thread(
            target=self._copy, args=[pod.metadata.uid, pod.metadata.name, label, follow], daemon=True
        )
        self.threads[pod.metadata.uid] = thread
        thread.start()

    def _copy(self, uid: str, pod: str, label: str, follow: bool) -> None:
        begun = False
        try:
            for line in self.place.log(pod, follow, self.tail):
                begun = True
                self._print(f"{label}{line}")
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            if follow and not begun:  # a container that has just started may have no log yet: look again
                del self.threads[uid]
                return
            reason = error.reason if isinstance(error, ApiException) else error
            self._print(f"{label}(the log cannot be read: {reason})")

    def _print(self, line: str) -> None:
        with self.lock:
            print(line, file=self.out, flush=True)


def _rank(pod: Any) -> int:
    """The pod's number in its attempt: the node's rank."""
    return int((pod.metadata.annotations or {}).get(INDEX_ANNOTATION, 0))


def watch(place: Place, name: str, console: Console) -> None:
    """Show the stage tree until the job is over."""
    from rich.live import Live

    with Live(console=console, refresh_per_second=2) as live:
        while True:
            job = place.job(name)
            live.update(stage_tree(job))
            if is_over(status_of(job)):
                return
            time.sleep(_POLL_SECONDS)

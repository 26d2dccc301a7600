"""The logs of a job's pods, all ranks together."""

import sys
import threading
import time
from typing import Any, TextIO

import urllib3
from kubernetes.client.exceptions import ApiException

from thinkimg.api.pod_contract import Label
from thinkimg.cluster.place import Place, rank_of
from thinkimg.cluster.status import is_over, status_of
from thinkimg.errors import UserError

_POLL_SECONDS = 1.0
_LAST_LINES_SECONDS = 5.0
"""What is waited for the last lines of logs when the job is over."""


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
        selector = f"{Label.JOB}={self.name}" + (f",{Label.STAGE}={self.stage}" if self.stage else "")
        pods = [pod for pod in self.place.pods(selector) if pod.status.phase in ("Running", "Succeeded", "Failed")]
        if pods and self.stage is None and not follow:
            pods = [pod for pod in pods if pod.metadata.labels[Label.STAGE] == pods[-1].metadata.labels[Label.STAGE]]
        return [pod for pod in pods if self.rank is None or rank_of(pod) == self.rank]

    def _start(self, pod: Any, follow: bool) -> None:
        if pod.metadata.uid in self.threads:
            return
        labels = pod.metadata.labels
        label = f"{labels[Label.STAGE]}/{labels[Label.ATTEMPT]} rank {rank_of(pod)} | "
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

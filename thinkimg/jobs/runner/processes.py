"""The processes of a local run: one runner per folder, and the ranks of the stage that it is at."""

import fcntl
import io
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from thinkimg.api.pod_contract import ExitCode, Variable
from thinkimg.errors import UserError
from thinkimg.jobs.cores import available_cores
from thinkimg.jobs.layout import Run
from thinkimg.jobs.runner.ports import free_port
from thinkimg.private import append_private

_TO_END, _TO_SAVE = 10.0, 120.0
"""Seconds that processes are given: those of a failed stage wait for each other, an interrupted training ends its step
and saves."""
_SAID = ("error ", "infrastructure ")
"""How the command begins the one line in which it says what went wrong."""


class StageFailed(Exception):
    """A stage's process ended with another code than 0; `code` is passed on."""

    def __init__(self, name: str, code: int, log: Path) -> None:
        lines = log.read_text(errors="replace").splitlines()
        said = [line for line in lines if line.startswith(_SAID)] if code in _EXPLAINED else []
        tail = said[-1] if said else "\n".join(lines[-15:])
        super().__init__(f"stage {name} ended with exit code {code}; its log is {log}\n{tail}")
        self.code = code if code > 0 else ExitCode.INTERRUPTED


_EXPLAINED = (ExitCode.USER, ExitCode.INFRASTRUCTURE)


@contextmanager
def locked(run: Run, console: Console) -> Iterator[int]:
    """Hold a run's folder while the block lasts. What it yields is held by the processes of stages as well: those of a
    runner that was killed are waited for, as they end on their own.

    Raises:
        UserError: another `thinkimg run` works on this folder, or nobody may write into it.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        lock, stages = (run.path / "lock").open("w"), (run.path / "stages.lock").open("w")
    except OSError as error:
        raise UserError(f"the folder cannot be written: {error}", f"--run {run.path}") from error
    with lock, stages:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel frees it, however the process ends
        except BlockingIOError:
            raise UserError("another process is working on this run", f"--run {run.path}") from None
        try:
            fcntl.flock(stages, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("waiting for the processes of the interrupted run to end")
            fcntl.flock(stages, fcntl.LOCK_EX)
        yield stages.fileno()


def run_processes(
    command: Sequence[str],
    world: int,
    environment: dict[str, str],
    log: Path,
    held: int,
    show: Callable[[str], None],
) -> int:
    """Run one process per rank; rank 0's output is shown and logged, the others' only logged. All end together. Returns
    0, or the exit code of the rank that failed first; the user's error counts before all others.

    Args:
        held: a file descriptor that they keep open (see `locked`).
    """
    threads = str(max(1, available_cores() // world))
    shared = {"OMP_NUM_THREADS": threads, **os.environ, **environment}
    shared |= {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", Variable.PARENT: str(os.getpid())}
    if world > 1:
        shared |= {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        shared |= {"LOCAL_WORLD_SIZE": str(world)}
    processes: list[subprocess.Popen[str]] = []
    with io.TextIOWrapper(append_private(log), encoding="utf-8") as file:
        try:
            for rank in range(world):
                ranked = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {}
                processes.append(
                    subprocess.Popen(
                        command, env=shared | ranked, stderr=file, text=True, pass_fds=(held,),
                        stdout=subprocess.PIPE if rank == 0 else file,
                    )
                )  # fmt: skip
            assert processes[0].stdout is not None
            for line in processes[0].stdout:
                file.write(line)
                file.flush()
                show(line)
            return _wait(processes)
        except KeyboardInterrupt:
            _end(processes, _TO_SAVE)
            raise
        finally:
            _end(processes, _TO_END)


def _wait(processes: list[subprocess.Popen[str]]) -> int:
    """Until all have ended; a rank that fails takes the others with it."""
    first = 0
    while True:
        codes = [process.poll() for process in processes]
        first = first or next(filter(None, codes), 0)
        if None not in codes:
            return ExitCode.USER if ExitCode.USER in codes else first
        if first:
            _end(processes, _TO_END)
        time.sleep(0.05)


def _end(processes: Sequence[subprocess.Popen[str]], seconds: float) -> None:
    """Ask all to end; what has not after so many seconds is killed."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

"""Operator processes that start at once: a server imports the operator, and forks.

For tests that kill it dozens of times; the imports would be most of their time. Every operator is a process of its own,
with its own memory, and dies by SIGKILL like any other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import controlplane

from tests.support import PYTHONPATH


class ForkServer:
    """Starts operators. May be used from several threads."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[ForkServer]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.cluster.forkserver"],
            env={**os.environ, "PYTHONPATH": PYTHONPATH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=controlplane.die_with_parent,
        )
        try:
            yield cls(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=20)

    def start(self, arguments: Sequence[str], log: Path) -> int:
        """`thinkimg-operator run ARGUMENTS`; its process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"arguments": list(arguments), "log": str(log)}
        with self._lock:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())


class ForkedOperator:
    """An operator process that is killed and started again."""

    def __init__(self, server: ForkServer, kubeconfig: Path, log: Path, arguments: Sequence[str]) -> None:
        self._server, self.log, self._arguments = server, log, [*arguments, f"--kubeconfig={kubeconfig}"]
        self._pid = self.starts = 0
        self._lock = threading.Lock()

    def start(self) -> None:
        self.starts += 1
        self._pid = self._server.start(self._arguments, self.log)

    def restart(self) -> None:
        """SIGKILL, wherever it is, and a new process at once."""
        with self._lock:
            self.kill()
            self.start()

    def revive(self) -> None:
        """A new process if it has ended by itself."""
        with self._lock:
            try:
                os.kill(self._pid, 0)
            except ProcessLookupError:
                self.start()

    def kill(self) -> None:
        """SIGKILL, wherever it is."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def check(self) -> None:
        """Fails the test with the end of the log when the process has ended by itself."""
        try:
            with self._lock:
                os.kill(self._pid, 0)
        except ProcessLookupError:
            raise AssertionError(f"the operator has ended:\n{self.log.read_text()[-3000:]}") from None


def _serve() -> None:
    from thinkimg_operator.main import main

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are not waited for
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            controlplane.die_with_parent()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            for stream in (1, 2):
                os.dup2(log, stream)
            sys.argv = ["thinkimg-operator", "run", *order["arguments"]]
            main()
        print(pid, flush=True)


if __name__ == "__main__":
    _serve()

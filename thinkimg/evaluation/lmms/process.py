"""A process of the environment in which lmms-eval is installed: it does not fit into ours (it pins other versions)."""

import contextlib
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thinkimg.errors import InfrastructureError, UserError

PYTHON = "LMMS_EVAL_PYTHON"
"""The environment variable that says where the environment's Python is."""
DEFAULT = Path("~/.cache/thinkimg/lmms-eval/bin/python")
VERSION = "0.7.3"
"""The release that the worker is written for."""
_WORKER = Path(__file__).with_name("worker")
_SAID = 2_000


def python() -> Path:
    """Raises `UserError`: there is none, with what makes one."""
    path = Path(os.environ.get(PYTHON) or DEFAULT).expanduser()
    if path.is_file():
        return path
    folder = DEFAULT.parent.parent
    raise UserError(
        f"lmms-eval needs an environment of its own, and there is no {path}: `make lmms-setup` makes one, or `uv venv "
        f"{folder} && uv pip install --python {DEFAULT} lmms-eval=={VERSION}`; {PYTHON} names another",
        PYTHON,
    )


def tasks_of_lmms_eval() -> list[dict[str, Any]]:
    """Name, source (data set, configuration, split) and metrics of each task that can be run, as its file says them.

    Raises:
        UserError: there is no environment, or lmms-eval does not start in it.
    """
    harness = Harness(["--list"])
    harness.close()
    found: list[dict[str, Any]] = harness.about["tasks"]
    return found


class Harness:
    """The worker, which answers one line at a time.

    Args:
        arguments: of `worker/__main__.py`.

    Attributes:
        about: what it said when it was ready.

    Raises:
        UserError: there is no environment; the task cannot be run, with the worker's reason.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # as long as the process
        command = [str(python()), str(_WORKER), *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, encoding="utf-8"
        )
        self.about = self._read()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One request and its answer; blocks. Safe to use from several threads.

        Raises:
            UserError: what the worker refuses, or why it ended.
            InfrastructureError: a judge does not answer.
        """
        with self._lock:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it ended: `_read` says why
                self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
                self._process.stdin.flush()
            return self._read()

    def close(self) -> None:
        """End the process. Idempotent."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._log.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            said = self._log.read().rstrip().rpartition("\n")[2][-_SAID:]  # of a traceback the exception
            raise UserError(f"lmms-eval's process ended with {code}: {said}", "lmms")
        answer: dict[str, Any] = json.loads(line)
        if answer.get("whose") == "infrastructure":
            raise InfrastructureError(answer["error"])
        if "error" in answer:
            raise UserError(answer["error"], "lmms")
        return answer

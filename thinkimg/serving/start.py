"""How a server process is started: its arguments, and that it never outlives its supervisor."""

import argparse
import os
import select
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

from thinkimg.api.pod_contract import ExitCode

_PARENT_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Start:
    """What a process is told when it is started.

    Attributes:
        ready_file: written when it is ready, beside the line on standard output.
        supervised: a supervisor started it and stops it; Ctrl-C, which reaches the whole group, is not for it.
    """

    config: Path
    ready_file: Path | None
    supervised: bool


def read_start(program: str, description: str, arguments: list[str] | None = None) -> Start:
    """Read the command line; if there is a supervisor, end with it from now on."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--config", type=Path, required=True, help="YAML or JSON")
    parser.add_argument("--ready-file", type=Path, help="written when ready, beside the line on standard output")
    parser.add_argument(
        "--supervised-by", type=int, metavar="PID", help="end when standard input closes or the parent is not PID"
    )
    options = parser.parse_args(arguments)
    if options.supervised_by is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _end_with_parent(options.supervised_by)
    return Start(options.config, options.ready_file, options.supervised_by is not None)


def _end_with_parent(parent: int) -> None:
    """End this process at once when its supervisor is gone, however it went.

    Standard input is a pipe whose other end only the supervisor holds; the parent's id is looked at too, because a
    process forked from the supervisor may hold that end open.
    """

    def watch() -> None:
        while os.getppid() == parent:
            readable, _, _ = select.select([0], [], [], _PARENT_POLL_SECONDS)
            if readable and not os.read(0, 1):
                break
        os._exit(ExitCode.BUG)

    threading.Thread(target=watch, name="parent", daemon=True).start()

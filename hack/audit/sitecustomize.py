"""Records what a process does outside of itself: files, network, processes. For the fuzzer of servers.

Python runs this file at its start if its folder is on PYTHONPATH. Between SIGUSR1 and SIGUSR2, each event of the audit
hooks that touches files, network or processes becomes a line of the file that THINKIMG_AUDIT_LOG names. Modules that
are imported late are no such event: reading below the interpreter's and the project's own folders is allowed, writing
is not. THINKIMG_AUDIT_CONNECT lists addresses that may be called. C libraries raise no events; the fuzzer has a file
and an address of its own that nobody may touch.
"""

import os
import signal
import sys
import sysconfig
from types import FrameType
from typing import Any

_PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_READABLE = tuple(
    {os.path.realpath(path) + os.sep for path in (sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"))}
    | {os.path.join(_PROJECT, "thinkimg") + os.sep, os.path.join(_PROJECT, ".venv") + os.sep, sys.prefix + os.sep}
)
_LOOKING = ("os.listdir", "os.scandir")
_FORBIDDEN = (
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"),
    *("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "pty.spawn", "ctypes.dlopen"),
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chdir"),
    *("tempfile.mkstemp", "tempfile.mkdtemp", "glob.glob", "urllib.Request", "sqlite3.connect"),
)
_CONNECT = {tuple(place.rsplit(":", 1)) for place in os.environ.get("THINKIMG_AUDIT_CONNECT", "").split(",") if place}
"""Addresses that the process is configured to call."""
_armed = False


def _is_allowed(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open" or event in _LOOKING:
        path = arguments[0]
        if isinstance(path, int) or path is None:
            return True
        mode = arguments[1] if event == "open" else "r"
        flags = arguments[2] if event == "open" and isinstance(arguments[2], int) else 0
        writes = any(letter in str(mode or "") for letter in "wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        full = os.path.join(os.getcwd(), os.fsdecode(path))
        return not writes and (os.path.normpath(full) + os.sep).startswith(_READABLE)
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        return (arguments[1][0], str(arguments[1][1])) in _CONNECT
    return event not in _FORBIDDEN


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _armed and not _is_allowed(event, arguments):
        frame = sys._getframe(1)
        callers = []
        while frame is not None and len(callers) < 8:
            callers.append(f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}")
            frame = frame.f_back  # type: ignore[assignment]
        os.write(_log, f"{event} {arguments!r:.300} from {' < '.join(callers)}\n".encode(errors="replace"))


def _arm(number: int, frame: FrameType | None) -> None:
    global _armed
    _armed = number == signal.SIGUSR1


if "THINKIMG_AUDIT_LOG" in os.environ:
    _log = os.open(os.environ["THINKIMG_AUDIT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    signal.signal(signal.SIGUSR1, _arm)
    signal.signal(signal.SIGUSR2, _arm)
    sys.addaudithook(_watch)

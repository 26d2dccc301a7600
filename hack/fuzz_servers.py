"""Hostile requests against running servers: none may crash them, be answered 5xx, or make them touch files or network.

    python hack/fuzz_servers.py [--requests 10000] [--seed 0] [--only NUMBER]

Starts a tool server with the audit hook of hack/audit, warms it up, sends the requests over eight connections at a
time, and looks at every answer, at the process's log and memory, and at what the hook has seen. Request NUMBER of a
seed is always the same, so that a finding can be repeated alone. The last line is one JSON object; the exit code is 1
if anything was found.
"""

import argparse
import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz_requests import Bait, Face, Sent, ToolsFace, http

from thinkimg.serving import ServerConfig, ServerSpec, Supervisor

AUDIT = Path(__file__).parent / "audit"
CONNECTIONS = 8
MAX_GROWTH = 1.5
_ANSWER_SECONDS = 60.0
_GIVING_BACK_SECONDS = 6.0
_SHOWN = 20

BOX = [10, 10, 90, 90]
TOOLS: Mapping[str, Mapping[str, Any]] = {
    "Crop": {"image": "img_1", "box": BOX},
    "DrawHorizontalLineByY": {"image": "img_1", "y": 50},
    "DrawVerticalLineByX": {"image": "img_1", "x": 50},
    "SegmentRegionAroundPoint": {"image": "img_1", "points": [[25, 60]]},
    "OCR": {"image": "img_1", "region": BOX},
    "Point": {"image": "img_1", "description": "title"},
    "ZoominSubplot": {"image": "img_1", "description": "left"},
}
SLOW = ("OCR", "Point", "ZoominSubplot")
SERVER: dict[str, Any] = {
    "workers": 2,
    "max_image_bytes": 2 * 1024 * 1024,
    "max_image_pixels": 4_000_000,
    "image_store_bytes": 8 * 1024 * 1024,
    "client_seconds": 5,
}
"""Small limits, so that they are met often."""


@dataclass
class Findings:
    """What a run has shown."""

    requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    rss_start: int = 0
    rss_end: int = 0

    @property
    def growth(self) -> float:
        return self.rss_end / max(self.rss_start, 1)

    @property
    def passed(self) -> bool:
        return not self.wrong and self.growth <= MAX_GROWTH

    def as_document(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "statuses": dict(sorted(self.statuses.items())),
            "kinds": dict(sorted(self.kinds.items())),
            "rss_start_mib": round(self.rss_start / 2**20, 1),
            "rss_end_mib": round(self.rss_end / 2**20, 1),
            "growth": round(self.growth, 3),
            "findings": len(self.wrong),
            "passed": self.passed,
        }


def fuzz(spec: ServerSpec, face: Face, requests: int, folder: Path, seed: int = 0, warm_up: int = 200) -> Findings:
    """Run one server and fuzz it.

    Args:
        warm_up: requests before memory is measured for the first time and the hook is armed.
    """
    findings = Findings()
    audit = folder / "audit.log"
    env = {**spec.env, "PYTHONPATH": os.pathsep.join([str(AUDIT), spec.env.get("PYTHONPATH", "")])}
    env["THINKIMG_AUDIT_LOG"] = str(audit)
    supervisor = Supervisor([ServerSpec(spec.name, spec.config, env)], folder, ready_seconds=300)
    with supervisor, Baited() as baited:
        (url,), (pid,) = supervisor.endpoints, supervisor.pids.values()
        warm = Findings()
        _send_all(url, face, baited.bait, range(-warm_up, 0), seed, warm)
        findings.wrong += [f"while warming up: {text}" for text in warm.wrong]
        findings.rss_start = _settled_rss(pid)
        os.kill(pid, signal.SIGUSR1)
        _send_all(url, face, baited.bait, range(requests), seed, findings)
        findings.rss_end = _settled_rss(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR2)
        findings.wrong += _state(url, supervisor, pid)
        findings.wrong += [f"bait taken: {text}" for text in baited.taken()]
    findings.wrong += [f"it touched: {line}" for line in audit.read_text(errors="replace").splitlines()]
    findings.wrong += [f"its log says: {line}" for line in _errors_of(supervisor.log_path(spec.name))]
    return findings


def request_of(face: Face, bait: Bait, seed: int, number: int) -> Sent:
    """Always the same for a seed and a number."""
    return face(random.Random(f"{seed}:{number}"), bait)


def _send_all(url: str, face: Face, bait: Bait, numbers: range, seed: int, findings: Findings) -> None:
    def one(number: int) -> tuple[int, Sent, str]:
        sent = request_of(face, bait, seed, number)
        return number, sent, exchange(url, sent)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for number, sent, status in pool.map(one, numbers):
            findings.requests += 1
            findings.kinds[sent.kind] += 1
            findings.statuses[status] += 1
            if wrong := _fault(sent, status):
                findings.wrong.append(f"request {number} ({sent.kind}): {wrong}")


def _fault(sent: Sent, status: str) -> str:
    if status.isdigit() and int(status) < 500:
        return ""
    if status == "504" and sent.deadline:
        return ""
    if status in ("closed", "reset") and not sent.lawful:
        return ""
    return f"answered {status}"


def exchange(url: str, sent: Sent) -> str:
    """Send, and give back the status, or `closed`, `reset`, `silent` (no answer in time), `refused`."""
    host, _, port = url.removeprefix("http://").partition(":")
    answer = b""
    try:
        with socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS) as connection:
            for number, part in enumerate(sent.parts):
                time.sleep(sent.pauses if number else 0)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may answer before it has read all
                    connection.sendall(part)
            if sent.pauses and len(sent.parts) == 1:
                return "closed"  # here it is the client that leaves
            connection.shutdown(socket.SHUT_WR) if not sent.lawful else None
            while piece := connection.recv(65_536):
                answer = (answer + piece)[:65_536]
    except TimeoutError:
        return "silent"
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return _status(answer) if answer else "reset"
    return _status(answer) if answer else "closed"


def _status(answer: bytes) -> str:
    words = answer.split(b"\r\n", 1)[0].split(b" ")
    return words[1].decode() if len(words) > 1 and words[1].isdigit() else "no HTTP"


def _state(url: str, supervisor: Supervisor, pid: int) -> list[str]:
    """What is wrong with the process after the run."""
    found = []
    if supervisor.restarts or pid not in supervisor.pids.values():
        found.append("the process has ended")
    if exchange(url, Sent("health", (http("GET", "/readyz"),))) != "200":
        found.append("it is not ready any more")
    return found


def _errors_of(log: Path) -> list[str]:
    """Lines of level ERROR, and what is no line of the log at all: the output of a library, or of a crash."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return [line[:2000] for line in lines if not any(f'"{word}"' in line for word in ("INFO", "WARNING", "ready"))]


def _settled_rss(pid: int) -> int:
    """Bytes, after the server has given back what it does not use (`thinkimg.serving.memory`), and no longer fall."""
    time.sleep(_GIVING_BACK_SECONDS)
    smallest = _rss(pid)
    for _ in range(10):
        time.sleep(0.2)
        if (now := _rss(pid)) >= smallest:
            break
        smallest = now
    return smallest


def _rss(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


class Baited:
    """A file and an address; whoever opens the one or calls the other is noticed, C libraries included."""

    def __enter__(self) -> "Baited":
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "bait.png"
        path.write_bytes(b"bait")
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._calls: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = libc.inotify_init1(os.O_NONBLOCK)
        access, open_ = 0x1, 0x20
        if libc.inotify_add_watch(self._inotify, os.fsencode(path), access | open_) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        self.bait = Bait(str(path), f"http://127.0.0.1:{self._listening.getsockname()[1]}/bait.png")
        return self

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, address = self._listening.accept()
                connection.close()
                self._calls.append(f"a connection from {address}")

    def taken(self) -> list[str]:
        events = []
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._inotify, 65_536)
            while data:
                _, mask, _, length = struct.unpack_from("iIII", data)
                events.append(f"the file was {'opened' if mask & 0x20 else 'read'}")
                data = data[16 + length :]
        return [*self._calls, *events]

    def __exit__(self, *_: object) -> None:
        os.close(self._inotify)
        self._listening.close()
        self._folder.cleanup()


@contextlib.contextmanager
def _folder_for_logs(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def tool_server() -> tuple[ServerSpec, Face]:
    config = ServerConfig.model_validate({"tools": [{"name": name} for name in TOOLS], **SERVER})
    return ServerSpec("tools", config), ToolsFace(TOOLS, SLOW, config.max_body_bytes)


def main() -> int:
    parser = argparse.ArgumentParser(description="Hostile requests against running servers.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="print this request's bytes and send nothing")
    parser.add_argument("--logs", type=Path, help="keep logs here")
    options = parser.parse_args()
    spec, face = tool_server()
    if options.only is not None:
        sent = request_of(face, Bait("/tmp/bait.png", "http://127.0.0.1:9/bait.png"), options.seed, options.only)
        sys.stdout.buffer.write(b"".join(sent.parts))
        return 0
    with _folder_for_logs(options.logs) as folder:
        findings = fuzz(spec, face, options.requests, folder, options.seed)
    for text in findings.wrong[:_SHOWN]:
        print(text)
    print(json.dumps(findings.as_document()))
    return 0 if findings.passed else 1


if __name__ == "__main__":
    sys.exit(main())

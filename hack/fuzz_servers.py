"""Hostile requests against running servers: none may crash them, be answered 5xx, or make them touch files or network.

    python hack/fuzz_servers.py [--target server|gateway|both] [--requests 10000] [--seed 0] [--only NUMBER]

Starts a tool server, or a gateway before a tool server, with the audit hook of hack/audit, warms it up, sends the
requests over eight connections at a time, and looks at every answer, at the processes' logs and memory, and at what
the hook has seen. Request NUMBER of a seed is always the same, so that a finding can be repeated alone. The last line
is one JSON object; the exit code is 1 if anything was found.
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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fuzz_gateway import MODEL, GatewayFace, hostile_model
from fuzz_requests import Bait, Face, Sent, ToolsFace, http

from thinkimg.gateway.fleet import with_gateway
from thinkimg.serving import ServerConfig, ServerSpec, Supervisor
from thinkimg.serving.fleet import Plan

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
    "DrawLine": {"image": "img_1", "points": [[10, 10], [90, 50]]},
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
    "decoded_bytes": 8 * 1024 * 1024,
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
    rss_start: dict[str, int] = field(default_factory=dict)
    rss_end: dict[str, int] = field(default_factory=dict)

    @property
    def growth(self) -> float:
        """Of the process that has grown most."""
        return max(self.rss_end.get(name, 0) / max(start, 1) for name, start in self.rss_start.items())

    @property
    def passed(self) -> bool:
        return not self.wrong and self.growth <= MAX_GROWTH

    def as_document(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "statuses": dict(sorted(self.statuses.items())),
            "kinds": dict(sorted(self.kinds.items())),
            "rss_start_mib": {name: round(size / 2**20, 1) for name, size in self.rss_start.items()},
            "rss_end_mib": {name: round(size / 2**20, 1) for name, size in self.rss_end.items()},
            "growth": round(self.growth, 3),
            "findings": len(self.wrong),
            "passed": self.passed,
        }


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        specs: the processes; requests go to the last one.
    """

    specs: Sequence[ServerSpec]
    face: Face


def fuzz(target: Target, requests: int, folder: Path, seed: int = 0, warm_up: int = 200) -> Findings:
    """Run the processes and fuzz them.

    Args:
        warm_up: requests before memory is measured for the first time and the hook is armed.
    """
    findings = Findings()
    watched = [_watched(spec, folder) for spec in target.specs]
    supervisor = Supervisor(watched, folder, ready_seconds=300)
    with supervisor, Baited() as baited:
        url, pids = supervisor.endpoints[-1], supervisor.pids
        warm = Findings()
        _send_all(url, target.face, baited.bait, range(-warm_up, 0), seed, warm)
        findings.wrong += [f"while warming up: {text}" for text in warm.wrong]
        findings.rss_start = {name: _settled_rss(pid) for name, pid in pids.items()}
        _signal(pids, signal.SIGUSR1)
        _send_all(url, target.face, baited.bait, range(requests), seed, findings)
        findings.rss_end = {name: _settled_rss(pid) for name, pid in pids.items()}
        _signal(pids, signal.SIGUSR2)
        findings.wrong += _state(url, supervisor, pids)
        findings.wrong += [f"bait taken: {text}" for text in baited.taken()]
    for spec in target.specs:
        touched = _audit_log(spec, folder).read_text(errors="replace").splitlines()
        findings.wrong += [f"{spec.name} touched: {line}" for line in touched]
        findings.wrong += [
            f"the log of {spec.name} says: {line}" for line in _errors_of(supervisor.log_path(spec.name))
        ]
    return findings


def _watched(spec: ServerSpec, folder: Path) -> ServerSpec:
    env = {**spec.env, "PYTHONPATH": os.pathsep.join([str(AUDIT), spec.env.get("PYTHONPATH", "")])}
    return replace(spec, env={**env, "THINKIMG_AUDIT_LOG": str(_audit_log(spec, folder))})


def _audit_log(spec: ServerSpec, folder: Path) -> Path:
    return folder / f"{spec.name}.audit"


def _signal(pids: Mapping[str, int], number: signal.Signals) -> None:
    for pid in pids.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


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


def _state(url: str, supervisor: Supervisor, pids: Mapping[str, int]) -> list[str]:
    """What is wrong with the processes after the run."""
    found = [f"{name} has ended" for name, pid in pids.items() if supervisor.pids.get(name) != pid]
    if exchange(url, Sent("health", (http("GET", "/readyz"),))) != "200":
        found.append("it is not ready any more")
    return found


def _errors_of(log: Path) -> list[str]:
    """Lines of level ERROR, and what is no line of the log at all: the output of a library, or of a crash."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return [line[:2000] for line in lines if not any(f'"{word}"' in line for word in ("INFO", "WARNING", "ready"))]


def _settled_rss(pid: int) -> int:
    """Bytes, after the servers have given back what they do not use (`thinkimg.serving.memory`), and no longer fall."""
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


def tool_server() -> Target:
    config = ServerConfig.model_validate({"tools": [{"name": name} for name in TOOLS], **SERVER})
    return Target([ServerSpec("tools", config)], ToolsFace(TOOLS, SLOW, config.max_body_bytes))


@contextlib.contextmanager
def gateway(seed: int = 0) -> Iterator[Target]:
    """Before one tool server and a model that writes hostile calls."""
    (server,) = tool_server().specs
    limits = {"body_bytes": server.config.max_body_bytes, "held_bytes": 8 * 1024 * 1024, "rounds": 2}  # type: ignore[attr-defined]
    limits |= {
        "image_bytes": SERVER["max_image_bytes"],
        "image_pixels": SERVER["max_image_pixels"],
        "client_seconds": 5,
    }
    bait = Bait("/etc/hostname", "http://127.0.0.1:9/")
    with hostile_model(bait, seed) as model:
        models = [{"name": MODEL, "base_url": model}]
        plan = with_gateway(Plan([server], gateway={"port": 0, "models": models, "limits": limits}), Path())
        *servers, front = plan.servers
        called = [f"127.0.0.1:{spec.config.port}" for spec in servers] + [urlsplit(model).netloc]
        front = replace(front, env={**front.env, "THINKIMG_AUDIT_CONNECT": ",".join(called)})
        face = GatewayFace(ToolsFace(TOOLS, SLOW, limits["body_bytes"]))
        yield Target([*servers, front], face)


def main() -> int:
    parser = argparse.ArgumentParser(description="Hostile requests against running servers.")
    parser.add_argument("--target", choices=("server", "gateway", "both"), default="both")
    parser.add_argument("--requests", type=int, default=10_000, help="to each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="print this request's bytes and send nothing")
    parser.add_argument("--logs", type=Path, help="keep logs here")
    options = parser.parse_args()
    documents = {}
    for name in ("server", "gateway") if options.target == "both" else (options.target,):
        with gateway(options.seed) if name == "gateway" else contextlib.nullcontext(tool_server()) as target:
            if options.only is not None:
                sent = request_of(
                    target.face, Bait("/tmp/bait.png", "http://127.0.0.1:9/bait.png"), options.seed, options.only
                )
                sys.stdout.buffer.write(b"".join(sent.parts))
                continue
            with _folder_for_logs(options.logs) as folder:
                findings = fuzz(target, options.requests, folder / name, options.seed)
        for text in findings.wrong[:_SHOWN]:
            print(f"{name}: {text}")
        documents[name] = findings.as_document()
    if options.only is None:
        print(json.dumps(documents))
    return 0 if all(document["passed"] for document in documents.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

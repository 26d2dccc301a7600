"""`Supervisor`: starts tool servers as processes, waits for them, restarts those that die, and leaves none behind."""

import contextlib
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from thinkimg.errors import InfrastructureError, UserError
from thinkimg.extras import require
from thinkimg.private import append_private, write_private
from thinkimg.serving.config import ProcessConfig, ServerConfig, dump_config
from thinkimg.serving.handover import PASS_VARIABLE, handed_over
from thinkimg.serving.logs import JsonLines

_POLL_SECONDS = 0.05
_FIRST_BACKOFF_SECONDS = 0.5
_MAX_BACKOFF_SECONDS = 30.0
_STABLE_SECONDS = 60.0
_MOST_STARTS = 5
"""Of a server that has never been ready and says no reason that may pass."""
_KILL_SECONDS = 2.0
_TAIL_LINES = 20
_NEEDS = ("fastapi", "uvicorn", "prometheus_client")
"""Packages without which no server of ours starts: said once, before any process fails for want of them."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerSpec:
    """One server to run.

    Attributes:
        name: unique; names the log file and the field in errors.
        env: added to what it gets of this process's environment (see `thinkimg.serving.handover`). The configuration's
            secrets are handed over here, not in a file.
        module: what `python -m` runs; it takes the arguments of `thinkimg.serving.start`.
    """

    name: str
    config: ProcessConfig
    env: Mapping[str, str] = field(default_factory=dict)
    module: str = "thinkimg.serving"

    @property
    def api_key(self) -> str:
        """What callers have to send; empty: nothing."""
        return self.config.key({**os.environ, **self.env}) if isinstance(self.config, ServerConfig) else ""


def with_group_key(entries: Sequence[ServerSpec]) -> list[ServerSpec]:
    """The same tool servers, of which those without a key get one, random and common to all: for servers that only
    their own program calls, on a machine where others may work too. One that lets everybody call is left alone."""
    key = SecretStr(secrets.token_urlsafe(32))

    def guarded(entry: ServerSpec) -> ServerSpec:
        if entry.api_key or entry.config.allow_anonymous or not isinstance(entry.config, ServerConfig):
            return entry
        return replace(entry, config=entry.config.model_copy(update={"api_key": key}))

    return [guarded(entry) for entry in entries]


State = Literal["starting", "ready", "waiting", "refused", "failed", "stopped"]
"""starting: the process loads; waiting: it ended and is started again after a while. Not started again are: refused, by
its configuration, a package or weights that are missing; failed, which ended again and again before it was ready."""


@dataclass(frozen=True)
class ServerStatus:
    """What a server is doing at this moment.

    Attributes:
        url: empty until it was ready for the first time; it stays the same afterwards.
        pid: None while no process runs.
        seconds: since the state began.
        message: why it is waiting, refused or failed.
        field: of a refusal, the configuration's field.
    """

    name: str
    state: State
    url: str
    pid: int | None
    restarts: int
    seconds: float
    message: str
    field: str
    log: Path

    @property
    def ended(self) -> bool:
        """It is not started again."""
        return self.state in ("refused", "failed")


class Supervisor:
    """Runs servers while the `with` block lasts.

    Args:
        entries: what to run.
        folder: for logs (`NAME.log`), configurations and ready files.
        ready_seconds: deadline for all servers together to be ready.
    """

    def __init__(self, entries: Sequence[ServerSpec], folder: Path, ready_seconds: float = 120) -> None:
        names = [entry.name for entry in entries]
        if len(set(names)) != len(names):
            raise UserError(f"server names must be unique, not {names}", "name")
        self._folder = folder
        self._ready_seconds = ready_seconds
        self._servers = [_Server(entry, folder) for entry in entries]
        self._stopping = threading.Event()
        self._monitor: threading.Thread | None = None

    def __enter__(self) -> "Supervisor":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoints(self) -> list[str]:
        """Addresses, in the order of the entries. They stay the same when a server is restarted."""
        return [server.url for server in self._servers]

    @property
    def keys(self) -> dict[str, str]:
        """Address -> the key that callers have to send; empty: none."""
        return {server.url: server.spec.api_key for server in self._servers}

    @property
    def restarts(self) -> int:
        """How often servers had to be started again, all together."""
        return sum(server.restarts for server in self._servers)

    @property
    def pids(self) -> dict[str, int]:
        """Server name -> process id, of those that run."""
        return {s.spec.name: s.process.pid for s in self._servers if s.process and s.process.poll() is None}

    def log_path(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def start(self) -> None:
        """Start every server and wait until all are ready; nothing is left running when this fails.

        Raises:
            UserError: wrong configuration, port that is taken.
            InfrastructureError: a server that dies or is not ready in time, with the tail of its log.
        """
        try:
            self._start_all()
            deadline = time.monotonic() + self._ready_seconds
            for server in self._servers:
                server.wait_ready(deadline)
        except BaseException:
            self.stop()
            raise
        self._start_monitor()

    def launch(self) -> None:
        """Start every server and return at once: `statuses` tells what becomes of them. One that ends is started again
        after a pause that grows to 30 seconds, unless another start would not help (see `State`); the others are not
        touched by that."""
        try:
            self._start_all()
        except BaseException:
            self.stop()
            raise
        self._start_monitor()

    def replace(self, spec: ServerSpec) -> None:
        """End the server of that name, and start it with this instead. Raises `KeyError` if there is none."""
        {server.spec.name: server for server in self._servers}[spec.name].replace(spec)

    def statuses(self) -> list[ServerStatus]:
        """In the order of the entries."""
        return [server.status() for server in self._servers]

    def _start_all(self) -> None:
        if self._servers:
            require(_NEEDS, "a tool server", preferred=("tools",))
        self._folder.mkdir(parents=True, exist_ok=True)
        self._stopping.clear()
        for server in self._servers:
            server.start()

    def _start_monitor(self) -> None:
        self._monitor = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._monitor.start()

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL to those that take longer than their drain time. Returns when none is left."""
        self._stopping.set()
        if self._monitor is not None:
            self._monitor.join()
            self._monitor = None
        for server in self._servers:
            server.terminate()
        started = time.monotonic()
        for server in self._servers:
            server.join(started + server.spec.config.drain_seconds + _KILL_SECONDS)

    def _watch(self) -> None:
        while not self._stopping.wait(_POLL_SECONDS):
            for server in self._servers:
                server.look()


class _Server:
    """One process and its files."""

    def __init__(self, spec: ServerSpec, folder: Path) -> None:
        self.spec = spec
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        self.log_path = folder / f"{spec.name}.log"
        self._config_path = folder / f"{spec.name}.config.json"
        self._ready_path = folder / f"{spec.name}.ready.json"
        self._failures = 0
        self._futile = 0  # starts that ended before it was ever ready
        self._replaced = False
        self._started = 0.0
        self._restart_at: float | None = None
        self._state: State = "stopped"
        self._since = time.monotonic()
        self._message = ""
        self._field = ""

    def status(self) -> ServerStatus:
        process = self.process
        pid = process.pid if process is not None and process.poll() is None else None
        seconds = time.monotonic() - self._since
        return ServerStatus(
            self.spec.name,
            self._state,
            self.url,
            pid,
            self.restarts,
            seconds,
            self._message,
            self._field,
            self.log_path,
        )

    def _enter(self, state: State, message: str = "", field: str = "") -> None:
        self._state, self._message, self._field, self._since = state, message, field, time.monotonic()

    def start(self) -> None:
        self._ready_path.unlink(missing_ok=True)
        write_private(self._config_path, dump_config(self._config()))
        command = [sys.executable, "-m", self.spec.module, "--config", str(self._config_path)]
        command += ["--ready-file", str(self._ready_path), "--supervised-by", str(os.getpid())]
        environment = self._environment()
        with append_private(self.log_path) as output:
            output.write(_kept_back(environment))
            output.flush()
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=environment
            )
        self._started = time.monotonic()
        self._enter("starting")

    def _config(self) -> ProcessConfig:
        """After the first start the port is known, and kept."""
        config = self.spec.config
        return config.model_copy(update={"port": urlsplit(self.url).port}) if self.url else config

    def _environment(self) -> dict[str, str]:
        return {**handed_over(self.spec.config.needed), **self.spec.env, **self.spec.config.secrets}

    def wait_ready(self, deadline: float) -> None:
        """Raises `UserError` or `InfrastructureError`, see `Supervisor.start`."""
        assert self.process is not None
        while True:
            exit_code = self.process.poll()  # before the file: one that failed writes it, then ends
            event = self._event()
            if event is not None and event["event"] == "ready":
                self._is_ready(event)
                return
            if event is not None or exit_code is not None:
                raise self._failure(event, exit_code)
            if time.monotonic() > deadline:
                raise InfrastructureError(f"{self.spec.name} is not ready in time. {self._tail()}")
            time.sleep(_POLL_SECONDS)

    def _event(self) -> dict[str, Any] | None:
        try:
            event = json.loads(self._ready_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return event if isinstance(event, dict) else None

    def _failure(self, event: dict[str, Any] | None, exit_code: int | None) -> Exception:
        if event is not None and event["family"] == "user":
            return UserError(event["message"], ".".join(filter(None, (self.spec.name, event["field"]))))
        reason = event["message"] if event is not None else f"it ended with exit code {exit_code}"
        return InfrastructureError(f"{self.spec.name} did not start: {reason}. {self._tail()}")

    def _tail(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
            return "\n".join([f"The end of its log, {self.log_path}:", *lines])
        return f"It has no log at {self.log_path}."

    def _is_ready(self, event: dict[str, Any]) -> None:
        self.url = event["url"]
        self._enter("ready")

    def look(self) -> None:
        """Called again and again: sees that the server is ready or has ended, waits out the backoff, starts it."""
        now = time.monotonic()
        if self._restart_at is not None:
            if now >= self._restart_at:
                self._restart(now)
            return
        if self.process is None or self._state in ("refused", "failed"):
            return
        exit_code = self.process.poll()  # before the file: one that failed writes it, then ends
        event = self._event() if self._state == "starting" else None
        if event is not None and event["event"] == "ready":
            self._is_ready(event)
        if exit_code is not None:
            self._close_pipe()
            self._has_ended(now, exit_code, event)

    def replace(self, spec: ServerSpec) -> None:
        """See `Supervisor.replace`. `look` sees the end, and starts the new one."""
        self.spec, self._replaced = spec, True
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def _has_ended(self, now: float, exit_code: int, event: dict[str, Any] | None) -> None:
        if self._replaced:
            self._replaced, self._restart_at = False, now
            return
        told = event if event is not None and event["event"] == "failed" else None
        family = told["family"] if told else ""
        reason = told["message"] if told else _ending(exit_code)
        if not self.url:  # one that has served may serve again, whatever it says now
            if told and family == "user":
                self._enter("refused", reason, told["field"])
                return
            self._futile += family != "infrastructure"
            if self._futile >= _MOST_STARTS:
                self._enter("failed", f"{reason}, {self._futile} times before it was ready; see {self.log_path}")
                log.warning("%s is not started again: %s", self.spec.name, reason)
                return
        self._failures = 0 if now - self._started > _STABLE_SECONDS else self._failures + 1
        backoff = min(_FIRST_BACKOFF_SECONDS * 2.0 ** max(self._failures - 1, 0), _MAX_BACKOFF_SECONDS)
        self._enter("waiting", f"{reason}; again in {backoff:.1f} s")
        log.warning("%s ended (%s); again in %.1f s", self.spec.name, reason, backoff)
        self._restart_at = now + backoff

    def _restart(self, now: float) -> None:
        self._restart_at = None
        self.restarts += 1
        try:
            self.start()
        except OSError as error:  # no memory, no disk: perhaps later
            log.warning("%s cannot be started: %s", self.spec.name, error)
            self._enter("waiting", f"it cannot be started: {error}; again in {_MAX_BACKOFF_SECONDS:.0f} s")
            self._restart_at = now + _MAX_BACKOFF_SECONDS

    def terminate(self) -> None:
        self._restart_at = None
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def join(self, deadline: float) -> None:
        """Wait for the end, and force it at the deadline."""
        if self.process is None:
            return
        try:
            self.process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            log.warning("%s does not stop; killed", self.spec.name)
            self.process.kill()
            self.process.wait()
        self._close_pipe()
        self._enter("stopped")

    def _close_pipe(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()


def _kept_back(environment: Mapping[str, str]) -> bytes:
    """The log's line that names the variables which the server does not get, for whoever misses one; often none."""
    names = sorted(os.environ.keys() - environment.keys())
    if not names:
        return b""
    event = f"not handed over of the environment; the server's env, or {PASS_VARIABLE}, hands more over"
    return (
        f"{JsonLines().format(logging.makeLogRecord({'levelname': 'INFO', 'msg': event, 'names': names}))}\n".encode()
    )


def _ending(exit_code: int) -> str:
    if exit_code < 0:
        with contextlib.suppress(ValueError):
            return f"it was ended by {signal.Signals(-exit_code).name}"
    return f"it ended with exit code {exit_code}"

"""`thinkimg up`: runs a fleet of tool servers and shows how they are, until it is interrupted."""

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from thinkimg.errors import UserError
from thinkimg.figures import duration
from thinkimg.serving.config import API_KEY_VARIABLE
from thinkimg.serving.fleet import DEVICES_VARIABLE
from thinkimg.serving.supervisor import ServerSpec, ServerStatus, Supervisor

_LOOK_SECONDS = 0.25
_READ_SECONDS = 2.0
_READ_TIMEOUT_SECONDS = 1.0
_COLORS = {"starting": "yellow", "ready": "green", "waiting": "red", "refused": "red", "stopped": "dim"}


@dataclass(frozen=True)
class Load:
    """What a server's metrics say of its work."""

    calls: int = 0
    errors: int = 0
    in_flight: int = 0


def run_fleet(specs: Sequence[ServerSpec], folder: Path, console: Console) -> None:
    """Run the servers until `KeyboardInterrupt`; none is left when this returns or raises.

    On a terminal a table is kept up to date; elsewhere each change of a server's state is a line.

    Args:
        folder: for logs, `NAME.log`.

    Raises:
        UserError: a server's configuration is wrong; all are stopped.
    """
    supervisor = Supervisor(specs, folder)
    try:
        supervisor.launch()
        with _Readings(specs, supervisor) as readings:
            if console.is_terminal:
                _show_table(specs, supervisor, readings, console)
            else:
                _print_lines(supervisor, console)
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        supervisor.stop()
    console.print(f"stopped; logs are in {folder}", soft_wrap=True)


def _show_table(specs: Sequence[ServerSpec], supervisor: Supervisor, readings: "_Readings", console: Console) -> None:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            statuses = supervisor.statuses()
            live.update(table_of(specs, statuses, readings.loads), refresh=True)
            _refuse(statuses)
            time.sleep(_LOOK_SECONDS)


def _print_lines(supervisor: Supervisor, console: Console) -> None:
    shown: dict[str, str] = {}
    announced = False
    while True:
        statuses = supervisor.statuses()
        for status in statuses:
            line = _line(status)
            if shown.get(status.name) != line:
                shown[status.name] = line
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        _refuse(statuses)
        if not announced and all(status.state == "ready" for status in statuses):
            announced = True
            console.print(f"all {len(statuses)} ready", highlight=False)
        time.sleep(_LOOK_SECONDS)


def _line(status: ServerStatus) -> str:
    details = {
        "starting": f"starting (log: {status.log})",
        "ready": f"ready at {status.url} (pid {status.pid})",
        "waiting": f"not running: {status.message}",
        "refused": f"refused: {status.message}",
    }
    return f"{status.name}: {details.get(status.state, status.state)}"


def _refuse(statuses: Sequence[ServerStatus]) -> None:
    for status in statuses:
        if status.state == "refused":
            raise UserError(status.message, ".".join(filter(None, (status.name, status.field))))


def table_of(specs: Sequence[ServerSpec], statuses: Sequence[ServerStatus], loads: dict[str, Load]) -> Table:
    """One row per process. Fits 80 columns; a reason is only shown where there is one."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("service", "state", "address", "device"):
        table.add_column(heading, no_wrap=True)
    for heading in ("calls", "errors", "busy", "restarts"):
        table.add_column(heading, justify="right", no_wrap=True)
    for spec, status in zip(specs, statuses, strict=True):
        load = loads.get(status.name)
        color = _COLORS[status.state]
        state = f"[{color}]{status.state}[/] [dim]{duration(status.seconds, decimals=0)}[/]"
        numbers = (load.calls, load.errors, load.in_flight) if load else ("", "", "")
        table.add_row(
            escape(status.name),
            state,
            status.url.removeprefix("http://"),
            escape(spec.env.get(DEVICES_VARIABLE, "")),
            *(str(number) for number in (*numbers, status.restarts)),
        )
    reasons = [f"{status.name}: {status.message}" for status in statuses if status.message]
    if reasons:
        table.caption = escape("\n".join(reason[:300] for reason in reasons))
        table.caption_justify = "left"
    return table


class _Readings:
    """Reads every ready server's metrics again and again, in a thread of its own: a server that hangs must not stop the
    table."""

    def __init__(self, specs: Sequence[ServerSpec], supervisor: Supervisor) -> None:
        self.loads: dict[str, Load] = {}
        self._keys = {spec.name: spec.config.secrets.get(API_KEY_VARIABLE) for spec in specs}
        self._supervisor = supervisor
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read_all, name="readings", daemon=True)

    def __enter__(self) -> "_Readings":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()

    def _read_all(self) -> None:
        with httpx.Client(trust_env=False, timeout=_READ_TIMEOUT_SECONDS) as http:
            while not self._ending.wait(_READ_SECONDS):
                for status in self._supervisor.statuses():
                    if status.state == "ready":
                        with contextlib.suppress(httpx.HTTPError, ValueError):
                            self.loads[status.name] = self._read(http, status)

    def _read(self, http: httpx.Client, status: ServerStatus) -> Load:
        secret = self._keys.get(status.name) or os.environ.get(API_KEY_VARIABLE)
        headers = {"authorization": f"Bearer {secret.strip()}"} if secret else {}
        return load_of(http.get(f"{status.url}/metrics", headers=headers).raise_for_status().text)


def load_of(metrics: str) -> Load:
    """Sums over the tools of one server, or of a gateway, from the text of its `/metrics`."""
    totals: Counter[str] = Counter()
    failed = 0
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            totals[sample.name] += int(sample.value)
            if sample.name == "thinkimg_gateway_tool_calls_total" and sample.labels["outcome"] != "ok":
                failed += int(sample.value)
    return Load(
        totals["thinkimg_tool_calls_total"] + totals["thinkimg_gateway_tool_calls_total"],
        totals["thinkimg_tool_errors_total"] + failed,
        totals["thinkimg_tool_calls_in_flight"] + totals["thinkimg_gateway_requests_in_flight"],
    )

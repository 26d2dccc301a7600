"""For `thinkimg up`: runs a fleet of tool servers and shows how they are, until it is interrupted."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from thinkimg.errors import UserError
from thinkimg.figures import age
from thinkimg.serving.fleet import DEVICES_VARIABLE
from thinkimg.serving.load import Load, Readings
from thinkimg.serving.supervisor import ServerSpec, ServerStatus, Supervisor

_LOOK_SECONDS = 0.25
_COLORS = {"starting": "yellow", "ready": "green", "waiting": "red", "refused": "red", "stopped": "dim"}


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
        with Readings(specs, supervisor) as readings:
            if console.is_terminal:
                _show_table(specs, supervisor, readings, console)
            else:
                _print_lines(supervisor, console)
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        supervisor.stop()
    console.print(f"stopped; logs are in {folder}", soft_wrap=True)


def _show_table(specs: Sequence[ServerSpec], supervisor: Supervisor, readings: Readings, console: Console) -> None:
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
        state = f"[{color}]{status.state}[/] [dim]{age(status.seconds)}[/]"
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

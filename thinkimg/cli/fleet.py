"""For `thinkimg up`: runs a fleet of tool servers and shows how they are, until it is interrupted."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from thinkimg.errors import InfrastructureError, UserError
from thinkimg.figures import age
from thinkimg.serving.fleet import DEVICES_VARIABLE
from thinkimg.serving.load import Load, Readings
from thinkimg.serving.supervisor import ServerSpec, ServerStatus, Supervisor

_LOOK_SECONDS = 0.25
_COLORS = {
    "starting": "yellow",
    "ready": "green",
    "stopped": "dim",
    **dict.fromkeys(("waiting", "refused", "failed"), "red"),
}
_GATEWAY = "thinkimg.gateway"


def run_fleet(specs: Sequence[ServerSpec], folder: Path, console: Console) -> None:
    """Run the servers until `KeyboardInterrupt`; none is left when this returns or raises.

    On a terminal a table is kept up to date; elsewhere each change of a server's state is a line. A tool server that
    cannot start stops no other: it is said why, and the gateway goes on without it.

    Args:
        folder: for logs, `NAME.log`.

    Raises:
        UserError: no tool server can start; the first reason that is the user's is named.
        InfrastructureError: the same, and no reason is the user's.
    """
    supervisor = Supervisor(specs, folder)
    fleet = _Fleet(specs, supervisor)
    try:
        supervisor.launch()
        with Readings(specs, supervisor) as readings:
            if console.is_terminal:
                _show_table(fleet, readings, console)
            else:
                _print_lines(fleet, console)
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        supervisor.stop()
    console.print(f"stopped; logs are in {folder}", soft_wrap=True)


class _Fleet:
    """What runs, and what follows from a server that does not."""

    def __init__(self, specs: Sequence[ServerSpec], supervisor: Supervisor) -> None:
        self.specs = specs
        self._supervisor = supervisor
        self._missing: frozenset[str] = frozenset()

    def look(self) -> list[ServerStatus]:
        """How the servers are. A gateway waits for all of its servers, so that it is started anew without those that
        will not come; none of them has ever been ready, and so has the gateway not."""
        statuses = self._supervisor.statuses()
        tools = {spec.name for spec in self.specs if spec.module != _GATEWAY}
        missing = frozenset(status.name for status in statuses if status.ended and status.name in tools)
        if missing == tools:
            _refuse([status for status in statuses if status.name in missing])
        if missing != self._missing:
            self._missing = missing
            self._leave_out(missing)
        return statuses

    def _leave_out(self, missing: frozenset[str]) -> None:
        for spec in self.specs:
            if spec.module == _GATEWAY:
                from thinkimg.gateway.fleet import without

                self._supervisor.replace(without(spec, [one for one in self.specs if one.name in missing]))


def _refuse(statuses: Sequence[ServerStatus]) -> None:
    first = next((status for status in statuses if status.state == "refused"), None)
    others = "".join(f"\n{status.name}: {status.message}" for status in statuses if status is not first)
    if first is None:
        raise InfrastructureError(f"no service can start{others}")
    raise UserError(first.message + others, ".".join(filter(None, (first.name, first.field))))


def _show_table(fleet: _Fleet, readings: Readings, console: Console) -> None:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            statuses = fleet.look()
            live.update(table_of(fleet.specs, statuses, readings.loads), refresh=True)
            time.sleep(_LOOK_SECONDS)


def _print_lines(fleet: _Fleet, console: Console) -> None:
    shown: dict[str, str] = {}
    announced = ""
    while True:
        statuses = fleet.look()
        for status in statuses:
            line = _line(status)
            if shown.get(status.name) != line:
                shown[status.name] = line
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        said = _whole(statuses)
        if said and said != announced:
            announced = said
            console.print(said, highlight=False)
        time.sleep(_LOOK_SECONDS)


def _whole(statuses: Sequence[ServerStatus]) -> str:
    """What is said once everything that can be ready is."""
    missing = [status.name for status in statuses if status.ended]
    if not all(status.ended or status.state == "ready" for status in statuses):
        return ""
    if not missing:
        return f"all {len(statuses)} ready"
    return f"{len(statuses) - len(missing)} of {len(statuses)} ready; without {', '.join(missing)}"


def _line(status: ServerStatus) -> str:
    details = {
        "starting": f"starting (log: {status.log})",
        "ready": f"ready at {status.url} (pid {status.pid})",
        "waiting": f"not running: {status.message}",
        "refused": f"refused, and not started again: {_named(status)}",
        "failed": f"not started again: {status.message}",
    }
    return f"{status.name}: {details.get(status.state, status.state)}"


def _named(status: ServerStatus) -> str:
    return f"{status.field}: {status.message}" if status.field else status.message


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
    reasons = [f"{status.name}: {_named(status)}" for status in statuses if status.message]
    if reasons:
        table.caption = escape("\n".join(reason[:300] for reason in reasons))
        table.caption_justify = "left"
    return table

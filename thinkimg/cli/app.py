"""Puts the command `thinkimg` together, and turns what goes wrong into one line and an exit code.

Heavy imports (torch, servers) happen inside the commands that need them: help and completion must not wait for them.
"""

import contextlib
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape

from thinkimg import __version__
from thinkimg.cli import cluster, evaluate, gateway, models, play, replay, run, synthesize, tools, view, weights
from thinkimg.cli.command import TOOLS, Command
from thinkimg.cli.screen import notes
from thinkimg.errors import InfrastructureError, UserError, full_disk

COMMANDS: tuple[Command, ...] = (
    *run.COMMANDS,
    *synthesize.COMMANDS,
    *models.COMMANDS,
    *evaluate.COMMANDS,
    *replay.COMMANDS,
    *view.COMMANDS,
    *tools.COMMANDS,
    *play.COMMANDS,
    *cluster.COMMANDS,
)
"""In the order of the help. Groups of their own are `thinkimg weights` (`weights.WEIGHTS`) and `thinkimg gateway`
(`gateway.GATEWAY` and `gateway.KEYS`)."""

_TYPER_INTERRUPTED = 130
_HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    help="Teach vision-language models to think with images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=_HELP,
    epilog="[bold]Begin with:[/]\n"
    "[cyan]thinkimg play[/]\n"
    "[cyan]thinkimg example && thinkimg tools OCR --image chart.png --out read.png[/]\n"
    "[cyan]thinkimg run manifests/toolrljob-cpu.yaml --run runs/demo[/]",
)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def _add(target: typer.Typer, command: Command, before: str = "thinkimg") -> None:
    register = target.command(command.name, help=command.help, rich_help_panel=command.panel, epilog=command.epilog)
    register(command.guarded(before))


def _add_weights() -> None:
    group = typer.Typer(help="List, fetch, export and verify the weights of tools.", no_args_is_help=True)
    for command in weights.WEIGHTS:
        _add(group, command, "thinkimg weights")
    app.add_typer(group, name="weights", rich_help_panel=TOOLS)


def _add_gateway() -> None:
    group = typer.Typer(invoke_without_command=True)
    group.callback(help=gateway.GATEWAY.help, epilog=gateway.GATEWAY.epilog)(gateway.GATEWAY.guarded())
    keys = typer.Typer(help="Add, list and remove the keys that callers of a gateway need.", no_args_is_help=True)
    for command in gateway.KEYS:
        _add(keys, command, "thinkimg gateway keys")
    group.add_typer(keys, name="keys")
    app.add_typer(group, name=gateway.GATEWAY.name, rich_help_panel=gateway.GATEWAY.panel)


for _command in COMMANDS:
    _add(app, _command)
_add_weights()
_add_gateway()


def main() -> NoReturn:
    """Run the command; families of errors become one line and a `thinkimg.api.pod_contract.ExitCode`."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(standalone_mode=False, prog_name="thinkimg") or 0
        if code == _TYPER_INTERRUPTED:  # typer makes an exit of KeyboardInterrupt, and a return value of an exit
            raise KeyboardInterrupt
    except typer.Exit as exit:
        code = exit.exit_code
    except (Exception, KeyboardInterrupt) as error:
        code = _exit_code_of(error)
    sys.stdout.flush()
    sys.exit(code)


def _complain(family: str, error: BaseException) -> None:
    """Never wrapped: who looks for a field's path in a log finds it whole. Where even this cannot be written, the exit
    code says it."""
    with contextlib.suppress(OSError):
        notes.print(f"[red]{family}[/] {escape(str(error))}", highlight=False, soft_wrap=True)


def _exit_code_of(error: BaseException) -> int:
    from thinkimg.api import ManifestError
    from thinkimg.api.pod_contract import ExitCode

    if isinstance(error, KeyboardInterrupt):
        notes.print("interrupted; run the same command again to go on")
        return ExitCode.INTERRUPTED
    if isinstance(error, UserError | ManifestError):
        _complain("error", error)
        return ExitCode.USER
    if isinstance(error, InfrastructureError):
        _complain("infrastructure", error)
        return ExitCode.INFRASTRUCTURE
    if full := full_disk(error):
        _complain("infrastructure", full)
        return ExitCode.INFRASTRUCTURE
    if isinstance(error, typer.Abort):
        return ExitCode.BUG
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # wrong usage; typer has its own copy of click's classes
        error.show()
        return int(error.exit_code)
    code = getattr(error, "code", None)
    if isinstance(code, int):  # a stage that failed has said why; its code is passed on
        _complain("error", error)
        return code
    notes.print_exception()
    return ExitCode.BUG


def _interrupt(*_: Any) -> NoReturn:
    """SIGTERM ends a command as Ctrl-C does."""
    raise KeyboardInterrupt

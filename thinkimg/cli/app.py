"""The command `thinkimg`. Heavy imports (torch, servers) happen inside the commands that need them."""

import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape

from thinkimg import __version__
from thinkimg.api.pod_contract import ExitCode
from thinkimg.cli import cluster, evaluate, gateway, models, run, synthesize, tools, view
from thinkimg.cli.screen import notes
from thinkimg.errors import InfrastructureError, UserError

_TYPER_INTERRUPTED = 130

app = typer.Typer(
    help="Teach vision-language models to think with images.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip
gateway_app = typer.Typer(invoke_without_command=True)
keys_app = typer.Typer(help="Add, list and remove the keys that callers of a gateway need.", no_args_is_help=True)

TRAIN, EVALUATE, TOOLS, GATEWAY, CLUSTER = "Train", "Evaluate", "Tools", "Gateway", "Cluster"

_COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Train": {
        "run": run.run,
        "table": run.table,
        "synthesize": synthesize.synthesize,
        "stage": run.stage,
    },
    "Use and evaluate": {
        "ask": models.ask,
        "eval": evaluate.evaluate,
        "compare": evaluate.compare,
        "view": view.view,
        "export": models.export,
    },
    "Tools": {"tools": tools.tools, "serve": tools.serve, "up": tools.up},
    "Cluster": {
        "submit": cluster.submit,
        "status": cluster.status,
        "logs": cluster.logs,
        "results": cluster.results,
        "suspend": cluster.suspend,
        "resume": cluster.resume,
    },
}


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def _assemble() -> None:
    for panel, commands in _COMMANDS.items():
        for name, function in commands.items():
            app.command(name, rich_help_panel=panel)(function)
    gateway_app.callback()(gateway.gateway)
    keys_app.command("add")(gateway.add_key)
    keys_app.command("list")(gateway.list_keys)
    keys_app.command("remove")(gateway.remove_key)
    gateway_app.add_typer(keys_app, name="keys")
    app.add_typer(gateway_app, name="gateway", rich_help_panel="Tools")


_assemble()


def main() -> NoReturn:
    """Run the command; turn the families of errors into one line and an exit code."""
    from thinkimg.api import ManifestError

    signal.signal(signal.SIGTERM, _interrupt)
    code: int
    try:
        code = app(standalone_mode=False) or 0
        if code == _TYPER_INTERRUPTED:  # typer makes an exit of KeyboardInterrupt, and a return value of an exit
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        notes.print("interrupted; run the same command again to go on")
        code = ExitCode.INTERRUPTED
    except (UserError, ManifestError) as error:
        _complain("error", error)
        code = ExitCode.USER
    except InfrastructureError as error:
        _complain("infrastructure", error)
        code = ExitCode.INFRASTRUCTURE
    except typer.Exit as exit:
        code = exit.exit_code
    except typer.Abort:
        code = ExitCode.BUG
    except Exception as error:
        code = _exit_code_of(error)
    sys.stdout.flush()
    sys.exit(code)


def _complain(family: str, error: Exception) -> None:
    """Never wrapped: who looks for a field's path in a log finds it whole."""
    notes.print(f"[red]{family}[/] {escape(str(error))}", highlight=False, soft_wrap=True)


def _exit_code_of(error: Exception) -> int:
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

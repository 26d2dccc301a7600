"""Every command of `thinkimg`, by the words that it is typed with, and how words are parsed."""

import shlex
from typing import Any

import typer

from thinkimg.cli.app import COMMANDS, app
from thinkimg.cli.command import Command
from thinkimg.cli.gateway import GATEWAY, KEYS
from thinkimg.cli.weights import WEIGHTS

EVERY_COMMAND: dict[str, Command] = {
    **{command.name: command for command in (*COMMANDS, GATEWAY)},
    **{f"gateway keys {command.name}": command for command in KEYS},
    **{f"weights {command.name}": command for command in WEIGHTS},
}


def parse(line: str) -> tuple[Any, dict[str, Any]]:
    """The command that a line calls, and its parameters; nothing runs.

    Raises:
        Exception: of typer's usage errors, when the line would be refused.
    """
    words = shlex.split(line.partition(" > ")[0])
    assert words[0] == "thinkimg"
    command: Any = typer.main.get_command(app)
    context = command.make_context("thinkimg", words[1:])
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        if not rest:
            break
        name, command, rest = command.resolve_command(context, rest)
        if any(option.is_eager and set(option.opts) & set(rest) for option in command.params):
            return command, {}  # it would run, and end, while it is parsed
        context = command.make_context(name, list(rest), parent=context)
    return command, context.params

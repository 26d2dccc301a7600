"""Writes docs/reference/command-line.md from the command `thinkimg` itself.

    .venv/bin/python hack/generate_cli_reference.py

A test compares the page with what this makes.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from thinkimg.cli.app import COMMANDS, app
from thinkimg.cli.command import Command
from thinkimg.cli.gateway import GATEWAY, KEYS
from thinkimg.cli.weights import WEIGHTS

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "command-line.md"
HEAD = """# The command line

<!-- Made by hack/generate_cli_reference.py; `thinkimg COMMAND -h` says the same. -->

`thinkimg --install-completion` teaches your shell to complete commands, options and the names of tools, tasks, stages,
models and keys. `-h` stands for `--help` everywhere.

With `--json`, standard output is exactly one JSON document; progress and notes are on standard error. A command that
needs a package that is not installed says which extra brings it: `pip install 'thinkimg[train]'`.

| Exit code | Meaning |
|---|---|
| 0 | done |
| 1 | a bug: please report the traceback |
| 2 | something that you gave is wrong, or a package is missing; the line on standard error names the field or option |
| 3 | `thinkimg replay`: a result is not the recorded one |
| 70 | something around the program failed: a server, a disk, the cluster; try again |
| 75 | interrupted; run the same command again to go on |
"""


def page() -> str:
    """The whole page."""
    root: Any = typer.main.get_command(app)
    gateway = root.commands["gateway"]
    panels: dict[str, list[tuple[str, Any, Command]]] = {}
    for command in (*COMMANDS, GATEWAY):
        panels.setdefault(command.panel, []).append((command.name, root.commands[command.name], command))
    keys = gateway.commands["keys"].commands
    panels[GATEWAY.panel] += [(f"gateway keys {command.name}", keys[command.name], command) for command in KEYS]
    weights = root.commands["weights"].commands
    panels[GATEWAY.panel] += [(f"weights {command.name}", weights[command.name], command) for command in WEIGHTS]
    parts = [HEAD.rstrip("\n")]
    for panel, commands in panels.items():
        parts += [f"\n## {panel}\n", *("\n".join(_command(*one)) for one in commands)]
    return "\n".join(parts)


def _command(words: str, typed: Any, command: Command) -> Iterator[str]:
    yield f"### thinkimg {words}\n"
    yield f"`thinkimg {words}{_usage(typed)}`\n"
    yield inspect.cleandoc(command.function.__doc__ or "") + "\n"
    yield "| Argument or option | Default | |"
    yield "|---|---|---|"
    for parameter in typed.params:
        if parameter.name != "help":
            yield f"| `{_names(parameter)}` | {_default(parameter)} | {_cell(parameter.help)} |"
    yield "\n```bash"
    yield from command.examples
    yield "```\n"


def _cell(text: str) -> str:
    """Without signs that Markdown takes for its own."""
    return text.replace("<", "\\<").replace("|", "\\|")


def _usage(typed: Any) -> str:
    arguments = [_argument(one) for one in typed.params if one.param_type_name == "argument"]
    return "".join(f" {word}" for word in ("[OPTIONS]", *arguments))


def _argument(parameter: Any) -> str:
    word = (parameter.metavar or parameter.name.upper()).removesuffix("…") + ("…" if parameter.nargs != 1 else "")
    return word if parameter.required else f"[{word}]"


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return _argument(parameter).strip("[]")
    return ", ".join([*parameter.opts, *parameter.secondary_opts])


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.default in (None, False, "", (), []):
        return ""
    return f"`{'on' if parameter.default is True else parameter.default}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""What `app` must know of each command: where help lists it, how it is used, and what it needs."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.markup import escape

from thinkimg.extras import naming_the_extra

TRAIN = "Train"
EVALUATE = "Use and evaluate"
TOOLS = "Tools and gateway"
CLUSTER = "On a cluster"


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: as it is typed, without those before it.
        panel: the group in which help lists it.
        examples: whole command lines, shown below its help.
        extras: which to name, the best first, when a package is missing that several extras bring.
        needs: packages without which its work is not worth beginning.
    """

    name: str
    function: Callable[..., None]
    panel: str
    examples: tuple[str, ...]
    extras: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def guarded(self, before: str = "thinkimg") -> Callable[..., Any]:
        """The function; a package that is missing ends it with one line.

        Args:
            before: the words before its name.
        """
        return naming_the_extra(f"{before} {self.name}", self.extras, self.needs)(self.function)

    @property
    def help(self) -> str:
        """The docstring, a line for each paragraph: Typer keeps line ends, which a terminal would break once more."""
        paragraphs = (inspect.getdoc(self.function) or "").split("\n\n")
        return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)

    @property
    def epilog(self) -> str:
        """The examples, for the end of its help."""
        return "\n".join(["[bold]Examples:[/]", *(f"[cyan]{escape(example)}[/]" for example in self.examples)])

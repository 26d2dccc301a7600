"""Where commands write: what a script reads goes to standard output, everything else to standard error."""

from rich.console import Console

notes = Console(stderr=True)
"""For progress, notes and errors."""

"""The command `thinkimg`: `app` puts together what the other modules hold, a file per group of commands."""

from thinkimg.cli.app import main

__all__ = ["main"]

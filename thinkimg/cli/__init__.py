"""The command `thinkimg`."""

from thinkimg.cli.app import app, main

__all__ = ["app", "main"]

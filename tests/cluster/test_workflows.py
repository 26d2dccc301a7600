"""The workflows of the repository, by actionlint: expressions, events, inputs of actions, shell."""

import subprocess

import binaries

from tests.support import REPOSITORY


def test_actionlint_finds_nothing() -> None:
    program = binaries.ensure(["actionlint"])["actionlint"]
    files = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
    assert files
    done = subprocess.run([str(program), *map(str, files)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout

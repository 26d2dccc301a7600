"""Each sentence of docs/guides/security.md that promises something names tests that are there."""

import ast
import re
from functools import cache

from tests.support import REPOSITORY

PAGE = REPOSITORY / "docs" / "guides" / "security.md"
NOTE = re.compile(r"\[\^([\w-]+)\](?!:)")
DEFINED = re.compile(r"^\[\^([\w-]+)\]: (.+)$", re.MULTILINE)
YOURS = "\n## Yours to know\n"


def notes(text: str) -> dict[str, list[str]]:
    """Footnote -> tests, each as FILE::NAME."""
    return {name: [test.strip("`") for test in tests.split(", ")] for name, tests in DEFINED.findall(text)}


def unheld(text: str) -> list[str]:
    """Rows of tables and sentences behind `Promises` that name no test."""
    promised = DEFINED.sub("", text.partition(YOURS)[0])
    before, _, after = promised.partition("\n## Promises\n")
    rows = [line for line in before.splitlines() if line.startswith("|") and not line.startswith(("|--", "| Who"))]
    prose = re.sub(r"\*\*[^*]+\.\*\*", "", re.sub(r"\s+", " ", re.sub(r"`[^`]*`|\]\([^)]*\)", "CODE", after)))
    sentences = re.findall(r"[^.]+(?:\.(?=[^\s\[])[^.]*)*\.(?:\[\^[\w-]+\])*", prose)
    return [part.strip() for part in [*rows, *sentences] if not NOTE.search(part)]


@cache
def names_in(file: str) -> frozenset[str]:
    path = REPOSITORY / file
    nodes = ast.parse(path.read_text()).body if path.is_file() else []
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def exists(test: str) -> bool:
    file, _, name = test.partition("::")
    return file.startswith("tests/") and name.startswith("test_") and name in names_in(file)


def test_every_promise_names_a_test() -> None:
    text = PAGE.read_text()
    assert unheld(text) == []
    assert len(NOTE.findall(text)) >= 40


def test_every_test_that_is_named_is_there() -> None:
    text = PAGE.read_text()
    defined = notes(text)
    assert set(NOTE.findall(text)) == defined.keys()
    assert [test for tests in defined.values() for test in tests if not exists(test)] == []


def test_a_promise_without_a_test_and_a_test_that_is_gone_are_found() -> None:
    text = PAGE.read_text()
    added = text.replace(YOURS, f"\n**More.** A promise of `a.b`, as in x.y.{YOURS}")
    assert unheld(added) == ["A promise of CODE, as in x.y."]
    assert unheld(text.replace("[^rates]", "", 1)) == ["Each key has its own rate and quota."]
    assert unheld(text.replace("[^reached-trainers]", "", 1)) == ["| trainers | trainers of the same job |"]
    assert not exists("tests/unit/project/test_promises.py::test_nothing")
    assert not exists("tests/unit/project/test_gone.py::test_nothing")

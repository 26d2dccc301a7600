"""Tests import what they share from `tests.support`, and nothing changes the path of imports."""

import ast
from functools import partial
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from tests.support.side_by_side import ByFile

TESTS = REPOSITORY / "tests"
MAY_CHANGE_THE_PATH = {
    "test_rewards.py": "a reward of the user's own is found where the command was started: a folder of that test",
    "test_late_mistakes.py": "rewards of the user's own, as above",
    "test_plan.py": "a scorer of the user's own, as above",
}
PROGRAMS = {"gpu/gpu_check.py": "a program for a machine with a GPU, whose checks are no tests of pytest"}
CHANGES = {"append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse"}


def is_path(node: ast.expr) -> bool:
    """`sys.path`, or an element or a slice of it."""
    if isinstance(node, ast.Subscript):
        return is_path(node.value)
    return isinstance(node, ast.Attribute) and node.attr == "path" and ast.unparse(node.value) == "sys"


def path_edits(source: str) -> list[int]:
    """Lines that change the path of imports, in programs held as text too."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr=attr)) if is_path(value) and attr in CHANGES:
                lines.append(node.lineno)
            case ast.Call(func=ast.Attribute(attr="syspath_prepend" | "addsitedir")):
                lines.append(node.lineno)
            case ast.Assign(targets=targets) | ast.Delete(targets=targets) if any(map(is_path, targets)):
                lines.append(node.lineno)
            case ast.AugAssign(target=target) | ast.AnnAssign(target=target) if is_path(target):
                lines.append(node.lineno)
            case ast.ImportFrom(module="sys", names=names) if any(name.name == "path" for name in names):
                lines.append(node.lineno)
            case ast.Constant(value=str(text)) if is_program(text):
                lines += [node.lineno for _ in path_edits(text)]
    return lines


def is_program(text: str) -> bool:
    if "sys.path" not in text:
        return False
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


@pytest.mark.parametrize(
    "offence",
    [
        "import sys\nsys.path.insert(0, 'tests/unit/models')",
        "import sys\nsys.path += ['hack']",
        "import sys\nsys.path[:0] = ['hack']",
        "import sys\nsys.path = ['hack', *sys.path]",
        "import sys\ndel sys.path[0]",
        "from sys import path\npath.append('hack')",
        "def test_it(monkeypatch):\n    monkeypatch.syspath_prepend('hack')",
        "PROGRAM = 'import sys; sys.path.insert(0, \"tests\")'",
    ],
)
def test_a_change_of_the_path_is_found(offence: str) -> None:
    assert path_edits(offence)


@pytest.mark.parametrize(
    "harmless", ["import sys\nprint(sys.path)", "WORDS = 'of sys.path.insert(0, x) we say nothing'"]
)
def test_reading_the_path_or_speaking_of_it_is_no_change(harmless: str) -> None:
    assert not path_edits(harmless)


def test_no_file_of_the_tests_changes_the_path() -> None:
    edits = {
        f"{file.relative_to(TESTS)}:{line}"
        for file in TESTS.rglob("*.py")
        if file != Path(__file__) and file.name not in MAY_CHANGE_THE_PATH
        for line in path_edits(file.read_text(encoding="utf-8"))
    }
    assert not edits, "import it from tests.support, or from a module of hack/ (pythonpath of pyproject.toml)"


def shared_elsewhere(files: list[Path]) -> set[str]:
    """Modules that are no tests and stand outside of `tests.support`."""
    names = {str(file): file.name for file in files if file.parts[0] != "support"}
    return {
        file
        for file, name in names.items()
        if not name.startswith("test_") and name not in ("conftest.py", "__init__.py") and file not in PROGRAMS
    }


def test_what_tests_share_is_in_the_support_package() -> None:
    files = [file.relative_to(TESTS) for file in TESTS.rglob("*.py")]
    assert not shared_elsewhere(files)
    assert shared_elsewhere([*files, Path("unit/models/tiny.py")]) == {"unit/models/tiny.py"}


def test_no_test_imports_another() -> None:
    found = {
        f"{file.relative_to(TESTS)}: {module}"
        for file in TESTS.rglob("*.py")
        for module in imported(ast.parse(file.read_text(encoding="utf-8")))
        if module.rpartition(".")[2].startswith(("test_", "conftest"))
    }
    assert not found, "what two files of tests need belongs to tests.support"


def test_an_import_of_another_test_is_found() -> None:
    assert "test_grpo" in imported(ast.parse("from test_grpo import prepare"))
    assert "tests.unit.training.test_grpo" in imported(ast.parse("import tests.unit.training.test_grpo"))


QUICK = ("unit", "contracts")
NO_PLACE = ("tests.support.cluster", "tests.support.jobs.small_job", "tests.support.browser", "controlplane")
TRAINS = {"train_grpo", "train_sft", "trainer.train"}


def heavy_parts(source: str) -> set[str]:
    """What a file of tests does that `make test-fast` has no time for: ranks, a cluster, a browser, training."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Constant(
                value="torch.distributed.run" | "torchrun" | "accelerate.commands.accelerate_cli" as program
            ):
                found.add(str(program))
            case ast.Call(func=func) if ast.unparse(func) in TRAINS:
                found.add(ast.unparse(func))
            case ast.Import() | ast.ImportFrom():
                found |= {name for name in imported(node) if name.startswith(NO_PLACE)}
    return found


@pytest.mark.parametrize(
    "offence",
    [
        "command = [sys.executable, '-m', 'torch.distributed.run', '--standalone']",
        "trainer = train_sft(model, samples)",
        "trainer.train()",
        "from tests.support.cluster.testcluster import Cluster",
        "from tests.support.jobs import small_job",
    ],
)
def test_what_has_no_place_among_quick_tests_is_found(offence: str) -> None:
    assert heavy_parts(offence)


def test_quick_tests_start_no_ranks_no_cluster_and_train_nothing() -> None:
    found = {
        f"{file.relative_to(TESTS)}: {part}"
        for folder in QUICK
        for file in (TESTS / folder).rglob("*.py")
        if file != Path(__file__)
        for part in heavy_parts(file.read_text(encoding="utf-8"))
    }
    assert not found, "docs/guides/tests.md says where it belongs"


def test_files_are_shared_among_workers_but_the_cluster_has_one() -> None:
    scope = partial(ByFile._split_scope, object.__new__(ByFile))
    assert scope("tests/unit/core/test_image.py::test_a[1::2]") == "tests/unit/core/test_image.py"
    cluster = [scope(f"tests/cluster/test_{name}.py::test_it") for name in ("front", "whole_run")]
    assert cluster == ["tests/cluster"] * 2


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names

"""What the pages say is so: names and paths exist, commands are commands, examples run.

Examples are fenced blocks after a comment: `<!-- file: NAME -->` writes the block to that file, `<!-- run -->` runs it
as Python. The blocks of a page share one empty folder, in the page's order.
"""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from thinkimg.api.v1alpha1 import check_local, load_manifest
from thinkimg.cli.app import app
from thinkimg.tools.registry import TOOLS

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
TOP_LEVEL = r"thinkimg|charts|docs|tests|bench|hack|manifests|operator|\.ci"
NAME = re.compile(r"\bthinkimg(?:\.\w+)+\b(?![/\w])")
PATH = re.compile(rf"`((?:{TOP_LEVEL})/[\w./-]*)`")
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
ENTRY_POINTS = {"thinkimg.rewards"}
"""Groups of entry points that are no module too."""
BLOCK = re.compile(r"<!-- (run|file: (?P<file>[\w./-]+)) -->\n```\w*\n(?P<code>.*?)```", re.DOTALL)


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def names_of(file: Path) -> dict[str, set[str]]:
    """Top-level names of a module, each with its members if it is a class. Nothing is imported."""
    found: dict[str, set[str]] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {name for child in node.body for name in bound_by(child)}
        else:
            found |= {name: set() for name in bound_by(node)}
    return found


def bound_by(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


ENTRY_POINT_GROUPS = {"thinkimg.rewards"}
"""Dotted names that are no module: packages say in their metadata what they bring under them."""


def exists(dotted: str) -> bool:
    if dotted in ENTRY_POINT_GROUPS:
        return True
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        folder = ROOT.joinpath(*parts[:length])
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        if not file.exists():
            continue
        rest = parts[length:]
        if not rest:
            return True
        names = names_of(file)
        return rest[0] in names and (len(rest) == 1 or (len(rest) == 2 and rest[1] in names[rest[0]]))
    return False


def test_the_check_of_names_knows_right_from_wrong():
    assert exists("thinkimg.agent.agent.Agent.run")
    assert exists("thinkimg.tools")
    assert not exists("thinkimg.agent.agent.Agent.walk")
    assert not exists("thinkimg.agents")


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_dotted_name_exists(page):
    assert [
        name for name in sorted(set(NAME.findall(page.read_text()))) if not exists(name) and name not in ENTRY_POINTS
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_path_exists(page):
    text = page.read_text()
    links = [target for target in LINK.findall(text) if "://" not in target]
    wanted = {(page.parent / target).resolve() for target in links} | {ROOT / path for path in PATH.findall(text)}
    missing = {str(path.relative_to(ROOT)) for path in wanted if not path.exists()}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_command_exists(page):
    code = "\n".join(code_on(page.read_text()))
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    commands |= {group.name for group in app.registered_groups}
    called = set(re.findall(r"(?:^|bin/)thinkimg ([a-z]+)\b", code, re.MULTILINE))
    assert called <= commands
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z0-9-]+)", code, re.MULTILINE)) <= targets


def code_on(text: str) -> list[str]:
    """Fenced blocks and what stands in backticks."""
    return [fenced or inline for fenced, inline in re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`", text, re.DOTALL)]


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES, ids=page_name)
def test_the_examples_of_a_guide_run(guide, tmp_path):
    for number, block in enumerate(BLOCK.finditer(guide.read_text())):
        if block["file"]:
            (tmp_path / block["file"]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block["file"]).write_text(block["code"])
            continue
        script = tmp_path / f"example_{number}.py"
        script.write_text(block["code"])
        done = subprocess.run([sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{block['code']}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), "an example shows something"
    for manifest in tmp_path.glob("job*.yaml"):
        found = check_local(
            load_manifest(manifest), available_tools={name: tool.backends for name, tool in TOOLS.items()}
        )
        assert (found.problems, found.warnings) == ([], [])


def test_there_are_examples_to_run():
    assert sum(len(BLOCK.findall(guide.read_text())) for guide in GUIDES) >= 8


def test_the_demo_guide_lists_the_stages_and_tools_of_the_manifest():
    text = (ROOT / "docs" / "guides" / "demo.md").read_text()
    documents = list(yaml.safe_load_all((ROOT / "manifests" / "toolrljob-cpu.yaml").read_text()))
    stages = [stage["name"] for document in documents for stage in document["spec"].get("stages", [])]
    assert re.findall(r"^\| `([\w-]+)` \| ", text.partition("## The stages")[2], re.MULTILINE) == ["base", *stages]
    tools = [document["spec"]["tool"] for document in documents if document["kind"] == "VisionTool"]
    assert [tool for tool in tools if tool not in text] == []


def test_every_page_can_be_found_from_the_index():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES if (ROOT / "docs") in page.parents]
    assert [page for page in pages if page != "index.md" and f"]({page})" not in index] == []


def test_the_readme_has_one_place_for_the_table():
    text = (ROOT / "README.md").read_text()
    assert text.count("<!-- table -->") == text.count("<!-- /table -->") == 1

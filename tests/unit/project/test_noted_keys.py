"""What ThinkIMG notes in a trajectory's `meta` cannot be taken for a column of the question's row."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support import REPOSITORY
from thinkimg.evaluation.scoring import SCORED_BY
from thinkimg.synthesis.synthesize import DROPPED, FILTERED
from thinkimg.trajectory import NOTED
from thinkimg.trajectory.store import ITEM

NAMED = {"DROPPED": DROPPED, "FILTERED": FILTERED, "ITEM": ITEM, "SCORED_BY": SCORED_BY}


def written(source: Path) -> Iterator[str]:
    """Keys that a file writes into something's `.meta`."""
    for node in ast.walk(ast.parse(source.read_text())):
        keys: list[ast.expr | None] = []
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and of_meta(node.value):
            keys = [node.slice]
        elif isinstance(node, ast.AugAssign) and of_meta(node.target) and isinstance(node.value, ast.Dict):
            keys = list(node.value.keys)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setdefault":
            keys = node.args[:1] if of_meta(node.func.value) else []
        for key in keys:
            if isinstance(key, ast.Constant):
                yield str(key.value)
            elif isinstance(key, ast.Name):
                yield NAMED[key.id]


def of_meta(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "meta"


def test_every_key_that_is_written_is_reserved() -> None:
    found = {key for file in (REPOSITORY / "thinkimg").rglob("*.py") for key in written(file)}
    assert {"malformed", "usage", "row", "item"} <= found, "the walk finds nothing any more"
    assert found - NOTED == set()

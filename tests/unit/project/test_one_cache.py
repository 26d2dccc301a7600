"""What is kept to save work is kept in a `BoundedCache`: no other cache grows without a bound of bytes beside it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = ("thinkimg", "operator", "hack", "bench")

ALLOWED = {
    ("thinkimg/cache.py", "OrderedDict"): "the one cache",
    ("thinkimg/cache.py", "move_to_end"): "the one cache",
    ("thinkimg/api/v1alpha1/trainer_args.py", "cache known_args"): "one file of the package",
    ("thinkimg/client/connections.py", "lru_cache _parse"): "at most 1024 short addresses",
    ("thinkimg/client/connections.py", "lru_cache _tls"): "one context",
    ("thinkimg/data/chart_drawing.py", "lru_cache _font"): "at most 64 fonts; six files in a few sizes",
    ("thinkimg/data/chart_drawing.py", "lru_cache _matplotlib_fonts"): "one path",
    (
        "thinkimg/evaluation/lmms/worker/questions.py",
        "dict self.scored",
    ): "the answers of one evaluation, in its process",
    ("thinkimg/evaluation/intervals.py", "lru_cache t_quantile"): "at most 1024 numbers",
    ("thinkimg/evaluation/openthinkimg_fuzzy.py", "cache _math_verify"): "two functions of one package",
    ("thinkimg/gateway/core.py", "lru_cache _spelling"): "at most 1024 names of at most 100 characters",
    ("thinkimg/models/families/chatml.py", "dict self._counts"): "a number per size of picture",
    ("thinkimg/tools/backends/rapidocr.py", "lru_cache _reader"): "at most 4 engines; each has a cache of its own",
    ("thinkimg/tools/registry.py", "cache _registered"): "the entry points of one environment",
    ("thinkimg/tools/vision/subplots.py", "cache title_of_span"): "lives as long as one call",
    ("thinkimg/viewer/index.py", "dict self._sources"): "a number per stage, model and mode of a run",
}
"""Place and kind of cache: why its bytes need no bound."""


def caches(tree: ast.AST) -> Iterator[str]:
    """The kinds of cache that a module has, each as `ALLOWED` names it."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="collections", names=names):
                yield from ("OrderedDict" for name in names if name.name == "OrderedDict")
            case ast.Attribute(attr="OrderedDict" | "move_to_end" as name):
                yield name
            case ast.ImportFrom(module="cachetools") | ast.Import(names=[ast.alias(name="cachetools")]):
                yield "cachetools"
            case ast.Call(func=ast.Attribute(attr="popitem")):
                yield "popitem"
            case ast.Call(func=ast.Name(id="next"), args=[ast.Call(func=ast.Name(id="iter"), args=[ast.Attribute()])]):
                yield "first key"
            case ast.FunctionDef(name=name, decorator_list=decorators):
                yield from (f"{kind} {name}" for decorator in decorators if (kind := _memo(decorator)))
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=made)) if kind := _memo(made):
                yield f"{kind} {name}"
            case ast.If(test=ast.Compare(ops=[ast.NotIn()], comparators=[ast.Attribute() as mapping]), body=body):
                yield from (f"dict {ast.unparse(mapping)}" for line in body if _fills(line, ast.unparse(mapping)))


def _memo(node: ast.expr) -> str | None:
    """`cache` or `lru_cache`, as a decorator or called with a function."""
    if isinstance(node, ast.Call):
        node = node.func
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name if name in ("cache", "lru_cache") else None


def _fills(line: ast.stmt, mapping: str) -> bool:
    targets = line.targets if isinstance(line, ast.Assign) else []
    return any(isinstance(target, ast.Subscript) and ast.unparse(target.value) == mapping for target in targets)


def found_in(root: Path) -> set[tuple[str, str]]:
    files = [path for folder in SOURCES for path in sorted((root / folder).rglob("*.py"))]
    return {
        (path.relative_to(root).as_posix(), kind)
        for path in files
        for kind in caches(ast.parse(path.read_text(encoding="utf-8")))
    }


def test_there_is_no_cache_beside_the_one() -> None:
    assert sorted(found_in(ROOT) - ALLOWED.keys()) == [], "use thinkimg.cache.BoundedCache"


def test_nothing_is_allowed_that_is_not_there() -> None:
    assert sorted(ALLOWED.keys() - found_in(ROOT)) == []


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("from collections import OrderedDict\nkept = OrderedDict()", "OrderedDict"),
        ("import collections\nkept: dict[str, bytes] = collections.OrderedDict()", "OrderedDict"),
        ("def get(self, key):\n    self._kept.move_to_end(key)", "move_to_end"),
        ("def shrink(self):\n    self._kept.popitem(last=False)", "popitem"),
        ("def shrink(self):\n    self._kept.pop(next(iter(self._kept)))", "first key"),
        ("from functools import cache\n@cache\ndef picture(path): ...", "cache picture"),
        ("import functools\n@functools.lru_cache(maxsize=None)\ndef picture(path): ...", "lru_cache picture"),
        ("from functools import lru_cache\npicture = lru_cache(maxsize=None)(load)", "lru_cache picture"),
        ("from cachetools import LRUCache", "cachetools"),
        ("def load(self, path):\n    if path not in self._kept:\n        self._kept[path] = open(path).read()\n",
         "dict self._kept"),
    ],
)  # fmt: skip
def test_a_planted_cache_is_found(tmp_path: Path, source: str, kind: str) -> None:
    (tmp_path / "thinkimg").mkdir()
    (tmp_path / "thinkimg" / "planted.py").write_text(source)
    assert found_in(tmp_path) == {("thinkimg/planted.py", kind)}

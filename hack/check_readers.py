"""Each thing has one reader: pictures, data sets, JSON lines, YAML, KEY=VALUE. This finds, on the syntax tree, whoever
reads one by other means, and says where to go instead. `make check` runs it; exit code 1 when there is something.

    python hack/check_readers.py [FOLDER]

What is allowed stands in `ALLOWED`, each with its reason; an allowance that nothing needs any more is an offence too.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCANNED = ("thinkimg", "operator")

REMEDIES = {
    "decoder": "pictures are decoded by thinkimg.image.Image (from_bytes, from_pillow, pixels)",
    "data set": "rows of data sets are read by thinkimg.data.rows.read_rows, pictures undecoded",
    "splitlines": "JSON lines end at line feeds only: thinkimg.jsonl; for other text, allow it here with the reason",
    "JSON line": "JSON lines are read and written by thinkimg.jsonl",
    "YAML": "YAML is read as manifests are: thinkimg.api.read_yaml, read_value",
    "KEY=VALUE": "KEY=VALUE is read by thinkimg.pairs.read_pairs",
}

ALLOWED: dict[str, dict[str, str]] = {
    "decoder": {
        "thinkimg/image.py": "it is the decoder",
        "thinkimg/evaluation/lmms/worker/questions.py": "pictures as lmms-eval has loaded them; knows no ThinkIMG",
    },
    "data set": {"thinkimg/data/rows.py": "it is the reader of rows"},
    "splitlines": {
        "thinkimg/jobs/runner/processes.py": "the tail of a log, to be shown",
        "thinkimg/serving/supervisor.py": "the tail of a log, to be shown",
        "thinkimg/tools/backends/neural/weights.py": "the first line of an exception",
        "thinkimg/tools/tool.py": "a docstring",
    },
    "JSON line": {
        "thinkimg/viewer/index.py": "keeps byte offsets of lines, in files opened as bytes; parses 100,000 lines fast",
        "thinkimg/jsonl.py": "it is the reader and writer of JSON lines",
        "thinkimg/api/pod_contract.py": "a pod's termination message of one line; thinkimg.api stands alone",
        "thinkimg/training/checkpoints.py": "a document, not a file of lines",
        "thinkimg/evaluation/lmms/process.py": "lines of a pipe",
        "thinkimg/evaluation/lmms/worker/__main__.py": "lines of a pipe; runs in an environment without ThinkIMG",
        "thinkimg/evaluation/lmms/worker/judges.py": "runs in an environment without ThinkIMG",
        "operator/thinkimg_operator/reading.py": "lines of a watch's stream, from the API server; knows no runtime",
    },
    "YAML": {
        "thinkimg/tools/backends/paddleocr.py": "a file of PaddleOCR's models, which it reads with PyYAML itself",
    },
    "KEY=VALUE": {
        "thinkimg/pairs.py": "it is the reader of KEY=VALUE",
        "thinkimg/evaluation/metrics.py": "the result behind the last `=` of an answer's sum",
        "thinkimg/openthinkimg/train_flags.py": "`--flag=value` of a command line of the original, not KEY=VALUE",
        "thinkimg/tools/markup.py": "attributes of a model's markup",
        "operator/thinkimg_operator/settings.py": "labels of Kubernetes, which are texts; it knows thinkimg.api only",
    },
}

_DECODERS = {"imread", "imdecode", "imreadmulti", "imdecodemulti", "decode_image", "decode_jpeg", "decode_png"}
_TRANSFORMERS = {"load_image", "load_images", "fetch_images", "fetch_image"}
_DATA_SETS = {"load_dataset", "load_from_disk", "load_dataset_builder", "from_parquet", "from_json", "from_generator"}
_LOADERS = {"load", "load_all", "safe_load", "safe_load_all", "full_load", "full_load_all", "unsafe_load"}
_TRIMMED = {"strip", "rstrip", "lstrip", "decode", "encode", "removeprefix", "removesuffix"}
_PARSERS = {"loads", "from_json", "model_validate_json", "raw_decode"}


@dataclass(frozen=True)
class Offence:
    rule: str
    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {REMEDIES[self.rule]}"


def offences(source: str, path: str) -> list[Offence]:
    """What a file does that another module is there for, whether it is allowed or not."""
    file = _File(ast.parse(source))
    return [Offence(rule, path, node.lineno) for rule, node in file.offences()]


class _File:
    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.modules: dict[str, str] = {}
        """Local name -> what it was imported as, dotted."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for name in node.names:
                    self.modules[name.asname or name.name.partition(".")[0]] = (
                        name.name if name.asname else (name.name.partition(".")[0])
                    )
            elif isinstance(node, ast.ImportFrom):
                for name in node.names:
                    self.modules[name.asname or name.name] = f"{node.module}.{name.name}"
        self.looped = {name.id for target in _targets(tree) for name in ast.walk(target) if isinstance(name, ast.Name)}

    def offences(self) -> Iterator[tuple[str, ast.expr]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                if rule := self._rule(node, self._called(node.func)):
                    yield rule, node
            elif isinstance(node, ast.BinOp) and self._ends_line(node):
                yield "JSON line", node

    def _called(self, function: ast.expr) -> str:
        """Dotted, by what was imported: `PIL.Image.open`; of a method of something else `?.splitlines`."""
        if isinstance(function, ast.Name):
            return self.modules.get(function.id, function.id)
        if isinstance(function, ast.Attribute):
            inner = self._called(function.value) if isinstance(function.value, ast.Name | ast.Attribute) else "?"
            return f"{inner}.{function.attr}"
        return "?"

    def _rule(self, call: ast.Call, name: str) -> str | None:
        module, _, last = name.rpartition(".")
        first = call.args[0] if call.args else next((one.value for one in call.keywords if one.arg == "mode"), None)
        if name in ("PIL.Image.open", "PIL.ImageFile.Parser") or last in _DECODERS | _TRANSFORMERS:
            return "decoder"
        if last == "convert" and isinstance(first, ast.Constant) and first.value == "RGB":
            return "decoder"
        if module.startswith("datasets") and (last in _DATA_SETS or last == "Image"):
            return "data set"
        if last in ("load_dataset", "load_from_disk") or name.startswith("pyarrow.parquet"):
            return "data set"
        if last == "splitlines":
            return "splitlines"
        if last in _PARSERS and first is not None and self._is_line(first):
            return "JSON line"
        if module == "yaml" and last in _LOADERS:
            return "YAML"
        if last in ("partition", "rpartition", "split") and isinstance(first, ast.Constant) and first.value == "=":
            return "KEY=VALUE"
        return None

    def _is_line(self, value: ast.expr) -> bool:
        """Whether it is what a loop goes through, or is called a line: `line`, `lines[-1]`, `raw.strip()`."""
        while True:
            if isinstance(value, ast.Subscript):
                value = value.value
            elif isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in _TRIMMED:
                value = value.func.value
            else:
                break
        if isinstance(value, ast.Attribute):
            return value.attr in ("line", "raw")
        return isinstance(value, ast.Name) and (value.id in self.looped or value.id in ("line", "lines", "raw"))

    def _ends_line(self, node: ast.BinOp) -> bool:
        """`json.dumps(value) + "\\n"` without an indent."""
        if not isinstance(node.left, ast.Call) or not isinstance(node.right, ast.Constant):
            return False
        last = self._called(node.left.func).rpartition(".")[2]
        whole = any(keyword.arg == "indent" for keyword in node.left.keywords)
        return last in ("dumps", "model_dump_json") and node.right.value in ("\n", b"\n") and not whole


def _targets(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            yield node.target


def check(root: Path) -> list[str]:
    """What is wrong below `root`, a line each."""
    said: list[str] = []
    used: set[tuple[str, str]] = set()
    for folder in SCANNED:
        for file in sorted((root / folder).rglob("*.py")):
            path = file.relative_to(root).as_posix()
            for offence in offences(file.read_text(encoding="utf-8"), path):
                if path in ALLOWED[offence.rule]:
                    used.add((offence.rule, path))
                else:
                    said.append(str(offence))
    for rule, paths in ALLOWED.items():
        said += [
            f"{path}: {rule}: it is allowed here, and nothing needs it" for path in paths if (rule, path) not in used
        ]
    return said


if __name__ == "__main__":
    found = check(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
    print("\n".join(found))
    sys.exit(1 if found else 0)

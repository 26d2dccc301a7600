"""Questions about pictures from wherever a URI points: synthetic charts, a JSONL file, the Hugging Face hub.

    charts://?questions=1200&difficulty=1       made on the spot, the split and the seed decide which
    path/to/test.jsonl                          a file with one question per line, pictures beside it
    path/to/rl.json?question=query              a JSON list of the same; here, too, columns may have other names
    hf://owner/name?config=main&limit=500       downloaded by the `datasets` library

Every problem with a URI or a file is a ValueError that says where it is and what would be right.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from PIL import Image

from thinkimg.data.chart import Chart, Split
from thinkimg.data.chart_drawing import draw_chart
from thinkimg.data.charts import Question, make_questions

IMAGE_FIELDS = ("image_path", "image")
ANSWER_FIELDS = ("solution", "label", "answer")


@dataclass(frozen=True)
class Example:
    """One question about one picture. Examples about the same picture share one bytes object."""

    id: str
    question: str
    answer: str
    image: bytes = field(repr=False)  # an encoded picture; PNG where we made it
    kind: str
    meta: dict[str, Any]  # what is known beyond the question; evaluation groups by it, models never see it


def load_questions(uri: str, split: str, seed: int) -> list[Example]:
    """All examples behind a URI. `split` chooses within charts:// and hf://; a JSONL file is one split already.

    `seed` decides which charts are made; the order of a file or a hub data set is kept.
    """
    if uri.startswith("charts://"):
        return _load_charts(uri, split, seed)
    if uri.startswith("hf://"):
        return _load_hub(uri, split)
    if "://" in uri:
        raise ValueError(f"cannot load questions from {uri!r}: use charts://, hf:// or the path of a .jsonl file")
    return _load_file(uri)


def export_jsonl(examples: Iterable[Example], folder: str | Path) -> Path:
    """Write `questions.jsonl` and each picture once under `images/`; `load_questions` reads the file back."""
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for example in examples:
        name = f"images/{hashlib.sha256(example.image).hexdigest()[:16]}{_suffix(example.image)}"
        if not (folder / name).exists():
            (folder / name).write_bytes(example.image)
        lines.append(_line_of(example, name))
    path = folder / "questions.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _line_of(example: Example, image_path: str) -> str:
    record = {
        "id": example.id,
        "image_path": image_path,
        "question": example.question,
        "answer": example.answer,
        "kind": example.kind,
        "meta": example.meta,
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


def _suffix(image: bytes) -> str:
    return ".png" if image.startswith(b"\x89PNG") else ".jpg" if image.startswith(b"\xff\xd8") else ".img"


def parse_query(uri: str, fields: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """The query of a URI, strictly: every key known, given once, and of the right type."""
    parsed: dict[str, Any] = {}
    for key, text in parse_qsl(urlsplit(uri).query, keep_blank_values=True):
        if key not in fields:
            raise ValueError(f"{uri}: unknown parameter {key!r}; allowed are {', '.join(sorted(fields))}")
        if key in parsed:
            raise ValueError(f"{uri}: parameter {key!r} is given twice")
        try:
            parsed[key] = fields[key](text)
        except ValueError as error:
            raise ValueError(f"{uri}: parameter {key!r}: {error}") from None
    return parsed


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f"a whole number of at least 1 is needed, not {text!r}")
    return int(text)


def _text(text: str) -> str:
    if not text:
        raise ValueError("a value is needed")
    return text


def _load_charts(uri: str, split: str, seed: int) -> list[Example]:
    parts = urlsplit(uri)
    if parts.netloc or parts.path.strip("/"):
        raise ValueError(f"{uri}: charts are made, not found: nothing may stand between charts:// and the ?")
    wanted = {"questions": 1200, "difficulty": 1, "per_chart": 3}
    wanted |= parse_query(uri, dict.fromkeys(wanted, _positive))
    try:
        questions = make_questions(
            cast(Split, split), wanted["questions"], seed, wanted["difficulty"], per_chart=wanted["per_chart"]
        )
    except ValueError as error:
        raise ValueError(f"{uri}: {error}") from None
    images: dict[str, bytes] = {}
    return [_example_of(question, images) for question in questions]


def _example_of(question: Question, images: dict[str, bytes]) -> Example:
    chart = question.chart
    if chart.digest not in images:
        images[chart.digest] = _png(draw_chart(chart).image)
    meta = {
        "chart": chart.digest,
        "chart_kinds": [panel.kind for panel in chart.panels],
        "panel": question.panel,
        "label": question.label,
        "record": _record(chart),
    }
    return Example(question.id, question.text, question.answer, images[chart.digest], question.kind, meta)


def _record(chart: Chart) -> list[dict[str, Any]]:
    return [
        {
            "kind": panel.kind,
            "title": panel.title,
            "box": list(panel.box),
            "items": [[item.label, item.value, item.color] for item in panel.items],
        }
        for panel in chart.panels
    ]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _load_file(uri: str) -> list[Example]:
    """Read a whole file; all bad records are reported together, with their numbers."""
    names = parse_query(uri, {"question": _text, "answer": _text, "image": _text})
    path = Path(uri.partition("?")[0])
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read questions from {path}: {error}") from None
    examples, problems = [], []
    images: dict[Path, bytes] = {}
    for place, number, record in _records(path, text):
        try:
            if isinstance(record, ValueError):
                raise record
            examples.append(_example_of_record(record, f"{path.stem}-{number}", path.parent, images, names))
        except ValueError as error:
            problems.append(f"{place} {number}: {error}")
    if problems:
        raise ValueError(
            f"{path}: {len(problems)} bad {'records' if path.suffix == '.json' else 'lines'}\n" + "\n".join(problems)
        )
    if not examples:
        raise ValueError(f"{path}: no questions in it")
    return examples


def _records(path: Path, text: str) -> Iterator[tuple[str, int, Any]]:
    """Place, number and value of each record of a JSON list or of JSON lines; a line that is no JSON is an error."""
    if text.lstrip().startswith("["):
        try:
            yield from (("record", number, record) for number, record in enumerate(json.loads(text), 1))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON: {error}") from None
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield "line", number, json.loads(line)
            except json.JSONDecodeError as error:
                yield "line", number, ValueError(f"not JSON: {error}")


def _example_of_record(
    record: Any, name: str, folder: Path, images: dict[Path, bytes], names: Mapping[str, str]
) -> Example:
    if not isinstance(record, dict):
        raise ValueError("a JSON object is needed")
    question = _first(record, (names.get("question", "question"),))
    answer = _first(record, (names["answer"],) if "answer" in names else ANSWER_FIELDS)
    file = folder / str(_first(record, (names["image"],) if "image" in names else IMAGE_FIELDS))
    if file not in images:
        images[file] = _read_picture(file)
    meta = record.get("meta", {})
    if not isinstance(meta, dict):
        raise ValueError("meta must be an object")
    kind = str(record.get("kind", ""))
    return Example(str(record.get("id", name)), str(question), _untagged(str(answer)), images[file], kind, meta)


def _untagged(answer: str) -> str:
    """What stands between answer tags, as OpenThinkIMG's RL data has them."""
    found = re.search(r"<answer>(.*?)</answer>", answer, re.DOTALL)
    return found.group(1).strip() if found else answer


def _first(record: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if record.get(name) not in (None, ""):
            value = record[name]
            if not isinstance(value, str | int | float):
                raise ValueError(f"{name} must be a text or a number")
            return value
    raise ValueError(f"no {' or '.join(names)}")


def _read_picture(file: Path) -> bytes:
    try:
        content = file.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.verify()
    except Exception as error:  # Pillow raises half a dozen types for broken files
        raise ValueError(f"cannot read the picture {file}: {error}") from None
    return content


def _load_hub(uri: str, split: str) -> list[Example]:
    """A data set with columns for image, question and answer, found under the names that JSONL files use, or given."""
    fields = {
        "config": _text,
        "revision": _text,
        "limit": _positive,
        "image": _text,
        "question": _text,
        "answer": _text,
    }
    options = parse_query(uri, fields)
    parts = urlsplit(uri)
    name = (parts.netloc + parts.path).strip("/")
    if not name:
        raise ValueError(f"{uri}: hf:// needs the name of a data set, as in hf://owner/name")
    try:
        import datasets
    except ImportError:
        raise ValueError(f"{uri}: hf:// needs the datasets library: install thinkimg[train]") from None
    table = datasets.load_dataset(name, options.get("config"), split=split, revision=options.get("revision"))
    if "limit" in options:
        table = table.select(range(min(options["limit"], len(table))))
    columns = {
        "image": _column(uri, table.column_names, options.get("image"), IMAGE_FIELDS),
        "question": _column(uri, table.column_names, options.get("question"), ("question", "query", "problem")),
        "answer": _column(uri, table.column_names, options.get("answer"), ANSWER_FIELDS),
    }
    return [_example_of_row(row, columns, f"{name}-{split}-{index}") for index, row in enumerate(table)]


def _column(uri: str, present: list[str], given: str | None, usual: tuple[str, ...]) -> str:
    for name in (given,) if given else usual:
        if name in present:
            return name
    looked_for = given or " or ".join(usual)
    raise ValueError(f"{uri}: no column {looked_for}; the data set has {', '.join(present)}")


def _example_of_row(row: Mapping[str, Any], columns: Mapping[str, str], name: str) -> Example:
    image, answer = row[columns["image"]], row[columns["answer"]]
    content = image if isinstance(image, bytes) else _png(image.convert("RGB"))
    if isinstance(answer, list):  # some data sets list several right answers; the first is the canonical one
        answer = answer[0]
    return Example(name, str(row[columns["question"]]), str(answer), content, str(row.get("kind", "")), {})

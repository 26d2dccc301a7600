"""Data sets: every kind of URI loads, what is exported loads again, and mistakes are named where they are."""

import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from thinkimg.data.datasets import export_jsonl, load_questions


def png(color: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder: Path, *lines: object) -> str:
    (folder / "red.png").write_bytes(png())
    path = folder / "questions.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


def test_charts_load_with_pictures_shared_between_their_questions() -> None:
    examples = load_questions("charts://?questions=60&difficulty=2", "validation", 7)
    assert len(examples) == 60
    by_chart: dict[str, set[int]] = {}
    for example in examples:
        by_chart.setdefault(example.meta["chart"], set()).add(id(example.image))
        assert Image.open(io.BytesIO(example.image)).size == (256, 256)
    assert all(len(objects) == 1 for objects in by_chart.values())
    assert len(by_chart) < 30


def test_charts_are_the_same_for_the_same_seed() -> None:
    assert load_questions("charts://?questions=9", "test", 1) == load_questions("charts://?questions=9", "test", 1)


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("charts://?question=5", "unknown parameter 'question'; allowed are difficulty, per_chart, questions"),
        ("charts://?questions=many", "parameter 'questions': a whole number of at least 1"),
        ("charts://?questions=0", "parameter 'questions': a whole number of at least 1"),
        ("charts://?questions=", "parameter 'questions': a whole number of at least 1"),
        ("charts://?questions=5&questions=6", "given twice"),
        ("charts://?difficulty=9", r"difficulty must be one of \[1, 2, 3\]"),
        ("charts://bar?questions=5", "nothing may stand between"),
        ("s3://bucket/questions.jsonl", "use charts://, hf:// or the path"),
        ("/nowhere/questions.jsonl", "cannot read questions from /nowhere"),
        ("hf://", "needs the name of a data set"),
        ("hf://owner/name?rows=3", "unknown parameter 'rows'"),
    ],
)
def test_a_wrong_uri_is_refused_with_what_would_be_right(uri: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load_questions(uri, "train", 0)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="split must be one of"):
        load_questions("charts://?questions=3", "dev", 0)


def test_what_is_exported_loads_again(tmp_path: Path) -> None:
    examples = load_questions("charts://?questions=12", "test", 0)
    path = export_jsonl(examples, tmp_path / "set")
    assert load_questions(str(path), "test", 0) == examples
    assert len(list((tmp_path / "set" / "images").iterdir())) == len({example.image for example in examples})


@pytest.mark.parametrize("image", ["image_path", "image"])
@pytest.mark.parametrize("answer", ["solution", "label", "answer"])
def test_a_file_may_use_the_usual_names(tmp_path: Path, image: str, answer: str) -> None:
    path = write(
        tmp_path,
        {image: "red.png", "question": "How many?", answer: 3},
        "",
        {"image": "red.png", "question": "?", "answer": 0},
    )
    first, second = load_questions(path, "test", 0)
    assert (first.id, first.question, first.answer, first.image) == ("questions-1", "How many?", "3", png())
    assert second.answer == "0"
    assert second.image is first.image


def test_all_bad_lines_of_a_file_are_reported_with_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    good = {"image": "red.png", "question": "?", "answer": "1"}
    path = write(
        tmp_path,
        good,
        "{",
        "[1]",
        {**good, "image": "absent.png"},
        {**good, "image": "broken.png"},
        {**good, "question": ""},
        {"image": "red.png", "question": "?"},
        {**good, "answer": ["1"]},
        {**good, "meta": 1},
    )
    with pytest.raises(ValueError, match="8 bad lines") as caught:
        load_questions(path, "test", 0)
    lines = str(caught.value).splitlines()[1:]
    expected = [
        "not JSON",
        "object",
        "absent.png",
        "broken.png",
        "no question",
        "no solution or label or answer",
        "answer must be",
        "meta",
    ]
    for number, (line, fragment) in enumerate(zip(lines, expected, strict=True), 2):
        assert line.startswith(f"line {number}: ")
        assert fragment in line


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no questions"):
        load_questions(write(tmp_path, ""), "test", 0)


class HubTable(list[dict[str, Any]]):
    """As much of `datasets.Dataset` as is used."""

    @property
    def column_names(self) -> list[str]:
        return list(self[0])

    def select(self, indices: range) -> "HubTable":
        return HubTable(self[index] for index in indices)


def test_a_hub_data_set_loads_through_the_datasets_library(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def load_dataset(name: str, config: str | None, split: str, revision: str | None) -> HubTable:
        asked.append((name, config, split, revision))
        rows = [(Image.new("L", (4, 4)), "How many?", ["5", "five"]), (png(), "What?", "7"), (png(), "More?", "8")]
        return HubTable({"image": image, "query": query, "label": label} for image, query, label in rows)

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    first, second = load_questions("hf://owner/name?config=main&revision=v1&limit=2", "test", 0)
    assert asked == [("owner/name", "main", "test", "v1")]
    assert (first.id, first.question, first.answer) == ("owner/name-test-0", "How many?", "5")
    assert Image.open(io.BytesIO(first.image)).mode == "RGB"
    assert second.image == png()
    with pytest.raises(ValueError, match="no column caption; the data set has image, query, label"):
        load_questions("hf://owner/name?question=caption", "test", 0)

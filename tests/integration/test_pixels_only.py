"""Tools look at pixels and at nothing else: pictures that other programs encoded, without the generator's records, give
the same results."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.data.sets import write_questions
from thinkimg.api import Data, QuestionSet
from thinkimg.data.questions import load_questions
from thinkimg.image import Image
from thinkimg.jobs.stages.questions import load_tasks
from thinkimg.tools.registry import load_tool
from thinkimg.tools.tool import Tool
from thinkimg.trajectory import Task

QUESTIONS = load_questions("charts://?questions=12&difficulty=2&per_chart=2", "test", 4)


@pytest.fixture(scope="module")
def tools() -> dict[str, Tool]:
    loaded = {name: load_tool(name) for name in ("ZoominSubplot", "Point")}
    return loaded | {"OCR": load_tool("OCR", options={"text": "plain"})}


def encoded_anew(example: Task, format: str, **options: Any) -> Task:
    """The same question: other bytes, nothing known about the picture."""
    buffer = io.BytesIO()
    example.images[0].pixels().save(buffer, format, **options)
    return replace(example, images=(Image.from_bytes(buffer.getvalue()),), meta={"kind": ""})


def looked_at(tools: dict[str, Tool], example: Task, picture: bytes) -> list[Any]:
    """What the tools see in `picture` when asked what `example` is about."""
    images = {"img_1": Image.from_bytes(picture)}
    calls: list[tuple[str, dict[str, Any]]] = [("OCR", {})]
    if example.meta["panel"]:
        calls.append(("ZoominSubplot", {"description": example.meta["panel"]}))
    if example.meta["label"]:
        calls.append(("Point", {"description": example.meta["label"]}))
    results = [tools[name].run({"image": "img_1", **arguments}, images) for name, arguments in calls]
    return [(result.text, result.data, [image.sha256 for image in result.images]) for result in results]


def test_the_same_pixels_give_the_same_results(tools: dict[str, Tool], tmp_path: Path) -> None:
    file = write_questions((encoded_anew(example, "PNG", compress_level=9) for example in QUESTIONS), tmp_path)
    data = Data(train=QuestionSet(uri=file.name))
    stripped = load_tasks(data, "train", 0, tmp_path)
    called = 0
    for example, task in zip(QUESTIONS, stripped, strict=True):
        (picture,) = task.images
        assert picture.data != example.images[0].data
        assert not {"panel", "label"} & task.meta.keys(), "the drawing's record is not in the file"
        results = looked_at(tools, example, example.images[0].data)
        assert looked_at(tools, example, picture.data) == results
        called += len(results)
    assert called > len(QUESTIONS)


def test_a_lossy_encoding_changes_next_to_nothing_that_is_read(tools: dict[str, Tool]) -> None:
    same = total = 0
    for example in QUESTIONS[::2]:
        lossy = encoded_anew(example, "JPEG", quality=95)
        pictures = (example.images[0].data, lossy.images[0].data)
        sharp, blurred = (set(looked_at(tools, example, picture)[0][0].split()) for picture in pictures)
        same += len(sharp & blurred)
        total += len(sharp)
    assert same / total >= 0.97

"""Each benchmark from a small data set in the layout of the hub's."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image as Pillow

from thinkimg.errors import UserError
from thinkimg.evaluation.scorers import find_rule
from thinkimg.evaluation.tasks import TASKS, find_task
from thinkimg.image import Image


def picture(shade: int = 0, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (40, 30), (shade, 80, 80)).save(buffer, kind)
    return buffer.getvalue()


def on_the_hub(folder: Path, rows: list[dict[str, Any]], split: str, *pictures: str) -> str:
    """A folder as a hub repository is: Parquet below data/, splits in the card."""
    features = datasets.Features(
        {
            name: datasets.Image() if name in pictures else datasets.Dataset.from_list(rows).features[name]
            for name in rows[0]
        }
    )
    (folder / "data").mkdir(parents=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    card = f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: {split}\n    path: data/{split}-*\n---\n"
    (folder / "README.md").write_text(card)
    return str(folder)


def as_image(content: bytes) -> dict[str, Any]:
    return {"bytes": content, "path": None}


def test_chartqa_in_both_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [
        {"image": as_image(picture(1, "JPEG")), "query": "How high?", "label": ["14"], "human_or_machine": 0},
        {"image": as_image(picture(2)), "query": "Which?", "label": ["Yes"], "human_or_machine": 1},
    ]
    found = list(TASKS["chartqa"].tasks(on_the_hub(tmp_path / "m4", rows, "test", "image")))
    assert [task.reference for task in found] == ["14", "Yes"]
    assert [task.meta["kind"] for task in found] == ["human", "augmented"]
    assert found[0].images[0].data == picture(1, "JPEG")  # the file's own bytes, not decoded and encoded again
    rows = [{"image": as_image(picture()), "question": "How high?", "answer": "14", "type": "human_test"}]
    # The way of a data set on the hub, with the library's cache; a folder is read where it is.
    (other,) = TASKS["chartqa"].tasks(f"hf://{on_the_hub(tmp_path / 'lmms', rows, 'test', 'image')}")
    assert (other.meta["kind"], other.reference) == ("human", "14")


def test_charxiv_asks_four_descriptive_questions_and_a_reasoning_one(tmp_path: Path) -> None:
    common = {"image": as_image(picture()), "original_id": "2004.10956", "num_subplots": 6}
    questions = {f"descriptive_q{n}": template for n, template in zip((1, 2, 3, 4), (1, 13, 18, 8), strict=True)}
    said = ("A title", "a, b", "2 by 3", "Not Applicable")
    answers = {f"descriptive_a{n}": answer for n, answer in enumerate(said, start=1)}
    places = [(1, 2, None), (0, 0, None), (0, 0, "the subplot at the top")]
    reasons = [("Which?", "b", 1), ("How many?", "0.25", 4), ("How many?", "25", 4)]
    rows = [
        {**common, **questions, **answers, "subplot_row": row, "subplot_col": column, "subplot_loc": place,
         "reasoning_q": question, "reasoning_a": answer, "reasoning_a_type": kind}
        for (row, column, place), (question, answer, kind) in zip(places, reasons, strict=True)
    ]  # fmt: skip
    data = on_the_hub(tmp_path / "charxiv", rows, "validation", "image")
    found = list(TASKS["charxiv"].tasks(data))
    assert len(found) == 15
    first, legend, layout, spacing, reasoning = found[:5]
    assert first.question.startswith("For the subplot at row 1 and column 2, what is its title?\n* Your final answer")
    assert found[5].question.startswith("For the current plot, what is its title?")
    assert found[10].question.startswith("For the subplot at the top, what is its title?")
    assert layout.question.startswith("What is the layout of the subplots?")
    assert [task.meta["rubric"] for task in found[:5]] == ["title", "enum", "layout", "quant", "text"]
    assert [task.meta["kind"] for task in found[:5]] == [
        "information_extraction", "enumeration", "pattern_recognition", "enumeration", "text_in_chart"
    ]  # fmt: skip
    assert spacing.meta["applicable"] is False
    assert (found[9].meta["raw_question"], found[9].meta["answer_type"]) == ("How many?", 4)
    assert found[9].question.endswith("* Your final answer must be a number with 2 decimal places.")
    assert found[14].question.endswith("* Your final answer must be an exact integer.")
    assert len(list(TASKS["charxiv_descriptive"].tasks(data))) == 12
    assert len(list(TASKS["charxiv_reasoning"].tasks(data))) == 3
    assert {reasoning.id, legend.id} == {"2004.10956-r", "2004.10956-d2"}


def test_vstar_has_its_options_in_the_text(tmp_path: Path) -> None:
    text = "What is the color? (A) red (B) blue\nAnswer with the option's letter from the given choices directly."
    rows = [
        {"image": as_image(picture()), "text": text, "label": "B", "category": "direct_attributes", "question_id": "7"}
    ]
    (hub,) = TASKS["vstar"].tasks(on_the_hub(tmp_path / "lmms", rows, "test", "image"))
    assert hub.meta["options"] == {"A": "red", "B": "blue"}
    (tmp_path / "direct_attributes").mkdir()
    (tmp_path / "direct_attributes" / "sa_1.jpg").write_bytes(picture(0, "JPEG"))
    file = tmp_path / "test_questions.jsonl"  # the layout of the authors' own repository
    file.write_text(json.dumps({**rows[0], "image": "direct_attributes/sa_1.jpg"}) + "\n")
    (own,) = TASKS["vstar"].tasks(str(file))
    assert (own.question, own.reference, own.meta["kind"]) == (text, "B", "direct_attributes")
    assert own.images[0].media_type == "image/jpeg"


def test_hrbench_has_base64_pictures_and_columns_of_options(tmp_path: Path) -> None:
    row = {"index": 3, "question": "Where is it?", "A": "left", "B": "right", "C": "up", "D": "down", "answer": "B"}
    row |= {"category": "single", "cycle_category": "2", "image": base64.b64encode(picture(0, "JPEG")).decode()}
    (task,) = TASKS["hrbench"].tasks(on_the_hub(tmp_path / "hr", [row], "hrbench_4k"))
    assert task.question == "Where is it?\nA. left\nB. right\nC. up\nD. down\nAnswer the option letter directly."
    assert task.images[0].width == 40
    assert (task.meta["kind"], task.meta["cycle"], task.meta["options"]["D"]) == ("single", "2", "down")
    with pytest.raises(UserError, match="hrbench_8k"):
        list(TASKS["hrbench8k"].tasks(str(tmp_path / "hr")))


def test_chartgemma_and_reachqa_read_lists_of_objects(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    row = {"image_path": "a.png", "question": "<image>\nQuestion: Up or down?", "label": "<answer> up </answer>"}
    (tmp_path / "test.json").write_text(json.dumps([row]))
    (task,) = TASKS["chartgemma"].tasks(str(tmp_path / "test.json"))
    assert (task.question, task.reference) == ("Up or down?", "up")
    rows = [{"image": as_image(picture()), "question": "How many?", "answer": "3", "qa_type": "Reasoning"}]
    (other,) = TASKS["reachqa"].tasks(on_the_hub(tmp_path / "reach", rows, "test", "image"))
    assert other.meta["kind"] == "Reasoning"


def test_synthetic_charts_are_others_for_another_seed() -> None:
    task = TASKS["charts"]
    first, again, other = (list(task.tasks("charts://?questions=6", seed=seed)) for seed in (0, 0, 1))
    assert [one.id for one in first] == [one.id for one in again]
    assert {one.id for one in first}.isdisjoint(one.id for one in other)
    assert all(isinstance(one.images[0], Image) for one in first)


def test_every_built_in_task_names_a_scorer_that_there_is() -> None:
    assert all(find_rule(task.scorer) for task in TASKS.values())
    assert all(name == task.name for name, task in TASKS.items())


def test_questions_are_read_as_they_are_needed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    good = json.dumps({"image": "a.png", "question": "?", "answer": "1"})
    (tmp_path / "q.jsonl").write_text(f"{good}\n{good}\nnot JSON\n")
    tasks = TASKS["reachqa"].tasks(str(tmp_path / "q.jsonl"))
    assert [next(tasks).id, next(tasks).id] == ["0", "1"]
    with pytest.raises(UserError, match="line 3: not JSON"):
        next(tasks)
    assert len(list(TASKS["reachqa"].tasks(str(tmp_path / "q.jsonl"), limit=2))) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?", "answer": "1"}, "no image or image_path or images; there are question, answer"),
        ({"question": "?", "answer": "1", "image": "gone.png"}, "line 1, column image: there is no picture 'gone.png'"),
        ({"question": "?", "answer": "1", "image": "q.jsonl"}, "line 1, column image: .*not a readable image"),
        ({"question": "?", "image": "a.png"}, "no answer or label or solution"),
        ([1], "a JSON object is needed"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path: Path, row: Any, message: str) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "q.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=message):
        list(TASKS["reachqa"].tasks(str(tmp_path / "q.jsonl")))


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no data at"):
        list(TASKS["chartqa"].tasks("somewhere"))
    with pytest.raises(UserError, match="unknown parameter 'confg'"):
        list(TASKS["chartqa"].tasks("hf://a/b?confg=x"))
    with pytest.raises(UserError, match=r"chartqa, .* the path of a Python file, or lmms:NAME"):
        find_task("chartq")
    (tmp_path / "t.py").write_text("TASK = 1\n")
    with pytest.raises(UserError, match="TASK = EvaluationTask"):
        find_task(str(tmp_path / "t.py"))
    with pytest.raises(UserError, match="no such file"):
        find_task(str(tmp_path / "u.py"))


def test_all_bad_rows_of_a_benchmark_are_named_at_the_first_one(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    good = {"image": "a.png", "question": "?", "answer": "1"}
    rows = [good, {**good, "answer": None}, good, {**good, "image": "gone.png"}, {**good, "question": ""}, good]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tasks = TASKS["reachqa"].tasks(str(tmp_path / "q.jsonl"))
    assert next(tasks).reference == "1"
    with pytest.raises(UserError, match="3 bad lines") as refused:
        next(tasks)
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()[1:]] == [
        "line 2, column answer",
        "line 4, column image",
        "line 5, column question",
    ]
    assert len(list(TASKS["reachqa"].tasks(str(tmp_path / "q.jsonl"), limit=1))) == 1


def test_null_answers_of_a_benchmark_of_ours_are_bad_rows_too(tmp_path: Path) -> None:
    row = {"index": 3, "question": "?", "A": "left", "B": "right", "answer": None, "category": "single"}
    rows = [{**row, "image": base64.b64encode(picture()).decode()}] * 2
    (tmp_path / "q.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match=r"2 bad records\nrecord 1, column answer: it is empty\nrecord 2"):
        list(TASKS["hrbench"].tasks(str(tmp_path / "q.json")))


def test_several_pictures_of_a_question_are_all_shown(tmp_path: Path) -> None:
    rows = [{"image": [as_image(picture(1)), as_image(picture(2))], "question": "?", "answer": "1"}]
    features = datasets.Features(
        {
            "image": datasets.List(datasets.Image()),
            "question": datasets.Value("string"),
            "answer": datasets.Value("string"),
        }
    )
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "q.parquet")
    (task,) = TASKS["reachqa"].tasks(str(tmp_path / "q.parquet"))
    assert [image.data for image in task.images] == [picture(1), picture(2)]

"""Data sets: every kind of URI loads, what is exported loads again, and mistakes are named where they are."""

import base64
import datetime
import io
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from tests.support.data.sets import as_struct, on_the_hub, table, write_questions
from thinkimg.data.questions import load_questions
from thinkimg.data.row import Row
from thinkimg.data.rows import read_rows


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library takes two folders of one name for the same data set."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


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
    uri = "charts://?questions=60&difficulty=2"
    rows, tasks = list(read_rows(uri, "validation", 7)), load_questions(uri, "validation", 7)
    assert len(rows) == len(tasks) == 60
    by_chart: dict[str, set[int]] = {}
    for row, task in zip(rows, tasks, strict=True):
        assert isinstance(row, Row)
        by_chart.setdefault(row["meta"]["chart"], set()).add(id(task.images[0]))
        assert Image.open(io.BytesIO(task.images[0].data)).size == (256, 256)
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
        ("s3://bucket/questions.jsonl", "there is no data at .*use charts://, hf://owner/name, a folder, or the path"),
        ("/nowhere/questions.jsonl", "cannot read questions from /nowhere"),
        ("hf://", "needs the name of a data set"),
        ("hf://owner/name?rows=3", "unknown parameter 'rows'"),
    ],
)
def test_a_wrong_uri_is_refused_with_what_would_be_right(uri: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load_questions(uri, "train", 0)


def test_a_folder_of_the_same_name_is_not_taken_for_the_hubs_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The datasets library takes the folder: huggingface/datasets#5228."""
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="would take the folder owner/name for the hub's data set"):
        load_questions("hf://owner/name", "train", 0)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="split must be one of"):
        load_questions("charts://?questions=3", "dev", 0)


def test_what_is_exported_loads_again(tmp_path: Path) -> None:
    examples = load_questions("charts://?questions=12", "test", 0)
    path = write_questions(examples, tmp_path / "set")
    assert load_questions(str(path), "test", 0) == examples
    assert len(list((tmp_path / "set" / "images").iterdir())) == len({example.images for example in examples})


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
    assert (first.id, first.question, first.reference) == ("questions-1", "How many?", "3")
    assert first.images[0].data == png()
    assert second.reference == "0"
    assert second.images[0] is first.images[0]


def test_all_bad_lines_of_a_file_are_reported_with_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    Image.new("RGB", (2010, 10)).save(tmp_path / "strip.png")
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
        {**good, "answer": {"value": "1"}},
        {**good, "meta": 1},
        {**good, "answer": None},
        {**good, "answer": float("nan")},
        {**good, "answer": []},
        {**good, "answer": ["1", None]},
        {**good, "answer": "\ud83d"},
        {**good, "question": ["a", "b"]},
        {**good, "image": None},
        {**good, "image": ["red.png", None]},
        {**good, "image": "https://example.org/a.png"},
        {**good, "image": "strip.png"},
        {**good, "question": "Is <image> larger than <image>?"},
    )
    with pytest.raises(ValueError, match="19 bad lines") as caught:
        load_questions(path, "test", 0)
    expected = [
        ": not JSON",
        ": a JSON object is needed",
        ", column image: there is no picture 'absent.png'",
        ", column image: cannot read the picture",
        ", column question: it is empty",
        ": no answer or label or solution; there are image, question",
        ", column answer: it must be a text or a number",
        ", column meta: meta must be an object",
        ", column answer: it is empty",
        ", column answer: nan is no answer",
        ", column answer: it is empty",
        ", column answer: it must be a text or a number",
        ", column answer: it holds half of a surrogate pair",
        ", column question: a question is one text",
        ", column image: it is empty",
        ", column image: picture 2: there is no picture",
        ", column image: pictures are not downloaded",
        ": picture 1 is too thin to be shown to a model: 2010x10 pixels",
        ": the question has 2 times <image>, and there are 1 pictures",
    ]
    lines = str(caught.value).splitlines()[1:]
    for number, (line, fragment) in enumerate(zip(lines, expected, strict=True), 2):
        assert line.startswith(f"line {number}{fragment}")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no questions"):
        load_questions(write(tmp_path, ""), "test", 0)


def test_only_so_many_bad_rows_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="30 bad lines") as caught:
        load_questions(write(tmp_path, *["{"] * 30), "test", 0)
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-1]) == (22, "and 10 more")


ROWS = [
    {"image": as_struct(png("red")), "query": "How many?", "label": ["5", "five"]},
    {"image": as_struct(png("blue")), "query": "What?", "label": ["7"]},
    {"image": as_struct(png("blue")), "query": "More?", "label": ["8"]},
]


def sources(folder: Path, rows: list[dict[str, Any]], *pictures: str) -> list[str]:
    """The same rows as a data set of the hub, a folder, and a Parquet file."""
    laid_out = on_the_hub(folder / f"{folder.name}-set", rows, "test", *pictures)
    table(rows, *pictures).to_parquet(folder / "rows.parquet")
    return [f"hf://{laid_out}", laid_out, str(folder / "rows.parquet")]


def test_a_hub_data_set_a_folder_and_a_parquet_file_load_alike(tmp_path: Path) -> None:
    for source in sources(tmp_path, ROWS, "image"):
        first, second = load_questions(f"{source}?limit=2", "test", 0)
        assert (first.question, first.reference, second.reference) == ("How many?", "5", "7")
        assert [task.images[0].data for task in (first, second)] == [png("red"), png("blue")]
        assert first.id.endswith("-0")
        _, third, fourth = load_questions(source, "test", 0)
        assert third.images[0] is fourth.images[0]


def test_options_mean_the_same_of_every_source(tmp_path: Path) -> None:
    rows = [{"a": as_struct(png()), "b": "Question?", "c": 3, "question": "no", "answer": "no", "image": "no"}]
    (tmp_path / "red.png").write_bytes(png())
    line = json.dumps({**rows[0], "a": "red.png"})
    (tmp_path / "rows.jsonl").write_text(f"{line}\n{line}\n")
    tables = sources(tmp_path, rows * 2, "a")
    for source in (*tables, str(tmp_path / "rows.jsonl")):
        (task,) = load_questions(f"{source}?image=a&question=b&answer=c&limit=1", "test", 0)
        assert (task.question, task.reference, task.images[0].data) == ("Question?", "3", png())
        with pytest.raises(ValueError, match=r"no (column )?'?caption'?; (the data set has|there are) a, b, c"):
            load_questions(f"{source}?question=caption", "test", 0)
        with pytest.raises(ValueError, match="unknown parameter 'rows'"):
            load_questions(f"{source}?rows=3", "test", 0)
    with pytest.raises(ValueError, match="unknown parameter 'split'"):
        load_questions(f"{tmp_path / 'rows.jsonl'}?split=test", "test", 0)
    assert len(load_questions(f"{tables[0]}?split=test&image=a&answer=c", "train", 0)) == 2


@pytest.mark.parametrize("bad", [None, float("nan")])
def test_a_null_answer_of_a_table_is_a_bad_row(bad: float | None, tmp_path: Path) -> None:
    rows = [{"image": as_struct(png()), "question": "?", "answer": answer} for answer in (1.5, bad, 2.0, bad)]
    for source in sources(tmp_path, rows, "image"):
        with pytest.raises(ValueError, match="2 bad rows") as caught:
            load_questions(source, "test", 0)
        assert [line[:22] for line in str(caught.value).splitlines()[1:]] == [
            "row 1, column answer: ",
            "row 3, column answer: ",
        ]


def test_all_pictures_of_a_row_are_kept_in_order(tmp_path: Path) -> None:
    red, blue, lime = as_struct(png("red")), as_struct(png("blue")), as_struct(png("lime"))
    common = {"question": "?", "answer": "1"}
    layouts: list[tuple[dict[str, Any], tuple[str, ...], list[str]]] = [
        ({"images": [red, blue, red]}, ("images",), ["red", "blue", "red"]),
        ({"image": [blue, red]}, ("image",), ["blue", "red"]),
        ({"image": red, "images": [red, blue]}, ("image", "images"), ["red", "blue"]),
        ({"image": lime, "images": [red, blue]}, ("image", "images"), ["lime", "red", "blue"]),
        (
            {"image_10": red, "image_2": blue, "image_1": lime, "image_3": None},
            ("image_1", "image_2", "image_10"),
            ["lime", "blue", "red"],
        ),
        ({"image": red, "image_2": blue}, ("image", "image_2"), ["red", "blue"]),
    ]
    for number, (row, columns, colors) in enumerate(layouts):
        for source in sources(tmp_path / str(number), [{**row, **common}], *columns):
            (task,) = load_questions(source, "test", 0)
            assert [image.data for image in task.images] == [png(color) for color in colors], source


@pytest.mark.parametrize("kind", ["path", "absolute path", "base64", "data: URL", "struct", "list of structs"])
def test_a_picture_of_a_file_may_stand_in_many_ways(kind: str, tmp_path: Path) -> None:
    encoded = base64.b64encode(png("lime")).decode()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png("lime"))
    ways = {
        "path": "pictures/a.png",
        "absolute path": str(tmp_path / "pictures" / "a.png"),
        "base64": encoded,
        "data: URL": f"data:image/png;base64,{encoded}",
        "struct": {"bytes": None, "path": "pictures/a.png"},
        "list of structs": [{"path": "pictures/a.png"}],
    }
    (task,) = load_questions(write(tmp_path, {"image": ways[kind], "question": "?", "answer": True}), "test", 0)
    assert task.images[0].data == png("lime")
    assert task.reference == "True"


def test_a_path_in_a_hub_data_set_is_no_file_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    monkeypatch.chdir(tmp_path)
    laid_out = on_the_hub(tmp_path / "set", [{"image": "secret.png", "question": "?", "answer": "1"}], "test")
    with pytest.raises(ValueError, match=r"row 0, column image: there is no picture 'secret.png'"):
        load_questions(f"hf://{laid_out}", "test", 0)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0c", "\x1e", "\r"])
def test_a_question_with_a_line_separator_is_one_question(mark: str, tmp_path: Path) -> None:
    good = {"image": "red.png", "question": f"a{mark}b", "answer": f"c{mark}d"}
    path = write(tmp_path, json.dumps(good, ensure_ascii=False), good)
    tasks = load_questions(path, "test", 0)
    assert [(task.question, task.reference) for task in tasks] == [(good["question"], good["answer"])] * 2
    again = load_questions(str(write_questions(tasks, tmp_path / "again")), "test", 0)
    assert [(task.question, task.reference) for task in again] == [(good["question"], good["answer"])] * 2


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt"])
@pytest.mark.parametrize("form", ["list", "lines", "with a byte order mark", "CRLF"])
def test_what_stands_in_a_file_decides_not_its_name(name: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png())
    good = {"image": "red.png", "question": "?", "answer": "1"}
    lines = [json.dumps(good), json.dumps(good)]
    text = f"\n [{','.join(lines)}]" if form == "list" else ("\r\n" if form == "CRLF" else "\n").join(lines)
    (tmp_path / name).write_bytes((b"\xef\xbb\xbf" if "mark" in form else b"") + text.encode())
    assert [task.id for task in load_questions(str(tmp_path / name), "test", 0)] == ["a-1", "a-2"]


def test_names_that_are_given_twice_are_told_apart(tmp_path: Path) -> None:
    row = {"id": "q", "image": "red.png", "question": "?", "answer": "1"}
    path = write(tmp_path, row, row, {**row, "id": 0})
    assert [task.id for task in load_questions(path, "test", 0)] == ["q", "q#2", "0"]


def test_every_column_of_a_row_but_pictures_and_question_is_kept(tmp_path: Path) -> None:
    row = {
        "image": as_struct(png()),
        "mask": as_struct(png("blue")),
        "problem": "?",
        "label": ["5", "five"],
        "bbox": [1.0, 2, 3, 4],
        "when": datetime.date(2026, 1, 2),
        "row": 7,
        "meta": {"options": {"A": "red", "B": "blue"}, "bbox": "shadowed"},
        "nothing": None,
    }
    for source in sources(tmp_path, [row, row], "image", "mask"):
        task = load_questions(source, "test", 0)[0]
        assert task.reference == "5"
        kept = {name: value for name, value in task.meta.items() if name not in ("kind", "question_id")}
        assert kept == {
            "answer": ["5", "five"],
            "bbox": [1.0, 2, 3, 4],
            "when": "2026-01-02",
            "column_row": 7,
            "options": {"A": "red", "B": "blue"},
            "nothing": None,
        }
        json.dumps(task.meta, allow_nan=False)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{question}\n{options}", "Which?\nA. red\nB. blue"),
        ("{question} {{{level}}} {bbox}", "Which? {3} [1, 2, 3, 4]"),
    ],
)
def test_a_template_makes_the_words_of_a_question_of_its_row(template: str, words: str, tmp_path: Path) -> None:
    row = {"image": "red.png", "question": "Which?", "answer": "A", "level": 3, "bbox": [1, 2, 3, 4]}
    path = write(
        tmp_path,
        {**row, "options": ["red", "blue"]},
        {**row, "options": {"A": "red", "B": "blue"}},
        {**row, "options": ["(A) red", "(B) blue"]},
    )
    assert [task.question for task in load_questions(path, "test", template=template)] == [words] * 3


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{question} {hint}", r"2 bad lines\nline 1: the template names {hint}, and the row has .*\nline 2: "),
        ("{question", "the template cannot be read"),
        ("{question} {}", "without the name of a column"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(template: str, complaint: str, tmp_path: Path) -> None:
    row = {"image": "red.png", "question": "?", "answer": "1"}
    with pytest.raises(ValueError, match=complaint):
        load_questions(write(tmp_path, row, row), "test", template=template)

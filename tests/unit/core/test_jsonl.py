"""JSON lines end at line feeds only, whoever writes and whoever reads."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from thinkimg import jsonl
from thinkimg.training_log import read_log
from thinkimg.trajectory import Task, Trajectory, read_trajectories, write_trajectories
from thinkimg.trajectory.store import ITEM, Store
from thinkimg.viewer.page import embed_json
from thinkimg.viewer.sample import find_sources

BREAKS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r", "\r\n", "\n", "\ufeff"]
"""Where `str.splitlines` or a text file ends a line, and the byte order mark."""


@pytest.mark.parametrize("mark", BREAKS)
def test_what_is_written_is_read_again_and_other_programs_split_it_alike(mark: str, tmp_path: Path) -> None:
    values = [{"text": f"a{mark}b", mark: [mark]}, {"text": "c"}]
    jsonl.write(values, tmp_path / "a.jsonl")
    jsonl.append(values[0], tmp_path / "a.jsonl")
    assert list(jsonl.read(tmp_path / "a.jsonl")) == [*values, values[0]]
    text = (tmp_path / "a.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in text.splitlines()] == [*values, values[0]]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_lines_of_other_programs_may_hold_these_characters_as_they_are(mark: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"a{mark}b"}, ensure_ascii=False) + "\n" for _ in range(2)), "utf-8")
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4
    assert list(jsonl.read(path)) == [{"text": f"a{mark}b"}] * 2


def test_byte_order_mark_crlf_blank_lines_and_a_missing_end_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": NaN}\n{"a": 3}')
    assert [(line.number, line.whole) for line in jsonl.lines(path)] == [(1, True), (4, True), (5, False)]
    assert str(list(jsonl.read(path))) == "[{'a': 1}, {'a': nan}, {'a': 3}]"


def test_half_of_a_surrogate_pair_is_written_and_read(tmp_path: Path) -> None:
    jsonl.write(["a\ud83db \U0001f600"], tmp_path / "a.jsonl")
    assert list(jsonl.read(tmp_path / "a.jsonl")) == ["a\ud83db \U0001f600"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"1\n\n{\n", "line 3: not JSON"),
        (b"1\n\xff\n", "line 2: not JSON"),
        (b"[" * 100_000, "line 1: not JSON: nested"),
    ],
)
def test_a_bad_line_is_named(raw: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(raw)
    with pytest.raises(jsonl.BadLine, match=said):
        list(jsonl.read(tmp_path / "a.jsonl"))


def trajectory(text: str) -> Trajectory:
    return Trajectory(
        question=text, reference=text, answer=text, status="answered", correct=True, meta={"task": text, ITEM: ""}
    )


@pytest.mark.parametrize("mark", BREAKS)
def test_a_trajectory_with_such_a_character_is_kept_and_shown(mark: str, tmp_path: Path) -> None:
    written, path = trajectory(f"a{mark}b"), tmp_path / "stages" / "table" / "sft" / "greedy.jsonl"
    write_trajectories([written, written], path)
    assert [one.question for one in read_trajectories(path)] == [written.question] * 2
    (source,) = find_sources(tmp_path)
    assert [candidate.load().answer for candidate in source.candidates] == [written.answer] * 2
    assert source.total == 2


def test_the_page_shows_a_trajectory_that_another_version_wrote_with_such_a_character(tmp_path: Path) -> None:
    path = tmp_path / "stages" / "table" / "sft" / "greedy.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(trajectory("a\u2028b").model_dump_json() + "\n", encoding="utf-8")
    assert "\u2028" in path.read_text(encoding="utf-8")
    (source,) = find_sources(tmp_path)
    assert source.candidates[0].load().question == "a\u2028b"


def test_json_in_a_page_ends_neither_its_script_nor_a_line() -> None:
    value = {"text": "</script><script>alert(1)</script>\u2028\u2029<!--", "half": "\ud83d"}
    text = str(embed_json(value))
    assert text.isascii()
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value


@pytest.mark.parametrize("mark", BREAKS)
def test_a_store_is_opened_again_with_such_a_character(mark: str, tmp_path: Path) -> None:
    with Store(tmp_path / "s.jsonl") as store:
        store.append(trajectory(f"a{mark}b"))
        store.append(trajectory("other"))
    with Store(tmp_path / "s.jsonl") as store:
        assert len(store) == 2
        assert store.load(f"a{mark}b").answer == f"a{mark}b"
        assert store.answered(Task(f"a{mark}b", "?", ()))


def step(number: int, **others: Any) -> dict[str, Any]:
    return {"step": number, "seconds": float(number), "note": "a\u2028b", **others}


def test_after_a_resume_a_training_log_forgets_the_steps_that_are_done_again(tmp_path: Path) -> None:
    from thinkimg.training.sft import StepLog

    path = tmp_path / "log.jsonl"
    lines = [json.dumps(step(number), ensure_ascii=False) for number in (1, 2, 3)]
    path.write_text("\n".join(lines) + '\n{"step": 4, "sec', encoding="utf-8")
    StepLog(path, None).on_train_begin(None, SimpleNamespace(global_step=2, is_world_process_zero=True), None)
    assert list(jsonl.read(path)) == [step(1), step(2)]


def test_a_report_reads_the_log_of_a_stage(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("\n\n".join(json.dumps(step(number), ensure_ascii=False) for number in (1, 2, 2)), encoding="utf-8")
    assert [line.model_dump(exclude_unset=True) for line in read_log(path)] == [step(1), step(2)]


def test_numbers_that_are_not_finite_are_written_as_null(tmp_path: Path) -> None:
    """`NaN` is a word of Python's, not of JSON's: other readers refuse the whole file."""
    jsonl.append({"reward": float("nan"), "all": [1.0, float("inf"), {"x": float("-inf")}]}, tmp_path / "log")
    assert (tmp_path / "log").read_text() == '{"reward": null, "all": [1.0, null, {"x": null}]}\n'

"""The index of `thinkimg view`: what is read, how files may grow or change, and what the filters find."""

import json
import os
import threading
from pathlib import Path

import pytest

from tests.support.viewer.fabricated_run import trajectory, write_run
from thinkimg.errors import UserError
from thinkimg.trajectory import Trajectory, read_trajectories, write_trajectories
from thinkimg.viewer.discovery import find_runs, step_of
from thinkimg.viewer.index import Index, cache_path, text_of, total_reward
from thinkimg.viewer.page import embed_json
from thinkimg.viewer.queries import Queries, compact_json
from thinkimg.viewer.sample import find_sources
from thinkimg.viewer.selection import Selection
from thinkimg.viewer.serve import parse_select


@pytest.fixture(scope="module")
def everything(run) -> list[tuple[Path, Trajectory]]:
    return [
        (path, one) for file in find_runs([run])[0].files() for path in [file.path] for one in read_trajectories(path)
    ]


@pytest.fixture(scope="module")
def queries(run, tmp_path_factory):
    index = Index(find_runs([run]), tmp_path_factory.mktemp("index") / "i.sqlite")
    index.refresh()
    yield Queries(index)
    index.close()


def index_of(path: Path, *more: Path) -> Index:
    index = Index(find_runs([path, *more]), path.parent / "index.sqlite")
    index.refresh()
    return index


def keys(index: Index, **selection: str) -> list[str]:
    return [row["key"] for row in Queries(index).page(Selection.parse(selection), 0, 500)["rows"]]


def lines(count: int, start: int = 0) -> list[str]:
    import random

    chance = random.Random(start)
    return [trajectory("sft", f"q0-{n}", 0.5, chance).model_dump_json() + "\n" for n in range(start, start + count)]


# ---- what is read ---------------------------------------------------------------------------------------------------


def test_every_trajectory_of_a_run_is_in_the_index_once(queries, everything):
    assert queries.facets()["total"] == len(everything)
    assert len(set(keys(queries.index))) == min(500, len(everything))


def test_a_record_comes_back_as_it_was_written(queries, everything):
    for _, one in everything[::37]:
        row, record = queries.index.record(one.id)
        assert record == json.loads(one.model_dump_json())
        assert (row["question"], row["answer"], row["correct"]) == (one.question, one.answer, one.correct)


def test_places_say_stage_model_mode_and_step(queries):
    sources = {(one["stage"], one["model"], one["mode"]) for one in queries.facets()["sources"]}
    assert ("table", "v-toolrl", "greedy") in sources
    assert ("v-toolrl", "v-toolrl", "training") in sources
    assert ("cold-start", "cold-start", "examples") in sources
    assert queries.facets()["steps"] == [10, 20, 30, 40]


def test_steps_of_every_rank_are_training(tmp_path):
    assert step_of(Path("step-000040.jsonl")) == step_of(Path("step-000040.rank1.jsonl")) == 40
    assert step_of(Path("greedy.jsonl")) is None
    folder = tmp_path / "run" / "stages" / "rl" / "trajectories"
    for name in ("step-000001.jsonl", "step-000001.rank1.jsonl"):
        write_trajectories([Trajectory(question="?")], folder / name)
    assert [(source.mode, source.total) for source in find_sources(tmp_path / "run")] == [("training", 2)]


def test_any_file_of_trajectories_can_be_viewed_and_other_json_lines_are_left_alone(tmp_path):
    write_trajectories([Trajectory(question="a?")], tmp_path / "mine" / "answers.jsonl")
    (tmp_path / "mine" / "questions.jsonl").write_text('{"question": "?", "image": "a.png"}\n')
    for path in (tmp_path / "mine", tmp_path / "mine" / "answers.jsonl"):
        index = index_of(path)
        assert Queries(index).facets()["total"] == 1
        index.close()


def test_a_folder_of_runs_is_all_of_them(tmp_path):
    for name in ("one", "two"):
        write_trajectories([Trajectory(question="?")], tmp_path / "runs" / name / "stages" / "t" / "m" / "greedy.jsonl")
    assert [run.name for run in find_runs([tmp_path / "runs"])] == ["one", "two"]
    same = find_runs([tmp_path / "runs" / "one", tmp_path / "runs" / "one"])
    assert len(same) == 1


def test_runs_of_one_name_are_told_apart(tmp_path):
    for name in ("a/run", "b/run"):
        write_trajectories([Trajectory(question="?")], tmp_path / name / "x.jsonl")
    assert [run.name for run in find_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"])] == ["a/run", "b/run"]


def test_a_path_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="nowhere"):
        find_runs([Path("nowhere")])


def test_lines_that_are_no_trajectory_are_counted_and_named(tmp_path):
    good = lines(2)
    (tmp_path / "a.jsonl").write_text(good[0] + "{broken\n" + '{"turns": [], "question": 1}\n' + good[1])
    index = index_of(tmp_path / "a.jsonl")
    problems = Queries(index).problems()
    assert len(keys(index)) == 2
    assert problems["count"] == 2
    assert "a.jsonl, line 2" in problems["first"][0]
    index.close()


def test_one_record_in_two_files_has_two_keys(tmp_path):
    text = lines(1)[0]
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(text)
    index = index_of(tmp_path)
    first, second = keys(index)
    assert second == f"{first}~2"
    assert index.record(first)[1] == index.record(second)[1]
    index.close()


def test_the_reward_is_the_total_or_the_sum():
    assert total_reward({"accuracy": 1.0, "total": 0.4}) == 0.4
    assert total_reward({"normalised": 1.0, "official": 0.0}) == 1.0, "the score that decides"
    assert total_reward({}) is None
    assert total_reward({"total": float("nan"), "x": float("inf")}) is None


# ---- files that grow and change -------------------------------------------------------------------------------------


def test_only_what_is_new_is_read_again(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(lines(3)))
    index = index_of(path)
    before = keys(index)
    version = index.version
    with path.open("a") as file:
        file.write("".join(lines(2, start=3)))
    index.refresh()
    assert index.progress.total == sum(map(len, lines(2, start=3)))
    assert keys(index)[:3] == before
    assert len(keys(index)) == 5
    assert index.version != version
    index.refresh()
    assert index.progress.total == 0
    index.close()


def test_half_a_line_waits_for_its_end(tmp_path):
    path = tmp_path / "a.jsonl"
    one, two = lines(2)
    path.write_text(one + two[:200])
    index = index_of(path)
    assert len(keys(index)) == 1
    assert Queries(index).problems()["count"] == 0
    path.write_text(one + two)
    index.refresh()
    assert len(keys(index)) == 2
    index.close()


def test_a_last_line_without_an_end_counts_when_it_is_whole(tmp_path):
    path = tmp_path / "a.jsonl"
    one, two = lines(2)
    path.write_text(one.rstrip("\n"))
    index = index_of(path)
    assert len(keys(index)) == 1
    path.write_text(one + two)
    index.refresh()
    assert len(keys(index)) == 2
    assert Queries(index).problems()["count"] == 0
    index.close()


def test_a_replaced_file_is_read_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(lines(5)))
    index = index_of(path)
    (before, *_) = keys(index)
    assert keys(index, q=before) == [before]
    path.write_text("".join(lines(3, start=40)))
    os.utime(path, ns=(1, 1))
    index.refresh()
    found = keys(index)
    assert len(found) == 3
    assert all("q0-4" in key for key in found)
    assert index.record(found[0])[1]["id"] == found[0]
    assert keys(index, q=before) == []
    index.close()


def test_a_file_that_is_gone_leaves_the_list(tmp_path):
    for name, start in (("a.jsonl", 0), ("b.jsonl", 10)):
        (tmp_path / name).write_text("".join(lines(2, start)))
    index = index_of(tmp_path)
    (tmp_path / "a.jsonl").unlink()
    index.refresh()
    assert len(keys(index)) == 2
    index.close()


def test_a_record_whose_file_changed_is_an_error_of_the_user_not_a_crash(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(lines(2)))
    index = index_of(path)
    key = keys(index)[1]
    path.write_text("x\n")
    with pytest.raises(UserError, match=r"a\.jsonl.*reload"):
        index.record(key)
    index.close()


def test_an_index_is_kept_and_one_of_another_version_made_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(lines(3)))
    index_of(path).close()
    again = Index(find_runs([path]), path.parent / "index.sqlite")
    assert len(keys(again)) == 3
    again.rows("PRAGMA user_version = 999")
    again.close()
    other = Index(find_runs([path]), path.parent / "index.sqlite")
    assert keys(other) == []
    other.refresh()
    assert len(keys(other)) == 3
    other.close()


def test_two_viewers_of_one_run_share_an_index(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(lines(300)))
    indexes = [Index(find_runs([path]), tmp_path / "index.sqlite") for _ in range(2)]
    threads = [threading.Thread(target=index.refresh) for index in indexes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(keys(index)) for index in indexes] == [300, 300]
    for index in indexes:
        index.close()


def test_unused_indexes_are_deleted(tmp_path, run):
    old = tmp_path / "0123.sqlite"
    old.write_text("")
    os.utime(old, (1, 1))
    path = cache_path(find_runs([run]), tmp_path)
    assert not old.exists()
    assert path != cache_path(find_runs([run / "stages"]), tmp_path)


# ---- filters --------------------------------------------------------------------------------------------------------


def text(one: Trajectory) -> str:
    return text_of(json.loads(one.model_dump_json())).lower()


CASES = {
    "model": ({"model": "sft"}, lambda path, one: path.parent.name == "sft"),
    "stage and step": (
        {"stage": "v-toolrl", "step": "10-30"},
        lambda path, one: path.parts[-3] == "v-toolrl" and 10 <= one.meta["step"] <= 30,
    ),
    "one step": ({"step": "20"}, lambda path, one: one.meta.get("step") == 20),
    "mode": ({"mode": "sampled"}, lambda path, one: path.stem == "sampled"),
    "right": ({"outcome": "right"}, lambda path, one: one.correct is True),
    "not scored": ({"outcome": "open"}, lambda path, one: one.correct is None),
    "tool": ({"tool": "Point"}, lambda path, one: any(call.name == "Point" for call in one.tool_results)),
    "no tool": ({"tool": "-"}, lambda path, one: not one.tool_results),
    "any error": (
        {"error": "any"},
        lambda path, one: one.status == "infrastructure" or any(call.error for call in one.tool_results),
    ),
    "an error": ({"error": "bad_arguments"}, lambda path, one: any(call.error for call in one.tool_results)),
    "infrastructure": ({"error": "infrastructure"}, lambda path, one: one.status == "infrastructure"),
    "reward": ({"min": "0.5", "max": "1.2"}, lambda path, one: 0.5 <= one.rewards["total"] <= 1.2),
    "kind": ({"kind": "count"}, lambda path, one: one.meta["kind"] == "count"),
    "status": ({"status": "rounds"}, lambda path, one: one.status == "rounds"),
    "words": ({"q": "yak higher"}, lambda path, one: "yak" in text(one) and "higher" in text(one)),
    "begin of a word": ({"q": "ZOOM"}, lambda path, one: "zoom" in text(one)),
    "text and all else": (
        {"q": "value", "tool": "OCR", "outcome": "wrong", "model": "sft"},
        lambda path, one: (
            "value" in text(one)
            and any(call.name == "OCR" for call in one.tool_results)
            and one.correct is False
            and path.parent.name == "sft"
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_filter_finds_what_a_look_at_every_record_finds(queries, everything, case):
    selection, holds = CASES[case]
    expected = [one.id for path, one in everything if holds(path, one)]
    found = queries.rows_of(queries.matching(Selection.parse(selection)))
    assert [row["key"] for row in found] == expected
    assert 0 < len(expected) < len(everything)


@pytest.mark.parametrize("hostile", ['"', "'; DROP TABLE trajectories; --", "a* OR b", "-1", "NEAR(", "*", "日本"])
def test_a_search_is_words_and_nothing_else(queries, hostile):
    assert queries.page(Selection(q=hostile), 0, 10)["total"] >= 0
    assert queries.facets()["total"] > 0


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"step": "soon"}, "step"),
        ({"min": "much"}, "min"),
        ({"outcome": "maybe"}, "outcome"),
        ({"sort": "luck"}, "sort"),
        ({"modle": "sft"}, "modle"),
        ({"model": "sft", "turn": "3"}, "turn"),
    ],
)
def test_a_wrong_filter_is_named(values, field):
    with pytest.raises(UserError, match=f"^{field}: "):
        Selection.parse(values)


def test_a_misspelt_filter_does_not_choose_everything():
    with pytest.raises(UserError, match='Did you mean "mode'):
        parse_select("http://127.0.0.1:8750/#/trajectories?modle=sft")


def test_the_address_of_a_page_is_taken_whole():
    address = "http://127.0.0.1:8750/#/compare?model=sft&t=k&vs=l&turn=2&layers=boxes&tokens=1&a=x&b=y&only=left"
    assert parse_select(address) == Selection(model="sft")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_null_for_the_page(number):
    document = {"data": {"box": [number, 1.5], "text": "NaN"}}
    for text in (compact_json(document).decode(), str(embed_json(document))):
        assert json.loads(text, parse_constant=pytest.fail) == {"data": {"box": [None, 1.5], "text": "NaN"}}


@pytest.mark.parametrize("sort", ["reward", "-reward", "-calls", "seconds", "-tokens", "step"])
def test_orders_put_what_has_no_value_last(queries, sort):
    column = sort.removeprefix("-")
    found = [row[column] for row in queries.rows_of(queries.matching(Selection(sort=sort)))]
    known = [value for value in found if value is not None]
    assert found[: len(known)] == sorted(known, reverse=sort.startswith("-"))


def test_any_part_of_a_list_and_the_place_in_it(queries):
    selection = Selection(tool="OCR", sort="-reward")
    whole = queries.page(selection, 0, 500)["rows"]
    assert queries.page(selection, 7, 3)["rows"] == whole[7:10]
    assert queries.position(selection, whole[9]["key"]) == 9
    assert queries.position(Selection(tool="-"), whole[9]["key"]) is None
    assert queries.position(selection, "no such key") is None


# ---- pairs and curves -----------------------------------------------------------------------------------------------


def test_pairs_hold_the_same_question_about_the_same_picture(queries, everything):
    sides = [{"run": "run", "stage": "table", "model": model, "mode": "greedy"} for model in ("sft", "v-toolrl")]
    found = queries.pairs(*sides, "", 0, 500)
    firsts: list[dict[tuple[str, str], Trajectory]] = []
    for side in sides:
        answered: dict[tuple[str, str], Trajectory] = {}
        for path, one in everything:
            if path.parent.name == side["model"] and path.stem == "greedy":
                answered.setdefault((one.question, one.images["img_1"].sha256), one)
        firsts.append(answered)
    expected = [(one.id, firsts[1][subject].id) for subject, one in firsts[0].items() if subject in firsts[1]]
    assert [(pair["left"]["key"], pair["right"]["key"]) for pair in found["rows"]] == expected
    assert found["total"] == sum(found["counts"].values()) == len(expected)
    for outcome, count in found["counts"].items():
        rows = queries.pairs(*sides, outcome, 0, 500)["rows"]
        assert len(rows) == count
        for pair in rows:
            right = (bool(pair["left"]["correct"]), bool(pair["right"]["correct"]))
            assert right == {"left": (True, False), "right": (False, True), "both": (True, True)}.get(
                outcome, (False, False)
            )


def test_related_are_all_others_on_the_question(queries, everything):
    _, one = everything[3]
    same = {
        other.id for _, other in everything
        if other.question == one.question and other.images["img_1"].sha256 == one.images["img_1"].sha256
    }  # fmt: skip
    related = {row["key"] for row in queries.related(one.id)}
    assert related <= same - {one.id}
    assert len(related) == min(len(same) - 1, 200)


def test_curves_are_the_logs(queries, run):
    curves = {curve["stage"]: curve for curve in queries.curves()}
    assert set(curves) == {"sft", "text-rl", "v-toolrl"}
    logged = [json.loads(line) for line in (run / "stages" / "v-toolrl" / "log.jsonl").read_text().splitlines()]
    assert curves["v-toolrl"]["steps"] == [record["step"] for record in logged]
    assert curves["v-toolrl"]["values"]["reward"] == pytest.approx([record["reward"] for record in logged], abs=1e-4)
    assert curves["v-toolrl"]["tools"]["OCR"] == pytest.approx([record["tools"]["OCR"] for record in logged], abs=1e-4)


def test_without_a_log_curves_come_from_the_trajectories(tmp_path):
    run = write_run(tmp_path / "run", questions=2, steps=30, models={"sft": 0.5})
    (run / "stages" / "v-toolrl" / "log.jsonl").unlink()
    index = index_of(run)
    curve = next(curve for curve in Queries(index).curves() if curve["stage"] == "v-toolrl")
    assert curve["steps"] == [10, 20, 30]
    rewards = [
        one.rewards["total"] for one in read_trajectories(run / "stages/v-toolrl/trajectories/step-000020.jsonl")
    ]
    assert curve["values"]["reward"][1] == pytest.approx(sum(rewards) / len(rewards), abs=1e-4)
    index.close()


def test_a_long_log_is_drawn_in_few_points(tmp_path):
    folder = tmp_path / "run" / "stages" / "rl"
    write_trajectories([Trajectory(question="?")], folder / "trajectories" / "step-000001.jsonl")
    log = "".join(json.dumps({"step": n, "reward": n / 1000}) + "\n" for n in range(1, 5001))
    (folder / "log.jsonl").write_text(log + '{"step": 5001, "rew')
    index = index_of(tmp_path / "run")
    (curve,) = Queries(index).curves()
    assert len(curve["steps"]) <= 400
    assert curve["steps"][-1] == 5000
    assert curve["values"]["reward"][0] == pytest.approx(
        sum(range(1, curve["every"] + 1)) / curve["every"] / 1000, abs=1e-4
    )
    index.close()

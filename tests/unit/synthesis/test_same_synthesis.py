"""A synthesis goes on with the same settings only; filters, which are none of them, are applied to what is there."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli.commands import EVERY_COMMAND, parse
from tests.support.evaluation.answering import World, answering
from thinkimg.errors import UserError


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with answering() as found:
        yield found


def synthesize(world: World, out: Path, *changed: str, without: str = "", task: str = "charts") -> dict[str, Any]:
    words = {
        "--planner-args model": "--planner-args model=m",
        "--planner-args base_url": f"--planner-args base_url={world.url}/v1",
        "--server": f"--server {world.url}",
        "--data": "--data 'charts://?questions=4'",
        "--count": "--count 4",
    }
    kept = [text for option, text in words.items() if not without or not option.startswith(without)]
    _, parameters = parse(" ".join([f"thinkimg synthesize {task}", *kept, f"--out {out}", *changed]))
    EVERY_COMMAND["synthesize"].function(**parameters)
    found: dict[str, Any] = json.loads((out / "synthesis.json").read_text())
    return found


@pytest.fixture(scope="module")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    synthesize(world, out)
    return out


@pytest.fixture
def killed(finished: Path, tmp_path: Path) -> Path:
    """What a kill leaves: two attempts and a half."""
    shutil.copytree(finished, tmp_path / "out")
    for name in ("cold-start.jsonl", "synthesis.json"):
        (tmp_path / "out" / name).unlink()
    lines = (tmp_path / "out/attempts.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out/attempts.jsonl").write_text("".join(lines[:2]) + lines[2][:100])
    return tmp_path / "out"


REFUSED = {
    "planner": ("--planner scripted", "--planner-args", "backend = 'openai', now 'scripted'"),
    "planner_args": ("--planner-args extra='{top_p: 0.5}'", "", r"model_args.extra.top_p = None, now 0\.5"),
    "chain": ("--planner scripted --chain ocr=1", "--planner-args", r"chains\.ocr = None, now 1\.0"),
    "no_tools": ("--no-tools", "--server", r"tools = \['Crop', 'Point'\], now None"),
    "data": ("--data 'charts://?questions=5'", "--data", r"data = 'charts.*questions=4', now 'charts.*questions=5'"),
    "split": ("--split validation", "", "split = 'train', now 'validation'"),
    "format": ("--format hermes", "", "format = 'openthinkimg', now 'hermes'"),
    "prompt": ("--prompt compact", "", "prompt = 'full', now 'compact'"),
    "max_rounds": ("--max-rounds 3", "", "max_rounds = 6, now 3"),
    "max_tokens": ("--max-tokens 99", "", "max_tokens = 512, now 99"),
    "seed": ("--seed 5", "", "seed = 0, now 5"),
}
"""Option of `thinkimg synthesize` -> another value of it, what this takes the place of, and what the refusal names."""

CHANGES_NOTHING = {
    "out": "It is the folder.",
    "task": "Compared below.",
    "server": "Where tools are; what they are is compared.",
    "count": "More of the same; fewer are a part of them.",
    "judge": "A filter.",
    "any_answer": "A filter.",
    "max_tool_errors": "A filter.",
    "min_tool_calls": "A filter.",
    "refuse_repeats": "A filter.",
    "sharegpt": "What else is written.",
    "price": "Of what is asked from now on.",
    "concurrency": "How many at the same time.",
    "secrets_dir": "Keys.",
    "as_json": "What is printed.",
}


def test_every_option_is_decided() -> None:
    command, _ = parse("thinkimg synthesize charts --out o")
    assert {parameter.name for parameter in command.params} - {"help"} == {*REFUSED, *CHANGES_NOTHING}


@pytest.mark.parametrize("option", REFUSED)
def test_killed_and_restarted_with_this_option_changed_it_is_refused_by_name(
    world: World, killed: Path, option: str
) -> None:
    words, without, named = REFUSED[option]
    asked, before = len(world.asked), (killed / "attempts.jsonl").read_bytes()
    with pytest.raises(UserError, match=f"it was begun with .*{named}"):
        synthesize(world, killed, words, without=without)
    assert len(world.asked) == asked
    assert (killed / "attempts.jsonl").read_bytes() == before


def test_another_task_is_refused_by_name(world: World, killed: Path, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(
        "from thinkimg.evaluation.tasks import EvaluationTask\nTASK = EvaluationTask('other', data='charts://')\n"
    )
    with pytest.raises(UserError, match="task = 'charts', now 'other'"):
        synthesize(world, killed, task=str(tmp_path / "other.py"))


def test_killed_it_goes_on(world: World, killed: Path, finished: Path) -> None:
    asked = len(world.asked)
    synthesize(world, killed, "--concurrency 1", "--price 1 2")
    assert len(world.asked) == asked + 2
    results, expected = (json.loads((out / "synthesis.json").read_text()) for out in (killed, finished))
    assert {**results, "cost": 0} == {**expected, "cost": 0}


def test_filters_that_have_changed_are_applied_to_what_is_there(world: World, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    strict = json.loads((out / "synthesis.json").read_text())
    asked = len(world.asked)
    assert synthesize(world, out, "--any-answer")["kept"] == 4
    assert synthesize(world, out, "--any-answer --min-tool-calls 1")["dropped"] == {"too few tool calls": 4}
    assert len((out / "cold-start.jsonl").read_text().splitlines()) == 0
    again = synthesize(world, out)
    assert (again["kept"], again["dropped"]) == (strict["kept"], strict["dropped"])
    assert strict["kept"] < 4
    assert len(world.asked) == asked, "nothing is asked again"


def test_a_judge_that_is_another_one_is_asked_about_what_is_there(world: World, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    judge = f"--any-answer --judge base_url={world.url}/v1 --judge model="
    for model, expected in (("one", 12), ("one", 0), ("two", 12)):
        asked = len(world.asked)
        found = synthesize(world, tmp_path / "out", f"{judge}{model}")
        assert found["dropped"] == {"model gave no opinion": 4}
        assert [body["model"] for body in world.asked[asked:]] == [model] * expected, (
            "three times each: it says nothing"
        )


def test_a_smaller_count_takes_a_part_and_loses_nothing(world: World, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    asked = len(world.asked)
    assert synthesize(world, tmp_path / "out", "--count 2", without="--count")["tasks"] == 2
    assert synthesize(world, tmp_path / "out")["tasks"] == 4
    assert len(world.asked) == asked
    assert synthesize(world, tmp_path / "out", "--count 5", without="--count")["tasks"] == 5
    assert len(world.asked) == asked + 1


def test_attempts_of_an_earlier_version_are_shown_when_finished_and_not_added_to(
    world: World, killed: Path, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (killed / "settings.json").unlink()
    with pytest.raises(UserError, match=r"an earlier version began it and did not write down backend, .*2 of 4"):
        synthesize(world, killed)
    shutil.copytree(finished, tmp_path / "whole")
    (tmp_path / "whole/settings.json").unlink()
    assert synthesize(world, tmp_path / "whole")["tasks"] == 4
    assert "nothing is asked: all 4 answers are there" in caplog.text

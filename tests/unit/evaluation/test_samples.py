"""Several answers to each question: avg@k, pass@k, the majority's vote; and what an evaluation makes of them."""

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli.commands import EVERY_COMMAND, parse
from tests.support.evaluation.stub_endpoint import Handler, start
from thinkimg.errors import UserError
from thinkimg.evaluation.formats import FORMATS
from thinkimg.evaluation.samples import Samples, pass_at, read_as, vote
from thinkimg.evaluation.tables import compare
from thinkimg.jsonfile import read
from thinkimg.results import AnswerRow, EvaluationResults, SampleFigures


@pytest.mark.parametrize(("n", "right", "k"), [(5, 2, 1), (5, 2, 2), (6, 1, 4), (6, 0, 3), (4, 4, 2), (7, 5, 7)])
def test_pass_at_k_is_the_share_of_all_draws_of_k_with_a_right_one(n: int, right: int, k: int) -> None:
    draws = list(itertools.combinations([True] * right + [False] * (n - right), k))
    assert pass_at(k, n, right) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([("12", True), ("12", True), ("13", False)], (1.0, False)),
        ([("12", True), ("13", False), ("13", False)], (0.0, False)),
        ([("12", True), ("13", False)], (0.5, True)),
        ([("12", True), ("13", False), ("14", False)], (1 / 3, True)),
        ([("12", True), (None, False), (None, False)], (1.0, False)),  # no answer is no vote
        ([(None, False), (None, False)], (0.0, False)),
    ],
)
def test_the_most_frequent_answer_decides_and_a_tie_is_shared(
    answers: list[tuple[str | None, bool]], expected: tuple[float, bool]
) -> None:
    assert vote(answers) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("one", "another", "options"),
    [
        ("1,000", "1000.0", None),
        ("The Red.", "red", None),
        ("12%", "0.12", None),
        ("The answer is **7**.", "7 cm", None),
        ("The answer is (B)", "B. a cat", {"A": "a dog", "B": "a cat"}),
    ],
)
def test_answers_that_mean_the_same_vote_together(one: str, another: str, options: Any) -> None:
    assert read_as(one, options) == read_as(another, options)


def figures_of(*questions: str, lost: int = 0) -> SampleFigures:
    """Of questions whose answers are letters, of which `r` is right and `-` lost."""
    samples = Samples()
    for number, answers in enumerate(questions):
        for sample, answer in enumerate(answers, 1):
            samples.add(
                AnswerRow(
                    id=f"{number}@{sample}",
                    sample_of=str(number),
                    status="infrastructure" if answer == "-" else "answered",
                    correct=answer == "r",
                    read_as=answer,
                )
            )
    found = samples.figures()
    assert found is not None
    return found


def test_the_figures_of_questions_that_were_asked_four_times() -> None:
    found = figures_of("rrrx", "rxyz", "xxyr", "rryy")
    assert (found.samples, found.questions, found.ties) == (4, 4, 2)
    assert found.average.mean == pytest.approx(7 / 16)
    assert {k: score.mean for k, score in found.pass_at.items()} == pytest.approx(
        {2: (1 + 0.5 + 0.5 + 5 / 6) / 4, 4: 1}
    )
    assert found.majority.mean == pytest.approx((1 + 0.25 + 0 + 0.5) / 4)
    low, high = found.average.ci95 or (0, 0)
    assert low < 7 / 16 < high


def test_what_was_lost_leaves_bounds() -> None:
    found = figures_of("rr-", "xxx", "rrr", "xy-")
    assert found.average.mean is None
    assert found.average.bounds == pytest.approx(((2 + 0 + 3 + 0) / 12, (3 + 0 + 3 + 1) / 12))
    assert found.pass_at[3].bounds == (0.5, 0.75)
    assert found.majority.bounds == (0.5, 0.75)  # the first is decided, the last is not


def test_in_an_interval_answers_to_one_question_are_one_observation() -> None:
    """Four equal answers to each of 30 questions say no more than one."""
    found = figures_of(*(["rrrr"] * 15 + ["xxxx"] * 15))
    once = figures_of(*(["rr"] * 15 + ["xx"] * 15))
    assert found.average.ci95 == pytest.approx(once.average.ci95)
    assert found.average.ci95[0] < 0.34  # type: ignore[index]


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Answers 0, 1 or 2 by the request's seed; what was asked."""
    asked: list[dict[str, Any]] = []

    class Guesser(Handler):
        def reply(self, body: dict[str, Any]) -> str:
            asked.append(body)
            arguments = {"ans": str(random.Random(body["seed"]).randrange(3))}
            return json.dumps({"thought": "", "actions": [{"name": "Terminate", "arguments": arguments}]})

    server, url = start(Guesser)
    yield url, asked
    server.shutdown()


def evaluate(url: str, out: Path, *words: str) -> None:
    fixed = f"--backend openai --model m --model-args base_url={url} --data charts://?questions=6 --out {out}"
    _, parameters = parse(" ".join(["thinkimg eval charts", fixed, *words]))
    EVERY_COMMAND["eval"].function(**parameters)


SAMPLED = ("--samples 4", "--temperature 0.8")


@pytest.fixture(scope="module")
def sampled(endpoint: tuple[str, list[Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sampled")
    evaluate(endpoint[0], out, *SAMPLED)
    return out / "charts"


def test_each_answer_has_a_seed_of_its_own_which_is_written_down(sampled: Path) -> None:
    rows = [AnswerRow.model_validate_json(line) for line in (sampled / "items.jsonl").read_text().splitlines()]
    assert [row.id.rpartition("@")[2] for row in rows] == list("1234") * 6
    assert len({row.sample_of for row in rows}) == 6
    assert len({row.sample_seed for row in rows}) == 24
    assert len({row.answer for row in rows}) == 3, "the seed reaches the endpoint"


def test_results_terminal_and_every_table_show_them(
    sampled: Path, endpoint: tuple[str, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    results = read(sampled / "results.json", EvaluationResults)
    assert results.samples is not None
    assert (results.n, results.samples.samples, results.samples.questions) == (24, 4, 6)
    assert results.accuracy == pytest.approx(results.samples.average.mean)
    evaluate(endpoint[0], sampled.parent, *SAMPLED)
    printed = capsys.readouterr().out
    assert "4 answers to each of 6 questions" in printed
    for name in ("avg@4", "pass@2", "pass@4", "majority of 4"):
        assert name in printed
    found = compare([sampled])
    assert "pass@4" in FORMATS["md"](found)
    assert "pass@4" in FORMATS["tex"](found)
    assert ",samples,average,pass,majority,ties" in FORMATS["csv"](found)
    assert json.loads(FORMATS["json"](found))["models"][0]["samples"]["samples"] == 4
    assert len(found.entries[0].scores) == 6


def test_killed_in_the_middle_of_a_question_only_its_other_answers_are_asked(
    sampled: Path, endpoint: tuple[str, list[Any]], tmp_path: Path
) -> None:
    out = tmp_path / "charts"
    out.mkdir()
    (out / "settings.json").write_bytes((sampled / "settings.json").read_bytes())
    lines = (sampled / "trajectories.jsonl").read_bytes().splitlines(keepends=True)
    (out / "trajectories.jsonl").write_bytes(b"".join(lines[:6]) + lines[6][:50])
    before = len(endpoint[1])
    evaluate(endpoint[0], tmp_path, *SAMPLED)
    assert len(endpoint[1]) - before == 18
    for name in ("items.jsonl", "results.json"):
        assert (out / name).read_bytes() == (sampled / name).read_bytes()


def test_in_shards_it_is_the_same(sampled: Path, endpoint: tuple[str, list[Any]], tmp_path: Path) -> None:
    for index in range(5):
        evaluate(endpoint[0], tmp_path, *SAMPLED, f"--shard {index}/5")
    for name in ("items.jsonl", "results.json"):
        assert (tmp_path / "charts" / name).read_bytes() == (sampled / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--samples 4"], "at temperature 0: give --temperature above it"),
        ([*SAMPLED, "--model-args extra='{temperature: 0}'"], "give extra.temperature above it"),
        ([*SAMPLED, "--model-args extra='{seed: 1}'"], "extra.seed fixes it: leave it out"),
    ],
)
def test_samples_that_would_all_be_one_answer_are_refused(
    words: list[str], remedy: str, endpoint: tuple[str, list[Any]], tmp_path: Path
) -> None:
    before = len(endpoint[1])
    with pytest.raises(UserError, match=remedy):
        evaluate(endpoint[0], tmp_path, *words)
    assert len(endpoint[1]) == before
    assert list(tmp_path.iterdir()) == []

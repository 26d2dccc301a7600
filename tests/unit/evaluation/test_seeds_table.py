"""The table over seeds: both scores, several answers to each question, changed pictures, answers that were lost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from thinkimg.api import Control
from thinkimg.errors import UserError
from thinkimg.evaluation.compare import right_of
from thinkimg.evaluation.owed import control_figures
from thinkimg.evaluation.seeds import write_table
from thinkimg.evaluation.summary import row_of, summarise
from thinkimg.jsonfile import read, write
from thinkimg.results import Origin, RunResults, SampleFigures, TableResults
from thinkimg.trajectory import Trajectory, write_trajectories

QUESTIONS = 20
SAMPLES = 4
ORIGINS = {
    "sft": Origin(type="SFT", started_from="base", tools=True),
    "rl": Origin(type="GRPO", started_from="sft", tools=True),
    "table": Origin(type="Evaluate"),
}
GREY = Control("grey")
Answers = Sequence[Trajectory]


def answer(question: int, right: bool, official: bool | None = None, **meta: Any) -> Trajectory:
    """Right as the normalised scorer has it, which decides."""
    strict = right if official is None else official
    one = Trajectory(question=f"question {question}?", status="answered", answer="yes" if right else f"no {question}")
    one.meta = {"question_id": f"q{question}", "task": f"q{question}", **meta}
    one.rewards, one.correct = {"relaxed_normalised": float(right), "relaxed": float(strict)}, right
    return one


def lost(question: int) -> Trajectory:
    one = answer(question, False)
    one.status, one.correct, one.rewards = "infrastructure", None, {}
    return one


def greedy(right: int, official: int | None = None) -> list[Trajectory]:
    return [answer(n, n < right, n < (right if official is None else official)) for n in range(QUESTIONS)]


def sampled(right: int) -> list[Trajectory]:
    """Of the first questions one answer of four, the first, is right."""
    return [
        answer(n, n < right and sample == 0, sample_of=f"q{n}", task=f"q{n}@{sample + 1}")
        for n in range(QUESTIONS)
        for sample in range(SAMPLES)
    ]


def write_run(folder: Path, seed: int, models: Mapping[str, Mapping[str, Answers]], stage: str = "table") -> Path:
    """As an Evaluate stage leaves it."""
    figures = {}
    for model, modes in models.items():
        rows = {}
        for mode, answers in modes.items():
            write_trajectories(answers, folder / "stages" / stage / model / f"{mode}.jsonl")
            rows[mode] = [row_of(one.model_dump(mode="json")) for one in answers]
        figures[model] = summarise(rows["greedy"], rows.get("sampled", ()))
        if GREY.name in rows:
            figures[model].controls = [control_figures(GREY, [right_of(rows["greedy"])], [right_of(rows[GREY.name])])]
    write(folder / "results.json", RunResults(job="job", seed=seed, models=figures, stages=ORIGINS))
    return folder


def table_of(tmp_path: Path, runs: Sequence[Mapping[str, Mapping[str, Answers]]]) -> tuple[TableResults, str]:
    folders = [write_run(tmp_path / f"seed-{n}", n, models) for n, models in enumerate(runs)]
    table = write_table(folders, tmp_path / "table")
    assert read(tmp_path / "table" / "results.json", TableResults) == table
    return table, (tmp_path / "table" / "results.md").read_text()


def test_both_scores_and_the_differences_in_both_are_shown(tmp_path: Path) -> None:
    runs = [
        {"sft": {"greedy": greedy(8 + seed, 4)}, "rl": {"greedy": greedy(16 + seed, 10 + seed)}} for seed in range(2)
    ]
    table, text = table_of(tmp_path, runs)
    scores = table.mean.models["rl"].scores
    assert {name: (score.role, score.mean) for name, score in scores.items()} == {
        "relaxed_normalised": ("normalised", pytest.approx(0.825)),
        "relaxed": ("official", pytest.approx(0.525)),
    }
    assert scores["relaxed"].ci95[0] < 0.525 < scores["relaxed"].ci95[1]
    (compared,) = table.mean.differences
    assert (compared.model, compared.other) == ("rl", "sft")
    assert compared.scores["relaxed"].difference == pytest.approx(0.525 - 0.2)
    assert compared.scores["relaxed_normalised"] == compared.accuracy
    assert "| Model | Accuracy | 95 % interval | Official | Normalised | Seed 0 |" in text
    assert "| 52.5 % | 82.5 % | 80.0 % | 85.0 % |" in text
    assert "| Difference in points (paired) | Greedy | Official | Sampled |" in text
    assert "Right is what `relaxed_normalised` says" in text
    assert "With papers compare the official score." in text


def test_a_score_that_not_every_seed_has_is_left_out(tmp_path: Path) -> None:
    earlier = greedy(8)
    for one in earlier:
        del one.rewards["relaxed"]
    table, text = table_of(tmp_path, [{"sft": {"greedy": greedy(8)}}, {"sft": {"greedy": earlier}}])
    assert list(table.mean.models["sft"].scores) == ["relaxed_normalised"]
    assert "Official" not in text


def test_several_answers_are_summed_over_the_seeds(tmp_path: Path) -> None:
    runs = [{"rl": {"greedy": greedy(16), "sampled": sampled(right)}} for right in (8, 12)]
    table, text = table_of(tmp_path, runs)
    found = table.mean.models["rl"].samples
    assert found is not None
    assert (found.samples, found.questions) == (4, 40)
    assert found.average.mean == pytest.approx(0.125)
    assert table.mean.models["rl"].accuracy_sampled == pytest.approx(0.125)
    assert found.pass_at[4].mean == pytest.approx(0.5)
    assert found.pass_at[2].mean == pytest.approx(0.25)
    seeds: list[SampleFigures] = [run.models["rl"].samples for run in table.seeds.values()]  # type: ignore[misc]
    assert found.pass_at[4].mean == pytest.approx(sum(one.pass_at[4].mean or 0 for one in seeds) / 2)
    assert found.pass_at[4].ci95 == (0.0, 1.0), "0.4 and 0.6: of two seeds"
    assert "| rl | pass@4 | 50.0 % |" in text
    assert "| rl | majority of 4 | 0.0 % |" in text


def test_seeds_that_were_asked_unequally_often_are_refused(tmp_path: Path) -> None:
    once = [one for one in sampled(8) if one.meta["task"].endswith(("@1", "@2"))]
    runs = [{"rl": {"greedy": greedy(16), "sampled": answers}} for answers in (sampled(8), once)]
    with pytest.raises(UserError, match="the runs asked each question 2 and 4 times"):
        table_of(tmp_path, runs)


def test_what_is_owed_to_seeing_is_paired_over_the_seeds(tmp_path: Path) -> None:
    runs = [{"rl": {"greedy": greedy(16 + seed), GREY.name: greedy(4)}} for seed in range(2)]
    table, text = table_of(tmp_path, runs)
    (found,) = table.mean.models["rl"].controls
    assert (found.control, found.scope, found.n) == ("grey", "question", 40)
    assert (found.true, found.accuracy) == (pytest.approx(0.825), pytest.approx(0.2))
    assert found.owed is not None
    assert found.owed.difference == pytest.approx(0.625)
    assert found.owed.ci95[0] < 0.6 < 0.65 < found.owed.ci95[1]  # type: ignore[index]
    assert "| rl | grey, question | 82.5 % | 20.0 % |" in text


def test_a_control_of_one_seed_alone_is_left_out(tmp_path: Path) -> None:
    runs = [{"rl": {"greedy": greedy(16), GREY.name: greedy(4)}}, {"rl": {"greedy": greedy(16)}}]
    table, text = table_of(tmp_path, runs)
    assert table.mean.models["rl"].controls == []
    assert "changed pictures" not in text


def test_with_lost_answers_there_is_no_difference_but_its_bounds(tmp_path: Path) -> None:
    """The common questions alone would say +50 points."""
    unlucky = [*greedy(16)[:18], lost(18), lost(19)]
    runs = [{"sft": {"greedy": greedy(6)}, "rl": {"greedy": unlucky, GREY.name: greedy(6)}}]
    table, text = table_of(tmp_path, runs)
    (compared,) = table.mean.differences
    assert compared.accuracy is not None
    assert (compared.accuracy.difference, compared.accuracy.ci95, compared.accuracy.p) == (None, None, None)
    assert compared.accuracy.bounds == pytest.approx((0.5, 0.6))
    assert "| rl minus SFT | incomplete, +50.0 to +60.0 |" in text
    rl = table.mean.models["rl"]
    assert (rl.accuracy, rl.n, rl.bounds) == (None, 18, pytest.approx((0.8, 0.9)))
    assert rl.scores["relaxed"].bounds == pytest.approx((0.8, 0.9))
    (control,) = rl.controls
    assert control.owed is not None
    assert control.owed.bounds == pytest.approx((0.5, 0.6))
    assert "| rl | grey, question | incomplete, 80.0 – 90.0 % | 30.0 % |" in text


def test_of_two_evaluations_the_later_one_in_the_manifest_counts(tmp_path: Path) -> None:
    """Not the one whose name comes later; and each control goes with the true pictures of its own stage."""
    write_run(tmp_path / "run", 0, {"rl": {"greedy": greedy(10), GREY.name: greedy(5)}}, stage="zoo")
    write_run(tmp_path / "run", 0, {"rl": {"greedy": greedy(16)}}, stage="all")
    results = read(tmp_path / "run" / "results.json", RunResults)
    results.stages = {"zoo": Origin(type="Evaluate"), "all": Origin(type="Evaluate"), **ORIGINS}
    write(tmp_path / "run" / "results.json", results)
    found = write_table([tmp_path / "run"], tmp_path / "table").mean.models["rl"]
    assert found.accuracy == pytest.approx(0.8)
    (control,) = found.controls
    assert (control.true, control.accuracy) == (pytest.approx(0.5), pytest.approx(0.25))

"""A benchmark's two scores: which are computed, what the results file and the tables show."""

import asyncio
import json
from pathlib import Path

import pytest
from rich.console import Console

from thinkimg.api import parse_manifest
from thinkimg.errors import UserError
from thinkimg.evaluation import official, roles
from thinkimg.evaluation.formats import as_csv, as_markdown
from thinkimg.evaluation.report import collect, terminal_table, write_report
from thinkimg.evaluation.roles import named_scorers, usual_scorers, with_the_other
from thinkimg.evaluation.scorers import RULES
from thinkimg.evaluation.scoring import score
from thinkimg.evaluation.summary import row_of, summarise, summary_of
from thinkimg.evaluation.tables import compare
from thinkimg.evaluation.tasks import TASKS, EvaluationTask
from thinkimg.jobs.stages.scoring import scorers_of
from thinkimg.results import AnswerRow, EvaluationCosts, EvaluationResults
from thinkimg.trajectory import Trajectory

DATA = {"train": {"uri": "a.jsonl"}, "test": {"uri": "b.jsonl"}}


def rows(*scorers: str) -> list[AnswerRow]:
    """Answers that ChartQA's published rule and ours do not judge alike."""
    said = []
    for number, answer in enumerate(("12", "12 %", "$12", "The answer is 12.", "13")):
        trajectory = Trajectory(question="?", reference="12", answer=answer, status="answered", id=str(number))
        asyncio.run(score(trajectory, [RULES[name] for name in scorers]))
        said.append(row_of(trajectory.model_dump(mode="json")))
    return said


def write_output(folder: Path, task: str, *scorers: str) -> Path:
    answers = rows(*scorers)
    out = folder / task
    out.mkdir(parents=True)
    (out / "items.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in answers))
    figures = summary_of(answers).figures(task)
    (out / "results.json").write_text(EvaluationResults(task=task, model="m", **dict(figures)).model_dump_json())
    (out / "costs.json").write_text(EvaluationCosts().model_dump_json())
    return folder


def test_every_benchmark_has_both_and_its_headline_is_one_of_them() -> None:
    for task in TASKS.values():
        assert task.scorer in (task.official, task.normalised), task.name
        assert task.official in official.JUDGES or RULES[task.official].source is not None
        assert RULES[task.normalised].role == "normalised"


def test_both_are_computed_and_the_headline_decides() -> None:
    assert usual_scorers(TASKS["chartqa"], judged=False) == ["relaxed", "relaxed_normalised"]
    assert usual_scorers(TASKS["vstar"], judged=False) == ["multiple_choice", "lmms_eval_vstar"]
    assert usual_scorers(TASKS["charxiv"], judged=False) == ["charxiv"]
    assert usual_scorers(TASKS["charxiv"], judged=True) == ["charxiv", "charxiv_judge"]
    mine = EvaluationTask("mine", data="mine.jsonl", scorer="multiple_choice")
    assert usual_scorers(mine, judged=False) == ["multiple_choice", "vlmevalkit_choice"]
    assert usual_scorers(EvaluationTask("mine", data="mine.jsonl"), judged=False) == ["exact"]


def test_an_official_score_whose_package_is_missing_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(roles.importlib.util, "find_spec", lambda name: None)
    assert usual_scorers(TASKS["chartgemma"], judged=False) == ["relaxed_normalised"]
    assert roles.why_not("openthinkimg_fuzzy", judged=False) == "it needs the extra `evaluation`"


def test_a_kind_of_score_may_be_named_instead_of_a_scorer() -> None:
    assert named_scorers(TASKS["hrbench"], ["official", "normalised", "exact"]) == [
        "vlmevalkit_choice", "multiple_choice", "exact"
    ]  # fmt: skip
    with pytest.raises(UserError, match="mine has no official scorer; name one of exact"):
        named_scorers(EvaluationTask("mine", data="mine.jsonl"), ["official"])


def test_the_results_say_which_score_is_which() -> None:
    figures = summary_of(rows("relaxed", "relaxed_normalised", "exact")).figures("chartqa")
    assert {name: (found.role, round(found.mean or 0, 9)) for name, found in figures.scores.items()} == {
        "relaxed": ("official", 0.2),
        "relaxed_normalised": ("normalised", 0.8),
        "exact": ("", 0.6),
    }
    assert figures.accuracy == 0.2


def test_a_comparison_shows_both_and_compares_by_either(tmp_path: Path) -> None:
    folder = write_output(tmp_path, "chartqa", "relaxed", "relaxed_normalised")
    found = compare([folder])
    (entry,) = found.entries
    assert (entry.mean, entry.official, entry.normalised) == (0.2, 0.2, 0.8)
    assert "| Official | Normalised |" in as_markdown(found)
    assert "| 20.0 % | 80.0 % |" in as_markdown(found)
    assert ",0.2,0.8," in as_csv(found)
    assert compare([folder], scorer="normalised").entries[0].mean == 0.8
    assert compare([folder], scorer="official").scorer == "official"


def test_a_comparison_by_a_score_that_is_not_there_names_the_remedy(tmp_path: Path) -> None:
    folder = write_output(tmp_path, "charts", "relaxed_normalised")
    with pytest.raises(UserError, match="no official score; run `thinkimg eval` again with --scorer official"):
        compare([folder], scorer="official")
    assert compare([folder]).entries[0].official is None


def test_a_job_shows_the_other_score_beside_the_manifests(tmp_path: Path) -> None:
    stages = [{"name": "table", "type": "Evaluate", "evaluate": {"models": ["base"]}}]
    spec = {"model": {"uri": "preset://tiny"}, "data": DATA, "stages": stages}
    document = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "ToolRLJob", "metadata": {"name": "mine"}, "spec": spec}
    stage = parse_manifest(json.dumps(document)).job().spec.stages[0]
    assert [scorer.name for scorer in scorers_of(stage)] == ["relaxed_normalised", "relaxed"]
    assert [scorer.name for scorer in with_the_other(RULES["exact"])] == ["exact"]

    models = {name: summarise(rows("relaxed_normalised", "relaxed")).model_dump(mode="json") for name in ("base", "b")}
    (tmp_path / "results.json").write_text(json.dumps({"models": models}))
    write_report(tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "| Model | Accuracy | 95 % interval | Official | Normalised | Sampled (T = 1) |" in text
    assert "Right is what `relaxed_normalised` says; normalised is `relaxed_normalised`, official is `relaxed`." in text
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(collect(tmp_path)))
    head, *shown = console.export_text().strip().splitlines()
    assert "Official" in head
    assert "Normalised" not in head
    assert len(shown) == 2, "no row is wrapped"
    assert "20.0 %" in shown[0]

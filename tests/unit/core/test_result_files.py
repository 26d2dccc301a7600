"""What is left on disk: files of the version before there were kinds, as it wrote them (`earlier/`), and of today."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from thinkimg import results
from thinkimg.errors import UserError
from thinkimg.evaluation.tables import compare
from thinkimg.jobs.layout import Run
from thinkimg.jsonfile import KINDS, VERSION, File, read, write
from thinkimg.results import (
    BaseDone,
    EvaluateDone,
    EvaluationCosts,
    EvaluationResults,
    EvaluationSettings,
    GRPODone,
    ModelFigures,
    RunMarker,
    RunResults,
    SFTDone,
    SynthesizeDone,
    TableResults,
    ToolCalls,
)
from thinkimg.training_log import GRPOLine, SFTLine, read_log

EARLIER = Path(__file__).parent / "earlier"
RUN, TABLE, EVALUATION = EARLIER / "run", EARLIER / "table", EARLIER / "evaluation"


def document(path: Path) -> Any:
    return json.loads(path.read_text())


# ---- files of the earlier version ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (RUN / "results.json", RunResults),
        (RUN / "run.json", RunMarker),
        (RUN / "stages/sft/tools.json", ToolCalls),
        (TABLE / "results.json", TableResults),
        (EVALUATION / "results.json", EvaluationResults),
        (EVALUATION / "settings.json", EvaluationSettings),
        (EVALUATION / "costs.json", EvaluationCosts),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_file_of_the_earlier_version_is_read_whole_and_comes_back_the_same(
    path: Path, model: type[File], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = read(path, model)
    assert found.version == 0
    assert not caplog.records, "no field was left out"
    said, written = document(path), json.loads(found.model_dump_json(exclude_unset=True))
    written.pop("version")
    assert (written["tools"] if model is ToolCalls else written) == said
    write(tmp_path / "again.json", found)
    assert read(tmp_path / "again.json", model) == found


def test_stages_that_the_earlier_version_finished_are_known_by_their_fields() -> None:
    run = Run(RUN)
    assert run.done("base") == BaseDone(version=0, seconds=1.0)
    assert run.done("cold-start") == SynthesizeDone(version=0, seconds=14.6, kept=40)
    assert run.done("text-rl") == GRPODone(version=0, seconds=53.5)
    sft = run.done("sft")
    assert isinstance(sft, SFTDone)
    assert (sft.seconds, sft.samples, sft.gate_accuracy, sft.extended) == (25.8, 40, 0.0, 0)
    assert run.done("v-toolrl") is None


def test_an_evaluate_stage_of_the_earlier_version_has_its_models(tmp_path: Path) -> None:
    models = document(RUN / "results.json")["models"]
    (tmp_path / "stages/table").mkdir(parents=True)
    (tmp_path / "stages/table/done.json").write_text(json.dumps({"seconds": 3.5, "models": models}))
    done = Run(tmp_path).done("table")
    assert isinstance(done, EvaluateDone)
    assert {name: entry.accuracy for name, entry in done.models.items()} == {
        name: entry["accuracy"] for name, entry in models.items()
    }


def test_a_log_of_the_earlier_version_is_read(tmp_path: Path) -> None:
    lines = read_log(RUN / "stages/text-rl/log.jsonl")
    assert [line.step for line in lines] == [1, 2, 3]
    assert all(isinstance(line, GRPOLine) and line.errors == {"malformed_call": 16} for line in lines)
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 10, "total_steps": 40, "loss": NaN, "token_accuracy": 0.5, "seconds": 1.25}\n')
    assert read_log(log) == [SFTLine(step=10, total_steps=40, loss=None, token_accuracy=0.5, seconds=1.25)]


def test_an_evaluation_of_the_earlier_version_is_compared(tmp_path: Path) -> None:
    shutil.copytree(EVALUATION, tmp_path / "charts")
    (entry,) = compare([tmp_path]).entries
    assert (entry.task, entry.model, len(entry.scores), entry.mean) == ("charts", "mine", 3, pytest.approx(2 / 3))


# ---- files of another kind -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize(
    ("path", "own", "asked", "said"),
    [
        (RUN, RunResults, EvaluationResults, "it holds the results of a run, not .*; `thinkimg table`"),
        (EVALUATION, EvaluationResults, RunResults, "it holds the results of an evaluation.*; `thinkimg compare`"),
        (TABLE, TableResults, RunResults, "it holds a table over several seeds.*; its results.md shows it"),
        (TABLE, TableResults, EvaluationResults, "it holds a table over several seeds"),
    ],
    ids=["a run as an evaluation", "an evaluation as a run", "a table as a run", "a table as an evaluation"],
)  # fmt: skip
def test_a_file_of_another_kind_is_refused_with_what_reads_it(
    earlier: bool, path: Path, own: type[File], asked: type[File], said: str, tmp_path: Path
) -> None:
    file = path / "results.json"
    if not earlier:
        write(tmp_path / "results.json", read(file, own))
        file = tmp_path / "results.json"
    with pytest.raises(UserError, match=rf"results\.json: {said}"):
        read(file, asked)


def test_compare_on_a_runs_folder_says_what_reads_it() -> None:
    with pytest.raises(UserError, match="it holds the results of a run"):
        compare([RUN])


def test_a_kind_that_this_version_does_not_know_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"kind": "league", "version": 9}')
    with pytest.raises(UserError, match="of kind 'league', which this version does not know; expected the results"):
        read(tmp_path / "results.json", RunResults)


# ---- fields ----------------------------------------------------------------------------------------------------------


def test_what_a_later_version_adds_is_left_out_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "results.json"
    write(path, RunResults(models={"sft": ModelFigures(n=3, accuracy=1.0)}))
    later = document(path) | {"version": VERSION + 1, "weather": "fine"}
    later["models"]["sft"]["mood"] = "good"
    path.write_text(json.dumps(later))
    with caplog.at_level(logging.WARNING):
        found, again = read(path, RunResults), read(path, RunResults)
    assert found == again
    assert found.models["sft"].n == 3
    (record,) = caplog.records
    assert "are left out: models.sft.mood, weather" in record.getMessage()


def test_settings_of_a_later_version_are_refused_since_answers_may_depend_on_them(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    write(path, EvaluationSettings(task="charts", name="mine"))
    path.write_text(json.dumps(document(path) | {"top_p": 0.5}))
    with pytest.raises(UserError, match=r"settings\.json: top_p: Extra inputs are not permitted"):
        read(path, EvaluationSettings)


def test_a_wrong_field_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"models": {"sft": {"accuracy": "high", "n": 3}}}')
    with pytest.raises(UserError, match=r"results\.json: models\.sft\.accuracy: Input should be a valid number"):
        read(tmp_path / "results.json", RunResults)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_null(value: float, tmp_path: Path) -> None:
    done = SFTDone(seconds=1.0)
    done.loss = value
    write(tmp_path / "done.json", done)
    assert json.loads((tmp_path / "done.json").read_text(), parse_constant=pytest.fail)["loss"] is None
    (tmp_path / "done.json").write_text(
        f'{{"seconds": 1.0, "samples": 2, "dropped": {{}}, "loss": {json.dumps(value)}}}'
    )
    assert results.read_done(tmp_path / "done.json") == SFTDone(version=0, seconds=1.0, samples=2)


def test_a_file_is_written_whole_and_only_with_declared_fields(tmp_path: Path) -> None:
    write(tmp_path / "done.json", GRPODone(seconds=2.0))
    assert document(tmp_path / "done.json") == {
        "kind": "done",
        "version": VERSION,
        "seconds": 2.0,
        "type": "GRPO",
        "tokens": None,
    }
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        GRPODone.model_validate({"kind": "done", "sceonds": 2.0})


def test_every_kind_says_what_it_is_and_where_it_stands() -> None:
    assert {"run", "table", "evaluation", "done", "tool-calls", "run-marker", "synthesis"} <= set(KINDS)
    assert all(model.title and model.path for model in KINDS.values())


def test_the_reference_page_is_current() -> None:
    import generate_files_reference

    page = (Path(__file__).parents[3] / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    assert page == generate_files_reference.generate(), "run: python hack/generate_files_reference.py"

"""An Evaluate stage with changed pictures: what it asks, finds, shows, keeps and refuses."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from PIL import Image as Pillow
from rich.console import Console

from tests.support.agent.scripted import answers
from tests.support.cli.commands import EVERY_COMMAND
from thinkimg.api import ControlKind, ControlScope, parse_manifest
from thinkimg.errors import UserError
from thinkimg.evaluation.report import terminal_table, write_report
from thinkimg.image import Image
from thinkimg.jobs.layout import Run
from thinkimg.jobs.preflight.data import check_data
from thinkimg.jobs.preflight.findings import Plan
from thinkimg.jobs.stages import evaluate
from thinkimg.jobs.stages.context import Context
from thinkimg.jsonfile import write
from thinkimg.models.chat import Reply, SamplingParameters
from thinkimg.results import ControlFigures, EvaluateDone, RunResults, is_complete
from thinkimg.trajectory import Trajectory
from thinkimg.viewer.discovery import RunFolder
from thinkimg.viewer.page import write_page

BRIGHTNESS = (4, 16, 60, 120, 200, 250)


class Looks:
    """Says how bright the picture is that it sees; notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        shown = trajectory.ordered_images
        self.asked.append(trajectory.question)
        return Reply(answers(str(shown[0].pixels().getpixel((0, 0))[0]) if shown else "nothing"), "stop")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    model = Looks()

    @contextmanager
    def speaking(context: Context, name: str) -> Iterator[Looks]:
        yield model

    monkeypatch.setattr(evaluate, "speaking", speaking)
    return model


def write_questions(folder: Path, brightness: tuple[int, ...] = BRIGHTNESS) -> None:
    rows = []
    for value in brightness:
        picture = Image.from_pixels(Pillow.new("RGB", (40, 30), (value, value, value)))
        (folder / f"{value}.png").write_bytes(picture.data)
        rows.append({"id": f"q{value}", "question": "How bright?", "answer": str(value), "image": f"{value}.png"})
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def manifest(**settings: Any) -> str:
    document = {
        "apiVersion": "thinkimg.dev/v1alpha1",
        "kind": "ToolRLJob",
        "metadata": {"name": "job"},
        "spec": {
            "model": {"uri": "preset://tiny"},
            "data": {"train": {"uri": "test.jsonl"}, "test": {"uri": "test.jsonl"}},
            "stages": [{"name": "table", "type": "Evaluate", "evaluate": {"models": ["base"], **settings}}],
        },
    }
    return yaml.safe_dump(document)


def run_stage(folder: Path, **settings: Any) -> EvaluateDone:
    context = Context(parse_manifest(manifest(**settings)).job(), Run(folder / "run"), data_folder=folder)
    context.run.stage("table").mkdir(parents=True, exist_ok=True)
    return evaluate.run_evaluation(context, "table")


@pytest.mark.parametrize(("kind", "after"), [("grey", 0.0), ("other", 0.0), ("none", 0.0)])
def test_what_a_model_owes_to_its_eyes_is_found_with_its_interval(
    kind: ControlKind, after: float, looks: Looks, tmp_path: Path
) -> None:
    write_questions(tmp_path)
    figures = run_stage(tmp_path, control=kind, sampled=False).models["base"]
    assert len(looks.asked) == 2 * len(BRIGHTNESS), "greedily, and with changed pictures"
    assert figures.accuracy == 1.0
    (found,) = figures.controls
    assert (found.control, found.scope, found.n, found.accuracy) == (kind, "question", 6, after)
    assert found.owed is not None
    assert found.owed.difference == pytest.approx(1.0)
    assert 0 < found.owed.ci95[0] < 1 == found.owed.ci95[1]


def test_without_a_control_nothing_more_is_asked(looks: Looks, tmp_path: Path) -> None:
    write_questions(tmp_path)
    assert run_stage(tmp_path, sampled=False).models["base"].controls == []
    assert len(looks.asked) == len(BRIGHTNESS)


def test_a_stage_that_was_killed_asks_what_is_missing_and_finds_the_same(looks: Looks, tmp_path: Path) -> None:
    write_questions(tmp_path)
    whole = run_stage(tmp_path, control="grey").models["base"]
    file = tmp_path / "run" / "stages" / "table" / "base" / "control-grey-question.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:2]) + lines[2][:30])
    looks.asked.clear()
    again = run_stage(tmp_path, control="grey").models["base"]
    assert len(looks.asked) == 4
    assert again.controls == whole.controls


def test_it_is_in_the_terminal_the_table_the_page_and_the_viewer(looks: Looks, tmp_path: Path) -> None:
    write_questions(tmp_path)
    run = tmp_path / "run"
    write(run / "results.json", RunResults(models=run_stage(tmp_path, control="other").models))
    report = write_report(run)
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(report))
    owed = r"\+100\.0 \(\+\d\d\.\d to \+100\.0, p < 0\.001\)"
    said = "Base (zero-shot): pictures changed (other, question): 0.0 % (0.0 – "
    printed = console.export_text()
    assert said in printed
    assert re.search(rf"owed to seeing the true ones: {owed}", printed)
    text = (run / "results.md").read_text()
    assert re.search(rf"\| Base \(zero-shot\) \| other, question \| 100\.0 % \| 0\.0 % \| [^|]+ \| {owed} \|", text)
    page = write_page(run, report).read_text()
    assert "<td>other, question</td>" in page
    assert "pictures changed (other, question)" in page
    assert [file.mode for file in RunFolder("run", run).files()] == ["greedy", "sampled", "control-other-question"]


def test_an_evaluation_whose_control_lost_answers_is_not_complete(looks: Looks, tmp_path: Path) -> None:
    write_questions(tmp_path)
    done = run_stage(tmp_path, control="grey")
    assert is_complete(done)
    (found,) = done.models["base"].controls
    done.models["base"].controls = [ControlFigures(control="grey", scope="all", n=5, accuracy=None, bounds=(0.0, 0.2))]
    assert found.bounds is None
    assert not is_complete(done)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"control": "other", "questions": 1}, "question 'q4' has no other question of its kind with another picture"),
        ({"control": "other", "questions": 2}, ""),
        ({"control": "grey"}, ""),
    ],
)
def test_pictures_that_cannot_be_changed_are_refused_before_anything_is_asked(
    settings: dict[str, Any], reason: str, looks: Looks, tmp_path: Path
) -> None:
    write_questions(tmp_path)
    (tmp_path / "job.yaml").write_text(manifest(**settings))
    parsed = parse_manifest(manifest(**settings))
    found = list(check_data(Plan(parsed, parsed.job(), tmp_path / "run", ["table"], data_folder=tmp_path)))
    if not reason:
        assert found == []
        return
    (problem,) = (one.problem for one in found)
    assert problem.path == "spec.stages[0].evaluate.control"
    assert reason in problem.message
    with pytest.raises(UserError, match=rf"table\.evaluate\.control: {reason}"):
        run_stage(tmp_path, **settings)
    assert looks.asked == []


def test_the_command_takes_what_a_manifest_takes() -> None:
    hints = get_type_hints(EVERY_COMMAND["eval"].function)
    assert hints["control"] == ControlKind | None
    assert hints["control_scope"] == ControlScope

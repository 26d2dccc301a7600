"""What a corrected manifest, or a file that it names, does to a run: which stages run again, and why."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from thinkimg.api import ToolRLJob, load_manifest
from thinkimg.api.v1alpha1.fields import declared_fields
from thinkimg.errors import UserError
from thinkimg.evaluation.scorers import RULES
from thinkimg.jobs.identity import CHANGES_NO_RESULT
from thinkimg.jobs.layout import IDENTITY, Run
from thinkimg.jobs.runner.plan import Planned, plan
from thinkimg.jobs.runner.replacing import forget, note_earlier, set_aside, set_others_aside, take_back
from thinkimg.jsonfile import write
from thinkimg.results import (
    BaseDone,
    Done,
    EvaluateDone,
    GRPODone,
    ModelFigures,
    RunMarker,
    SFTDone,
    StageIdentity,
    SynthesizeDone,
)

VERSION = "thinkimg.dev/v1alpha1"
TOOL = {"apiVersion": VERSION, "kind": "VisionTool", "metadata": {"name": "ocr"}}
TOOL |= {"spec": {"tool": "OCR", "backend": "rapidocr", "options": {"text": "plain"}}}
SPEC: dict[str, Any] = {
    "model": {"uri": "preset://tiny"},
    "tools": [{"name": "ocr"}],
    "data": {"train": {"uri": "train.jsonl"}, "test": {"uri": "test.jsonl"}},
    "stages": [
        {"name": "cold", "type": "Synthesize", "synthesize": {"trajectories": 4}},
        {"name": "sft", "type": "SFT", "sft": {"maxSteps": 4}},
        {"name": "rl", "type": "GRPO", "from": "sft", "grpo": {"maxSteps": 4, "rewards": [{"name": "format"}]}},
        {"name": "text", "type": "GRPO", "grpo": {"toolUse": "Disabled", "maxSteps": 4}},
        {"name": "table", "type": "Evaluate", "evaluate": {"models": ["base", "sft", "rl", "text"]}},
    ],
}
ALL = ("base", "cold", "sft", "rl", "text", "table")
DONE: dict[str, Done] = {
    "base": BaseDone(seconds=1), "cold": SynthesizeDone(seconds=2), "sft": SFTDone(seconds=3),
    "rl": GRPODone(seconds=4000), "text": GRPODone(seconds=5), "table": EvaluateDone(seconds=6),
}  # fmt: skip


class Folder:
    """A run that is finished, and its manifest."""

    def __init__(self, root: Path) -> None:
        self.root, self.run, self.manifest = root, Run(root / "run"), root / "job.yaml"
        self.spec, self.tool = copy.deepcopy(SPEC), copy.deepcopy(TOOL)
        (root / "pictures").mkdir()
        for split in ("train", "test"):
            (root / "pictures" / f"{split}.png").write_bytes(split.encode())
            row = {"question": "What?", "answer": "1", "image": f"pictures/{split}.png"}
            (root / f"{split}.jsonl").write_text(json.dumps(row))
        for one in self.planned():
            self.finish(one)
        write(self.run.marker, RunMarker(manifest="", job="job", seed=0))

    def finish(self, planned: Planned) -> None:
        folder = self.run.stage(planned.name)
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / IDENTITY, StageIdentity(made_of=planned.identity))
        self.run.finish(planned.name, DONE[planned.name])  # type: ignore[arg-type]

    def planned(self, seed: int = 0) -> list[Planned]:
        job = {"apiVersion": VERSION, "kind": "ToolRLJob", "metadata": {"name": "job"}, "spec": self.spec}
        self.manifest.write_text(yaml.safe_dump_all([self.tool, job]))
        loaded = load_manifest(self.manifest)
        return plan(self.run, loaded, loaded.job(), seed)

    def again(self, seed: int = 0) -> dict[str, str]:
        """Stages that would run again, with the reasons."""
        planned = self.planned(seed)
        assert all(one.action in ("again", "done") for one in planned)
        return {one.name: one.reason for one in planned if one.action == "again"}

    def block(self, name: str) -> dict[str, Any]:
        (stage,) = (stage for stage in self.spec["stages"] if stage["name"] == name)
        block: dict[str, Any] = stage[stage["type"].lower()]
        return block


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_scorer.py").write_text("def right(trajectory): return 0.0")
    return Folder(tmp_path)


Change = Callable[[Folder], object]
RESULTS: list[tuple[str, Change, tuple[str, ...], str]] = [
    ("a late learning rate", lambda f: f.block("rl").update(learningRate=2e-6), ("rl", "table"),
     "grpo.learningRate: the default → 2e-06"),
    ("an early length", lambda f: f.block("sft").update(maxSteps=5), ("sft", "rl", "table"), "sft.maxSteps: 4 → 5"),
    ("the planner", lambda f: f.block("cold").update(trajectories=5), ("cold", "sft", "rl", "table"),
     "synthesize.trajectories: 4 → 5"),
    ("a reward's weight", lambda f: f.block("rl").update(rewards=[{"name": "format", "weight": 2.0}]), ("rl", "table"),
     "grpo.rewards[format].weight: the default → 2.0"),
    ("TRL's argument", lambda f: f.block("text").update(args={"epsilon": 0.3}), ("text", "table"),
     "grpo.args.epsilon: the default → 0.3"),
    ("a model in the table", lambda f: f.block("table").update(models=["sft", "rl", "text"]), ("table",),
     "evaluate.models[base]: base → the default"),
    ("a tool's option", lambda f: f.tool["spec"].update(options={"text": "rows"}),
     ("base", "cold", "sft", "rl", "text", "table"), "tools[ocr].options.text: plain → rows"),
    ("the agent's words", lambda f: f.spec.update(agent={"prompt": "compact"}), ("cold", "sft", "rl", "text", "table"),
     "agent.prompt: the default → compact"),
    ("the scorer", lambda f: f.spec.update(scorer={"name": "exact"}), ("cold", "sft", "rl", "text", "table"),
     "scorer.name: the default → exact"),
    ("a stage's scorer", lambda f: f.spec["stages"][4].update(scorer={"name": "exact"}), ("table",),
     "scorer.name: the default → exact"),
    ("a line of the test data", lambda f: (f.root / "test.jsonl").write_text("{}"), ("table",),
     "data.test has another content"),
    ("a picture of the test data", lambda f: (f.root / "pictures" / "test.png").write_bytes(b"new"), ("table",),
     "data.test has another content"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "again", "reason"), [one[1:] for one in RESULTS], ids=[one[0] for one in RESULTS])
def test_only_what_depends_on_a_correction_runs_again(
    folder: Folder, change: Change, again: tuple[str, ...], reason: str
) -> None:
    assert folder.again() == {}
    change(folder)
    found = folder.again()
    assert tuple(found) == again
    assert reason in found[again[0]]


def test_a_scorer_of_ones_own_that_has_changed_judges_anew(folder: Folder) -> None:
    folder.spec["stages"][4]["scorer"] = {"name": "own_scorer:right"}
    for one in folder.planned():
        folder.finish(one)
    (folder.root / "own_scorer.py").write_text("def right(trajectory): return 1.0")
    assert folder.again() == {"table": "code.own_scorer has another content"}


def test_a_rule_of_another_version_is_only_applied_again(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "relaxed_normalised", replace(RULES["relaxed_normalised"], version="2"))
    assert folder.again() == {"table": "scorer.version: the default → 2"}
    (planned,) = (one for one in folder.planned() if one.name == "table")
    assert planned.fate == "would be judged anew, with all that was made"
    assert planned.keeps == ["base", "sft", "rl", "text"]


def test_trajectories_that_are_only_filtered_otherwise_are_kept(folder: Folder) -> None:
    made = folder.run.stage("cold") / "trajectories"
    (made / "images").mkdir(parents=True)
    (made / "images" / "a.png").write_bytes(b"picture")
    for name in ("cold-start.jsonl", "dropped.jsonl"):
        (made / name).write_text(name)
    folder.block("cold")["filters"] = {"minToolCalls": 1}
    (planned,) = (one for one in folder.planned() if one.name == "cold")
    assert planned.fate == "would be judged anew, with all that was made"
    set_aside(folder.run, planned)
    assert sorted(path.name for path in made.iterdir()) == ["cold-start.jsonl", "dropped.jsonl", "images"]
    folder.finish(planned)
    folder.block("cold")["trajectories"] = 9
    (planned,) = (one for one in folder.planned() if one.name == "cold")
    assert planned.fate == "would run again (it took 2.0 s)"
    set_aside(folder.run, planned)
    assert not made.exists()


NO_RESULTS: list[tuple[str, Change]] = [
    ("how many at once", lambda f: f.block("rl").update(concurrency=3, toolConcurrency=2)),
    ("a part of a step", lambda f: f.block("rl").update(microBatch=8)),
    ("a limit of time", lambda f: f.spec.update(agent={"maxSecondsPerTrajectory": 7})),
    ("reports", lambda f: f.spec.update(reportTo=["tensorboard"])),
    ("checkpoints", lambda f: f.spec.update(checkpoint={"everySteps": 7, "keep": 1})),
    ("resources", lambda f: f.spec["stages"][2].update(resources={"limits": {"cpu": "4"}})),
    ("processes", lambda f: f.spec["stages"][2].update(procsPerNode=2)),
    ("labels", lambda f: f.tool["metadata"].update(labels={"team": "blue"})),
    ("how failures are met", lambda f: f.spec.update(failurePolicy={"maxRestarts": 7})),
    ("how a training logs", lambda f: f.block("sft").update(args={"logging_steps": 5})),
    ("a tool's replicas", lambda f: f.tool["spec"].update(replicas=3, callTimeoutSeconds=5)),
    ("the scorer that is the default", lambda f: f.spec.update(scorer={"name": "relaxed_normalised"})),
    ("the scorer of a stage that does not ask", lambda f: f.spec["stages"][2].update(scorer={"name": "exact"})),
    ("what is the default", lambda f: f.block("rl").update(learningRate=1e-6)),
    ("the table's resamples", lambda f: f.block("table").update(bootstrap=500)),
    ("data that no stage uses", lambda f: f.spec["data"].update(validation={"uri": "test.jsonl"})),
]


@pytest.mark.parametrize("change", [one[1] for one in NO_RESULTS], ids=[one[0] for one in NO_RESULTS])
def test_what_changes_no_result_runs_nothing_again(folder: Folder, change: Change) -> None:
    change(folder)
    assert folder.again() == {}


def test_another_seed_is_another_run(folder: Folder) -> None:
    assert tuple(folder.again(seed=1)) == ALL


def test_a_stage_that_was_interrupted_goes_on_from_its_checkpoint(folder: Folder) -> None:
    stage = folder.run.stage("rl")
    (stage / "done.json").unlink()
    (stage / "attempt").write_text("1\n")
    (stage / "checkpoint-50").mkdir()
    (stage / "checkpoint-50" / "complete.json").write_text(json.dumps({"step": 50, "processes": 1}))
    fates = {one.name: one.fate for one in folder.planned()}
    assert fates["rl"] == "would go on from step 50"
    (stage / "checkpoint-50" / "global_step50").mkdir()
    folder.spec["stages"][2]["procsPerNode"] = 2
    with pytest.raises(UserError, match="was saved by 1 processes"):
        folder.planned()


def test_a_run_of_another_job_is_refused(folder: Folder) -> None:
    write(folder.run.marker, RunMarker(manifest="", job="mine", seed=0))
    with pytest.raises(UserError, match="this folder holds a run of another job, mine"):
        folder.planned()


def test_what_is_replaced_stands_aside_and_is_taken_back_when_the_correction_is(folder: Folder) -> None:
    (folder.run.stage("rl") / "model").mkdir()
    folder.block("rl")["learningRate"] = 2e-6
    (planned,) = (one for one in folder.planned() if one.name == "rl")
    assert planned.fate == "would run again (it took 1 h 06 min)"
    set_aside(folder.run, planned)
    (folder.run.stage("rl") / "attempt").write_text("1\n")
    assert {one.name: one.action for one in folder.planned()}["rl"] == "go on"

    del folder.block("rl")["learningRate"]
    assert {one.name: one.action for one in folder.planned()}["rl"] == "take back"
    take_back(folder.run, "rl")
    assert (folder.run.stage("rl") / "model").is_dir()
    assert folder.again() == {}
    forget(folder.run, "rl")
    assert not folder.run.replaced("rl").exists()


def test_answers_of_models_that_have_not_changed_are_kept(folder: Folder) -> None:
    for model in ("base", "rl"):
        (folder.run.stage("table") / model / "images").mkdir(parents=True)
        (folder.run.stage("table") / model / "greedy.jsonl").write_text(model)
        (folder.run.stage("table") / model / "images" / "a.png").write_bytes(b"picture")
    folder.block("rl")["learningRate"] = 2e-6
    (planned,) = (one for one in folder.planned() if one.name == "table")
    set_aside(folder.run, planned)
    assert sorted(path.name for path in folder.run.stage("table").iterdir()) == ["base", "identity.json"]
    assert (folder.run.stage("table") / "base" / "images" / "a.png").read_bytes() == b"picture"
    folder.finish(planned)
    folder.block("table")["questions"] = 3
    (planned,) = (one for one in folder.planned() if one.name == "table")
    set_aside(folder.run, planned)
    assert sorted(path.name for path in folder.run.stage("table").iterdir()) == ["identity.json"]


def test_another_control_asks_no_question_with_its_true_picture_again(folder: Folder) -> None:
    answers = folder.run.stage("table") / "base"
    answers.mkdir(parents=True)
    for name in ("greedy", "sampled", "control-grey-question"):
        (answers / f"{name}.jsonl").write_text(name)
    folder.block("table").update(control="other", controlScope="all")
    (planned,) = (one for one in folder.planned() if one.name == "table")
    assert planned.reason == "evaluate.control: the default → other; evaluate.controlScope: the default → all"
    set_aside(folder.run, planned)
    assert sorted(path.name for path in answers.iterdir()) == ["greedy.jsonl", "sampled.jsonl"]
    folder.finish(planned)
    del folder.block("table")["control"], folder.block("table")["controlScope"]
    assert {one.name: one.action for one in folder.planned()}["table"] == "take back"


def test_a_stage_that_the_manifest_has_no_longer_is_set_aside(folder: Folder) -> None:
    assert set_others_aside(folder.run, [name for name in ALL if name != "text"]) == ["text"]
    assert (folder.run.replaced("text") / "done.json").exists()


def test_fields_that_change_no_result_exist() -> None:
    known = {field.path.removeprefix("spec.stages[].").removeprefix("spec.") for field in declared_fields(ToolRLJob)}
    assert set(CHANGES_NO_RESULT) - known == set()
    assert all(reason.endswith(".") for reason in CHANGES_NO_RESULT.values())


def test_an_evaluation_that_lost_answers_goes_on(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    incomplete = ModelFigures(n=9, infrastructure=1, bounds=(0.5, 0.6))
    folder.run.finish("table", EvaluateDone(seconds=6, models={"sft": incomplete}))
    assert [(one.name, one.action) for one in folder.planned() if one.action != "done"] == [("table", "go on")]


def test_a_stage_comes_from_the_one_whose_tokens_it_has(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    longer = {"name": "longer", "type": "SFT", "from": "sft", "sft": {"maxTokens": {"fromStage": "rl"}}}
    folder.spec["stages"].insert(4, longer)
    (before,) = (one.identity for one in folder.planned() if one.name == "longer")
    folder.block("rl").update(learningRate=3e-6)
    (after,) = (one.identity for one in folder.planned() if one.name == "longer")
    assert before != after


def test_what_an_earlier_version_made_is_noted_before_the_manifest_is_written_anew(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.planned()  # writes the manifest as it was
    folder.run.manifest.write_bytes(folder.manifest.read_bytes())
    write(folder.run.marker, RunMarker(manifest="", job="job", seed=0, folder=str(tmp_path)))
    for name in ALL:
        (folder.run.stage(name) / IDENTITY).unlink()
    folder.block("rl").update(learningRate=3e-6)
    planned = folder.planned()
    for one in planned:
        note_earlier(folder.run, one)
    folder.run.manifest.write_bytes(folder.manifest.read_bytes())  # and the run is killed
    assert list(folder.again()) == ["rl", "table"]

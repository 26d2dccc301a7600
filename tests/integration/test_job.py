"""The main path through the real command: one job, stopped twice on its way and gone on with, then read, exported and
asked. One run serves all tests of this file: what costs is starting its stages."""

import io
import json
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as Pillow
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.support.jobs.small_job import DEMO, Started, gone, small_documents, stage_processes, thinkimg, write_manifest
from thinkimg.agent.formats import get_format
from thinkimg.api.v1alpha1 import load_manifest
from thinkimg.cli import main
from thinkimg.data.questions import load_questions
from thinkimg.jobs.layout import Run
from thinkimg.jobs.stages import tiny_preset
from thinkimg.results import BaseDone
from thinkimg.tools.registry import TOOLS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
STAGES = ("cold-start", "text-sft", "sft", "text-rl", "v-toolrl", "sft-long", "table")


@dataclass
class Journey:
    """What happened on the way."""

    run: Run
    manifest: Path
    processes: Counter[str] = field(default_factory=Counter)
    """Most processes that each stage had at one time."""
    codes: dict[str, int] = field(default_factory=dict)
    output: dict[str, str] = field(default_factory=dict)
    clean: dict[str, bool] = field(default_factory=dict)
    """Whether no process of the run was left."""
    finished: dict[str, dict[str, int]] = field(default_factory=dict)
    """Time at which each finished stage was marked."""
    last_words: str = ""

    def note(self, event: str, code: int, output: str) -> None:
        self.codes[event], self.output[event] = code, " ".join(output.split())
        self.clean[event] = gone(self.run.path)
        done = sorted(self.run.path.glob("stages/*/done.json"))
        self.finished[event] = {path.parent.name: path.stat().st_mtime_ns for path in done}

    def in_cold_start(self) -> bool:
        """Whether the first stage has a process; processes are counted."""
        self.processes |= stage_processes(self.run.path)
        return self.processes["cold-start"] > 0

    def in_rl(self) -> bool:
        """Whether V-ToolRL has made a step; on the way there processes are counted."""
        self.processes |= stage_processes(self.run.path)
        log = self.run.stage("v-toolrl") / "log.jsonl"
        return log.exists() and log.stat().st_size > 0


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    folder = tmp_path_factory.mktemp("job")
    trip = Journey(Run(folder / "run"), write_manifest(folder / "job.yaml", small_documents()))
    arguments = ("run", trip.manifest, "--run", trip.run.path)
    log = folder / "log"
    make_base(trip)
    started = Started(log, *arguments)
    try:
        started.wait_until(trip.in_cold_start)
        second = Started(folder / "second", *arguments)
        started.wait_until(trip.in_rl)
        code = started.signal_group(signal.SIGINT)
        trip.note("Ctrl-C", code, log.read_text())
        trip.codes["second"], trip.output["second"] = second.finish(), " ".join(second.log.read_text().split())

        shutil.rmtree(trip.run.stage("v-toolrl"))  # so that a step can only be one of the next attempt
        started = Started(log, *arguments)
        started.wait_until(trip.in_rl)
        trip.note("kill -9", started.signal_group(signal.SIGKILL), log.read_text())

        words = folder / "termination-log"
        started = Started(log, *arguments, THINKIMG_TERMINATION_LOG=str(words))
        trip.note("end", started.finish(), log.read_text())
        trip.last_words = words.read_text()
    finally:
        started.stop()
    return trip


def make_base(trip: Journey) -> None:
    """A base that has hardly been trained, marked as finished: pre-training is a matter of minutes."""
    spec = load_manifest(trip.manifest).job().spec
    tools = load_manifest(trip.manifest).tools
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_preset, "STEPS", 2)
        patch.setattr(tiny_preset, "BATCH", 4)
        schemas = [TOOLS[tools[tool.name].spec.tool].schema for tool in spec.tools]
        tiny_preset.build_base(
            trip.run.base, spec.seed, schemas, get_format(spec.agent.format), lambda step, loss: None
        )
    trip.run.finish("base", BaseDone(seconds=1.0))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


# ---- the way ---------------------------------------------------------------------------------------------------------


def test_it_ends_with_every_stage_finished(journey: Journey) -> None:
    assert journey.codes["end"] == 0, journey.output["end"]
    assert tuple(sorted(journey.finished["end"])) == tuple(sorted(STAGES))
    assert journey.clean["end"]


def test_sft_ran_in_two_processes_and_the_others_in_one(journey: Journey) -> None:
    assert {name: journey.processes[name] for name in ("cold-start", "text-sft", "sft", "text-rl", "v-toolrl")} == {
        "cold-start": 1, "text-sft": 1, "sft": 2, "text-rl": 1, "v-toolrl": 1,
    }  # fmt: skip


def test_ctrl_c_ends_it_with_75_and_a_word(journey: Journey) -> None:
    assert journey.codes["Ctrl-C"] == 75
    assert journey.output["Ctrl-C"].endswith("interrupted; run the same command again to go on")
    assert journey.clean["Ctrl-C"]
    assert set(journey.finished["Ctrl-C"]) == {"cold-start", "text-sft", "sft", "text-rl"}


def test_kill_9_leaves_no_process(journey: Journey) -> None:
    assert journey.codes["kill -9"] == -signal.SIGKILL
    assert journey.clean["kill -9"]


def test_started_again_it_goes_on_at_the_interrupted_stage(journey: Journey) -> None:
    before, after = journey.finished["Ctrl-C"], journey.finished["end"]
    assert journey.finished["kill -9"] == before
    assert {name: after[name] for name in before} == before
    assert "going on with v-toolrl: 5 stages are done" in journey.output["end"]


def test_a_second_run_of_the_same_folder_at_the_same_time_is_refused(journey: Journey) -> None:
    assert journey.codes["second"] == 2
    assert f"--run {journey.run.path}: another process is working on this run" in journey.output["second"]


def test_a_finished_run_says_so_and_does_nothing(journey: Journey) -> None:
    again = thinkimg("run", journey.manifest, "--run", journey.run.path)
    assert again.returncode == 0
    assert "this run is finished: see" in again.stderr
    times = {path.parent.name: path.stat().st_mtime_ns for path in journey.run.path.glob("stages/*/done.json")}
    assert times == journey.finished["end"]


def test_another_job_is_refused_in_the_same_folder(journey: Journey, tmp_path: Path) -> None:
    documents = small_documents()
    documents[-1]["metadata"]["name"] = "other"
    other = write_manifest(tmp_path / "other.yaml", documents)
    refused = thinkimg("run", other, "--run", journey.run.path)
    assert refused.returncode == 2
    assert "this folder holds a run of another job, demo" in refused.stderr
    assert (journey.run.path / "results.json").exists()


# ---- what it leaves --------------------------------------------------------------------------------------------------


def test_results_have_the_documented_shape(journey: Journey) -> None:
    results = read(journey.run.path / "results.json")
    assert set(results["models"]) == {"base", "text-sft", "text-rl", "sft", "sft-long", "v-toolrl"}
    for entry in results["models"].values():
        low, high = entry["ci95"]
        assert 0 <= low <= entry["accuracy"] <= high <= 1
        assert 0 <= entry["accuracy_sampled"] <= 1
        assert entry["n"] == 10
        assert entry["tool_calls_per_answer"] >= 0
    assert {"OCR", "ZoominSubplot", "Point", "DrawHorizontalLineByY", "Crop"} >= set(results["tools"]) - {"(unknown)"}
    for counted in results["tools"].values():
        assert {"http_calls", "errors", "cache_hits", "p50_ms", "p95_ms"} <= set(counted)
        assert set(counted["errors"]) == {"model", "infrastructure"}
    assert results["tools"]["OCR"]["http_calls"] > 0
    assert set(results["seconds"]) == {"base", *STAGES}


def test_the_page_the_plots_and_the_table_exist(journey: Journey) -> None:
    assert "V-ToolRL" in (journey.run.path / "results.md").read_text()
    assert (journey.run.path / "report.html").stat().st_size > 10_000
    assert list((journey.run.path / "plots").glob("*.png"))


def test_the_last_words_are_the_table_in_one_line(journey: Journey) -> None:
    assert journey.last_words.count("\n") == 1
    assert len(journey.last_words.encode()) <= 4096
    words = json.loads(journey.last_words)
    assert (words["stage"], words["state"]) == ("table", "Succeeded")
    assert [row["model"] for row in words["results"]] == ["base", "text-sft", "text-rl", "sft", "sft-long", "v-toolrl"]
    assert all(isinstance(row["accuracy"], str) and len(row["ci95"]) == 2 for row in words["results"])


def test_an_exported_model_works_in_plain_transformers(journey: Journey, tmp_path: Path) -> None:
    done = thinkimg("export", journey.run.path / "v-toolrl", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    assert "V-ToolRL" in (tmp_path / "model" / "README.md").read_text()
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    content = [{"type": "image"}, {"type": "text", "text": "Which bar is tallest?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=[text], images=[Pillow.new("RGB", (320, 240), "white")], return_tensors="pt")
    with torch.no_grad():
        made = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert made.shape[1] > inputs["input_ids"].shape[1]


def test_the_trained_model_is_asked_about_a_picture(journey: Journey, tmp_path: Path) -> None:
    (example,) = load_questions("charts://?questions=1&difficulty=1", "test", 5)
    picture = tmp_path / "chart.png"
    picture.write_bytes(example.images[0].data)
    done = thinkimg("ask", example.question, "--model", journey.run.path / "v-toolrl", "--image", picture)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


# ---- bad input -------------------------------------------------------------------------------------------------------


Change = Callable[[dict[str, Any]], object]
SPOILT: list[tuple[str, Change, str]] = [
    ("an unknown field", lambda spec: spec["stages"][1]["sft"].update(batchsize=4), "spec.stages[1].sft.batchsize"),
    ("a wrong type", lambda spec: spec["stages"][1]["sft"].update(maxSteps="5"), "spec.stages[1].sft.maxSteps"),
    ("an unknown tool", lambda spec: spec["tools"].append({"name": "ocrr"}), "spec.tools[5].name"),
    ("a later stage", lambda spec: spec["stages"][3].update({"from": "v-toolrl"}), "spec.stages[3].from"),
    ("a missing data file", lambda spec: spec["data"]["test"].update(uri="no/test.jsonl"), "spec.data.test.uri"),
    ("a broken picture", lambda spec: spec["data"]["test"].update(uri="cut/test.jsonl"), "spec.data.test.uri"),
    ("a huge picture", lambda spec: spec["data"]["test"].update(uri="huge/test.jsonl"), "spec.data.test.uri"),
    (
        "an unknown chain",
        lambda spec: spec["stages"][0]["synthesize"]["planner"]["chains"].update(ocr2=1),
        "planner.chains.ocr2",
    ),
    ("secrets nowhere", lambda spec: spec.update(secretRefs=[{"name": "hub"}]), "spec.secretRefs[0]"),
]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command in this process, which must end with 2 and start nothing but its own checks; what it said."""
    start = subprocess.Popen.__init__

    def no_process(process: Any, command: Any, *options: Any, **named: Any) -> None:
        assert "thinkimg.jobs.preflight" in command, "a process was started"
        start(process, command, *options, **named)

    def run(*arguments: object) -> str:
        monkeypatch.setattr(subprocess.Popen, "__init__", no_process)
        monkeypatch.setattr("sys.argv", ["thinkimg", *map(str, arguments)])
        handler = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            signal.signal(signal.SIGTERM, handler)
        said = capsys.readouterr().err
        assert ended.value.code == 2, said
        assert "Traceback" not in said
        return said

    return run


def jpeg(side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Pillow.linear_gradient("L").resize((side, side)).save(buffer, "JPEG")
    return buffer.getvalue()


@cache
def huge() -> bytes:
    """A picture of 400 million pixels in a few hundred kilobytes."""
    buffer = io.BytesIO()
    Pillow.new("1", (20_000, 20_000)).save(buffer, "PNG")
    return buffer.getvalue()


def questions(folder: Path, picture: bytes) -> None:
    folder.mkdir()
    (folder / "picture").write_bytes(picture)
    (folder / "test.jsonl").write_text(json.dumps({"question": "What?", "answer": "1", "image": "picture"}))


@pytest.mark.parametrize(("change", "field"), [case[1:] for case in SPOILT], ids=[case[0] for case in SPOILT])
def test_a_bad_manifest_is_refused_before_anything_starts(
    refused: Callable[..., str], tmp_path: Path, change: Change, field: str
) -> None:
    questions(tmp_path / "cut", jpeg()[:400])
    questions(tmp_path / "huge", huge())
    documents = small_documents()
    change(documents[-1]["spec"])
    manifest = write_manifest(tmp_path / "job.yaml", documents)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("still here")
    assert field in refused("run", manifest, "--run", tmp_path / "run")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left - {"lock", "stages.lock"} == {"mine.txt"}


def test_a_missing_manifest_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "no.yaml" in refused("run", tmp_path / "no.yaml", "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_wrong_use_of_the_command_is_refused(refused: Callable[..., str]) -> None:
    assert "--runn" in refused("run", DEMO, "--runn", "x")


def test_an_unknown_stage_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "v-tool" in refused("stage", DEMO, "v-tool", "--run", tmp_path)


@pytest.mark.parametrize("picture", [b"not a picture", jpeg()[:400], huge()], ids=["text", "truncated", "huge"])
def test_a_bad_picture_is_refused_when_asking(
    refused: Callable[..., str], journey: Journey, tmp_path: Path, picture: bytes
) -> None:
    (tmp_path / "picture").write_bytes(picture)
    said = refused("ask", "What?", "--model", journey.run.path / "v-toolrl", "--image", tmp_path / "picture")
    assert str(tmp_path / "picture") in said


def test_asking_a_model_that_is_not_there_names_those_that_are(
    refused: Callable[..., str], journey: Journey, tmp_path: Path
) -> None:
    said = refused("ask", "What?", "--model", journey.run.path / "v-tool", "--image", tmp_path / "any.png")
    assert "there is no trained model" in said
    assert "v-toolrl" in said

"""Questions of two and three pictures, with columns of their own, through every stage: synthesis, SFT with tools and
without, GRPO, evaluation. Each sees all pictures where the question has them, and the job's own system prompt."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.support import REPOSITORY
from tests.support.training.scripted_agent import World, picture
from thinkimg.agent.formats import Call, OpenThinkIMG, Parsed
from thinkimg.api import parse_manifest
from thinkimg.image import Image
from thinkimg.jobs.layout import Run
from thinkimg.jobs.runner.ports import free_port
from thinkimg.jobs.stages import sft
from thinkimg.jobs.stages.context import Context
from thinkimg.jobs.stages.stage import run_stage
from thinkimg.models import tiny
from thinkimg.models.chat import Reply
from thinkimg.tools.registry import find_tool
from thinkimg.tools.tool import ToolResult
from thinkimg.training.collator import Sample
from thinkimg.trajectory import Trajectory, read_trajectories

PLACED = "Is <image> taller than <image>?"
SYSTEM = "You compare pictures."
VERSION = "thinkimg.dev/v1alpha1"


def near_the_box(trajectory: Trajectory) -> float:
    """A reward that reads the row's column `bbox`."""
    return (sum(trajectory.tokens) % int(trajectory.meta["bbox"][2])) / 100


class Planner:
    """Stands for the endpoint's model: looks at the second picture, then knows the answer."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    async def reply(self, trajectory: Trajectory, *_: Any) -> Reply:
        if trajectory.rounds == 0:
            return Reply(OpenThinkIMG().write(Parsed("see", (Call("Crop", {"image": "img_2"}),))), "stop")
        return Reply(OpenThinkIMG().write(Parsed("", answer=trajectory.reference or "")), "stop")


class Tools:
    """Crop, in this process; notes how many pictures it was given."""

    def __init__(self) -> None:
        self.schemas = {"Crop": find_tool("Crop").schema}
        self.handles: list[list[str]] = []

    async def connect(self) -> None: ...

    async def close(self) -> None: ...

    def stats(self) -> dict[str, Any]:
        return {}

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Any:
        self.handles.append(list(images))
        return SimpleNamespace(result=ToolResult("cut", {"box": [0, 0, 50, 50]}, (images["img_2"],)), cached=False)


def manifest(models: tuple[str, ...] = ("rl", "plain"), procs: int = 1) -> str:
    tool = {"apiVersion": VERSION, "kind": "VisionTool", "metadata": {"name": "crop"}, "spec": {"tool": "Crop"}}
    planner = {"type": "Model", "model": {"baseUrl": "http://planner/v1", "name": "planner"}}
    reward = {"name": "tests.training.test_several_pictures:near_the_box"}
    grpo = {"maxSteps": 2, "promptsPerStep": 2, "numGenerations": 2, "learningRate": 1e-3, "rewards": [reward]}
    short = {"maxSteps": 1, "batchSize": 2}
    spec = {
        "model": {"uri": "preset://tiny"},
        "tools": [{"name": "crop"}],
        "data": {split: {"uri": "rows.jsonl", "template": "{question} {hint}"} for split in ("train", "test")},
        "agent": {"prompt": "compact", "systemPrompt": SYSTEM, "maxRounds": 2, "maxTokensPerTurn": 6},
        "stages": [
            {"name": "cold", "type": "Synthesize", "synthesize": {"trajectories": 4, "planner": planner}},
            {"name": "sft", "type": "SFT", "sft": {**short, "gate": {"minSampledAccuracy": 0.0, "questions": 2}}},
            {"name": "plain", "type": "SFT", "sft": {**short, "toolUse": "Disabled"}},
            {"name": "rl", "type": "GRPO", "from": "sft", "grpo": grpo},
            {"name": "table", "type": "Evaluate", "procsPerNode": procs, "evaluate": {"models": list(models)}},
        ],
    }
    job = {"apiVersion": VERSION, "kind": "ToolRLJob", "metadata": {"name": "several"}, "spec": spec}
    return yaml.safe_dump_all([tool, job])


def write_rows(folder: Path) -> list[list[str]]:
    """Four questions, of two and three pictures; the SHA-256 of each one's pictures."""
    lines, shown = [], []
    for number in range(4):
        images = [picture(10 * number + k) for k in range(2 + number % 2)]
        for image in images:
            (folder / f"{image.sha256}.png").write_bytes(image.data)
        question = PLACED if len(images) == 2 else "Which is red?"
        row = {"id": f"q{number}", "question": question, "answer": str(number), "bbox": [0, 0, 97 - number, 50]}
        lines.append({**row, "hint": f"Say {number}.", "images": [f"{image.sha256}.png" for image in images]})
        shown.append([image.sha256 for image in images])
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return shown


class Journey:
    """All stages, run one after another in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shown = folder, write_rows(folder)
        world = World()
        self.run = Run(folder / "run")
        tiny.save(self.run.base, world.model, world.processor)
        job = parse_manifest(manifest()).job()
        self.context = Context(job, self.run, ["Crop"], ["http://tools"], data_folder=folder)
        self.tools = Tools()
        self.learnt: list[list[Sample]] = []
        train_sft = sft.train_sft

        def noted(model: Any, samples: list[Sample], *rest: Any) -> float:
            self.learnt.append(samples)
            return train_sft(model, samples, *rest)

        with (
            patch("thinkimg.models.api.ApiModel", Planner),
            patch.object(Context, "client", lambda _: self.tools),
            patch.object(sft, "train_sft", noted),
        ):
            for stage in job.spec.stages:
                run_stage(self.context, stage.name)

    def trajectories(self, stage: str, pattern: str) -> Iterator[Trajectory]:
        files = sorted(self.run.stage(stage).glob(pattern))
        assert files, f"{stage} has no {pattern}"
        for file in files:
            yield from read_trajectories(file)


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    torch.set_num_threads(1)
    return Journey(tmp_path_factory.mktemp("several"))


STAGES = [("cold", "trajectories/cold-start.jsonl"), ("sft", "gate-1.jsonl"), ("rl", "trajectories/*.jsonl")]
EVALUATED = [("table", f"{model}/{mode}.jsonl") for model in ("rl", "plain") for mode in ("greedy", "sampled")]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "files"), [*STAGES, *EVALUATED])
def test_every_stage_asks_with_all_pictures_in_their_places(journey: Journey, stage: str, files: str) -> None:
    count = 0
    for made in journey.trajectories(stage, files):
        count += 1
        system, user = made.turns[0].message, made.turns[1].message
        tools = "" if "plain" in files else "\n\nTools: Crop(image, box)"
        assert system.text == f"{SYSTEM}{tools}"
        asked = int(str(made.meta["question_id"])[1:])
        assert [made.images[name].sha256 for name in user.images] == journey.shown[asked]
        kinds = [block.type for block in user.content]
        placed = ["text", "image", "text", "image", "text"]
        assert kinds == (placed if len(user.images) == 2 else ["image", "image", "image", "text"])
        assert user.text.endswith(f"Say {asked}."), "the template's column"
        assert made.meta["bbox"] == [0, 0, 97 - asked, 50]
    assert count >= 2


@pytest.mark.slow
def test_sft_learns_all_pictures_with_tools_and_without(journey: Journey) -> None:
    with_tools, without = journey.learnt
    assert sorted(len(sample.images) for sample in with_tools) == [3, 3, 4, 4], "and the tool's"
    assert sorted(len(sample.images) for sample in without) == [2, 2, 3, 3]
    assert {tuple(image.sha256 for image in sample.images) for sample in without} == set(map(tuple, journey.shown))


@pytest.mark.slow
def test_a_reward_that_reads_a_column_trains(journey: Journey) -> None:
    rewards = [one.rewards for one in journey.trajectories("rl", "trajectories/*.jsonl")]
    assert len({round(value, 6) for given in rewards for value in given.values()}) > 2
    before, after = (load_file(journey.run.model(name) / "model.safetensors") for name in ("sft", "rl"))
    assert any(not torch.equal(before[name], after[name]) for name in before), "nothing was learnt"


@pytest.mark.slow
def test_the_tools_are_given_every_picture(journey: Journey) -> None:
    assert {tuple(handles) for handles in journey.tools.handles} >= {("img_1", "img_2"), ("img_1", "img_2", "img_3")}


@pytest.mark.slow
def test_two_processes_evaluate_as_one_does(journey: Journey, tmp_path: Path) -> None:
    for name in ("rl", "plain", "sft"):
        shutil.copytree(journey.run.model(name), tmp_path / "run" / "stages" / name / "model")
    for file in journey.folder.glob("*.*"):
        shutil.copy(file, tmp_path)
    (tmp_path / "job.yaml").write_text(manifest(("plain",), 2))
    command = [sys.executable, "-m", "thinkimg.cli", "stage", "job.yaml", "table", "--run", "run"]
    port = str(free_port())
    ranks = [
        subprocess.Popen(command, cwd=tmp_path, env=environment(rank, port), stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=600)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(text[-2000:] for text in said)
    for mode in ("greedy", "sampled"):
        one, two = (
            [told(made) for made in read_trajectories(run.stage("table") / "plain" / f"{mode}.jsonl")]
            for run in (journey.run, Run(tmp_path / "run"))
        )
        assert two == one
        assert len(one) == 4


def environment(rank: int, port: str) -> dict[str, str]:
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": str(REPOSITORY)}
    return {**os.environ, **ranks, **where, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def told(made: Trajectory) -> tuple[Any, ...]:
    return made.id, made.answer, made.tokens, made.rewards, made.correct, made.meta["question_id"]


def test_a_failure_of_one_process_is_raised_in_all(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.support.jobs.failing_rank", tmp_path],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=1700,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = [(tmp_path / f"rank-{rank}").read_text() for rank in range(2)]
    assert said[0] == "InfrastructureError: process 1 failed: the tools are gone"
    assert said[1] == "InfrastructureError: the tools are gone"

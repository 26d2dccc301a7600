"""Checkpoints that a later attempt can trust, and a stage that goes on from them: interrupted, superseded, finished."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.support.training.scripted_agent import World, picture
from thinkimg.api import SFT
from thinkimg.errors import UserError
from thinkimg.jobs.runner.ports import free_port
from thinkimg.message import ImageBlock, TextBlock
from thinkimg.training.checkpoints import (
    CheckpointCallback,
    asked_to_end,
    check_processes,
    complete_checkpoints,
    mark_of,
    newest_checkpoint,
    remove_checkpoints,
)
from thinkimg.training.collator import encode_samples
from thinkimg.training.session import Session
from thinkimg.training.sft import train_sft
from thinkimg.trajectory import Trajectory, write_trajectories


def trajectories(count: int) -> list[Trajectory]:
    made = []
    for number in range(count):
        trajectory = Trajectory(question="what is the value of the bar", status="answered", answer=f"answer {number}")
        shown = trajectory.add_image(picture(number))
        trajectory.add("user", ImageBlock(handle=shown), TextBlock(text="what is the value of the bar"))
        trajectory.add("assistant", TextBlock(text=f"answer {number}"))
        made.append(trajectory)
    return made


class Interrupted:
    """Asked to end after so many steps."""

    def __init__(self, steps: int | None) -> None:
        self.steps = steps
        self.looked = 0

    def __call__(self) -> bool:
        self.looked += 1
        return self.looked == self.steps


def train(folder: Path, *, interrupt_after: int | None = None, **options: Any) -> tuple[World, CheckpointCallback]:
    torch.set_num_threads(1)
    world = World()
    samples, _ = encode_samples(world.family, trajectories(6))
    here = {"bf16": False, "gradient_checkpointing": False, "logging_steps": 1}
    spec = SFT(learning_rate=3e-3, batch_size=2, max_steps=8, args=here)
    callback = CheckpointCallback(keep=2, asked=Interrupted(interrupt_after), **options)
    session = Session(folder, save_every=3, resume_from=newest_checkpoint(folder), callbacks=[callback])
    train_sft(world.loaded, samples, spec, session)
    return world, callback


def weights(world: World) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in world.model.parameters()])


def test_a_resumed_training_ends_with_the_weights_of_one_that_was_not_interrupted(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole")
    _, callback = train(tmp_path / "cut", interrupt_after=5)
    assert callback.ended
    assert newest_checkpoint(tmp_path / "cut") == tmp_path / "cut" / "checkpoint-5"
    resumed, callback = train(tmp_path / "cut")
    assert not callback.ended
    assert torch.equal(weights(resumed), weights(whole))
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_training_that_was_finished_makes_no_further_step(tmp_path: Path) -> None:
    """Its last checkpoint is there, and what came after it (a gate, the model's saving) was interrupted."""
    whole, _ = train(tmp_path)
    log = (tmp_path / "log.jsonl").read_text()
    last = newest_checkpoint(tmp_path)
    assert last == tmp_path / "checkpoint-8"
    assert mark_of(last).finished
    again, callback = train(tmp_path)
    assert torch.equal(weights(again), weights(whole))
    assert (tmp_path / "log.jsonl").read_text() == log
    assert not callback.ended


def test_another_number_of_processes_is_refused_where_each_keeps_its_part(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-5"
    (checkpoint / "global_step5").mkdir(parents=True)
    (checkpoint / "complete.json").write_text(json.dumps({"step": 5, "processes": 2}))
    check_processes(checkpoint, 2)
    with pytest.raises(UserError, match=r"procsPerNode: .* was saved by 2 processes, and with ZeRO"):
        check_processes(checkpoint, 4)
    (checkpoint / "global_step5").rmdir()
    check_processes(checkpoint, 4)


def test_only_the_newest_are_kept_and_each_is_announced_when_it_is_complete(tmp_path: Path) -> None:
    announced: list[tuple[int, list[str]]] = []

    def saved(step: int, folder: Path) -> None:
        assert (folder / "trainer_state.json").exists()
        announced.append((step, [path.name for path in complete_checkpoints(tmp_path)]))

    train(tmp_path, saved=saved)
    assert announced == [
        (3, ["checkpoint-3"]),
        (6, ["checkpoint-3", "checkpoint-6"]),
        (8, ["checkpoint-6", "checkpoint-8"]),
    ]
    remove_checkpoints(tmp_path)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_who_may_not_save_does_not_begin_to(tmp_path: Path) -> None:
    class Superseded(Exception):
        pass

    def refuse() -> None:
        raise Superseded

    with pytest.raises(Superseded):
        train(tmp_path, may_save=refuse)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_checkpoint_without_its_mark_is_none(tmp_path: Path) -> None:
    for step in (9, 10, 200):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert newest_checkpoint(tmp_path) is None
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}" / "complete.json").write_text("{}")
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_the_first_sigterm_asks_and_the_second_does_what_it_did_before() -> None:
    class Ended(Exception):
        pass

    def end(*_: Any) -> None:
        raise Ended

    before = signal.signal(signal.SIGTERM, end)
    try:
        with asked_to_end() as asked:
            assert not asked()
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked()
            with pytest.raises(Ended):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)


# ---- a stage as its pods run it --------------------------------------------------------------------------------------


class Storage:
    """What a pod has mounted: the manifest, the storage, a claim with the base model."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stage = root / "storage" / "runs" / "job" / "stages" / "sft"
        self.words = root / "termination-log"
        world, base = World(), root / "claims" / "models" / "base"
        world.model.save_pretrained(base)
        world.processor.save_pretrained(base)
        write_trajectories(trajectories(8), root / "storage" / "mine.jsonl")
        spec = {
            "model": {"uri": "pvc://models/base"},
            "data": {"train": {"uri": "mine.jsonl"}},
            "checkpoint": {"everySteps": 5, "keep": 2},
            "stages": [
                {"name": "sft", "type": "SFT", "sft": {"maxSteps": 120, "batchSize": 2, "args": {"bf16": False}}}
            ],
        }
        job = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "ToolRLJob", "metadata": {"name": "job"}, "spec": spec}
        (root / "manifest.yaml").write_text(yaml.safe_dump(job))

    @contextmanager
    def attempt(self, number: int, most_bytes: int = -1, **more: str) -> Iterator[subprocess.Popen[str]]:
        """The stage's process. `most_bytes` is what a file may have there: a disk that is full, without privileges."""
        storage = self.root / "storage"
        command = [sys.executable, "-m", "thinkimg.cli", "stage", str(self.root / "manifest.yaml"), "sft"]
        variables = {
            "THINKIMG_ATTEMPT": str(number),
            "THINKIMG_CLAIMS": str(self.root / "claims"),
            "THINKIMG_TERMINATION_LOG": str(self.words),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            **more,
        }

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

        process = subprocess.Popen(
            [*command, "--run", str(storage / "runs" / "job"), "--data-folder", str(storage)],
            env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True,
            preexec_fn=limit,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def said(self) -> dict[str, Any]:
        words: dict[str, Any] = json.loads(self.words.read_text())
        return words


def until_checkpoint(process: subprocess.Popen[str]) -> tuple[list[str], int]:
    """Read the log until it speaks of a checkpoint: messages on the way, and the checkpoint's step."""
    messages = []
    assert process.stdout is not None
    for line in process.stdout:
        if not line.startswith('{"'):  # the trainer prints its own lines too
            continue
        record = json.loads(line)
        if "checkpoint" in record:
            assert record["checkpoint"]["path"] == f"runs/job/stages/sft/checkpoint-{record['checkpoint']['step']}"
            return messages, record["checkpoint"]["step"]
        messages.append(record.get("message", ""))
    raise AssertionError("there was no checkpoint")


@pytest.mark.slow
def test_attempts_of_a_stage_go_on_where_the_last_one_saved(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with storage.attempt(1) as first:
        until_checkpoint(first)
        first.send_signal(signal.SIGTERM)
        assert first.wait(400) == 75
    assert storage.said()["state"] == "Interrupted"
    saved = newest_checkpoint(storage.stage)
    assert saved is not None

    with storage.attempt(2) as second:
        messages, _ = until_checkpoint(second)
        assert f"going on from {saved.name}" in messages
        (storage.stage / "attempt").write_text("3\n")  # the node is given up, and another pod has taken over
        assert second.wait(400) == 70
    assert "attempt 2 ends without saving: attempt 3 works on" in storage.said()["message"]

    with storage.attempt(3) as third:
        messages, _ = until_checkpoint(third)
        assert any(message.startswith("going on from checkpoint-") for message in messages)
        assert third.wait(400) == 0
    assert storage.said()["state"] == "Succeeded"
    assert (storage.stage / "done.json").exists()
    assert not list(storage.stage.glob("checkpoint-*"))
    steps = [json.loads(line)["step"] for line in (storage.stage / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 121))


@pytest.mark.slow
def test_a_full_disk_ends_a_stage_with_70_and_one_sentence_and_is_no_end(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with storage.attempt(1, most_bytes=1_000_000) as first:
        assert first.wait(400) == 70
    assert storage.said()["message"].startswith("the disk is full: a file could not be written (")
    assert newest_checkpoint(storage.stage) is None
    with storage.attempt(2) as second:
        assert second.wait(400) == 0
    assert (storage.stage / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_another_number_of_processes_goes_on(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    two = {"PET_NNODES": "1", "PET_NPROC_PER_NODE": "2", "PET_NODE_RANK": "0"}
    two |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port())}
    with storage.attempt(1, **two) as first:
        until_checkpoint(first)
        first.send_signal(signal.SIGTERM)
        assert first.wait(400) == 75
    saved = newest_checkpoint(storage.stage)
    assert saved is not None
    assert mark_of(saved).processes == 2
    with storage.attempt(2) as second:
        messages, _ = until_checkpoint(second)
        assert f"going on from {saved.name}" in messages
        assert second.wait(400) == 0
    steps = [json.loads(line)["step"] for line in (storage.stage / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 121))

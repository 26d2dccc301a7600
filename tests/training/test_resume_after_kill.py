"""A rank is killed in mid-step: the run goes on from its newest complete checkpoint as if nothing had been."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from thinkimg.training.checkpoints import complete_checkpoints, newest_checkpoint
from thinkimg.trajectory import read_trajectories


def launch(folder: Path, **environment: str) -> int:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "tests.support.training.resumed_ranks", str(folder)]
    given = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, timeout=1700, env=given, cwd=REPOSITORY).returncode


def sampled(folder: Path, step: int) -> list[list[int]]:
    """Token ids that both ranks' models sampled in a step."""
    files = [folder / "trajectories" / f"step-{step:06d}{rank}.jsonl" for rank in ("", ".rank1")]
    made = [trajectory for file in files for trajectory in read_trajectories(file)]
    return [[token for token, own in zip(one.tokens, one.mask, strict=True) if own] for one in made]


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


def test_after_a_kill_the_next_steps_are_those_of_an_uninterrupted_run(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert launch(whole) == 0
    assert launch(cut, KILL="1") != 0
    assert [folder.name for folder in complete_checkpoints(cut)] == ["checkpoint-2"]
    half = cut / "checkpoint-4"  # what a rank that was killed while it saved leaves: newer, and without its mark
    half.mkdir()
    (half / "trainer_state.json").write_text("{")
    assert newest_checkpoint(cut) == cut / "checkpoint-2"
    assert launch(cut) == 0
    for step in (3, 4, 5):
        assert len(sampled(whole, step)) == 16
        assert sampled(cut, step) == sampled(whole, step)
    assert losses(cut) == pytest.approx(losses(whole), abs=1e-6)
    assert list(losses(cut)) == [1, 2, 3, 4, 5, 6]

"""Two processes on recorded trajectories of different lengths, and DeepSpeed's ZeRO stages: the step is that of one
process. Losses and gradients are compared before and after the optimiser."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import REPOSITORY

KINDS = ["sft", "dapo", "grpo", "dr_grpo"]
PROGRAM = "tests.support.training.replay"


class Runs:
    """What each run left, by number of processes, kind and ZeRO stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = [f"{kind}-0-keep" for kind in KINDS]
        self._launch(1, kept)
        self._launch(2, [*kept, "dapo+lora-0-keep", "sft-0-drop", "dapo-0-drop"])
        self._zero_done = False

    def __call__(self, kind: str, processes: int, zero: int = 0, drop: bool = False) -> Path:
        if zero and not self._zero_done:
            self._launch(2, ["dapo-1-keep", "dapo-2-keep", "dapo-3-keep", "dapo+lora-3-keep"])
            self._zero_done = True
        return self.folder / f"{processes}" / f"{kind}-{zero}-{'drop' if drop else 'keep'}"

    def _launch(self, processes: int, runs: list[str]) -> None:
        launch = [sys.executable]
        if processes > 1:
            launch += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        environment = {**os.environ, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        command = [*launch, "-m", PROGRAM, str(self.folder / f"{processes}"), *runs]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1700, env=environment, cwd=REPOSITORY)
        assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("many"))


def tensors(folder: Path, rank: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    loaded: dict[str, dict[str, torch.Tensor]] = torch.load(folder / f"tensors-{rank}.pt")
    return loaded


def logged(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "log-0.json").read_text())
    return found


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Norm of the difference, relative to the norm."""
    assert one.keys() == other.keys()
    apart = sum(float((one[name] - other[name]).double().square().sum()) for name in one)
    whole = sum(float(one[name].double().square().sum()) for name in one)
    return (apart / whole) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_have_the_gradient_of_one_and_end_with_its_weights(kind: str, run: Runs) -> None:
    one, two = tensors(run(kind, 1)), tensors(run(kind, 2))
    assert sum(float(g.abs().sum()) for g in one["gradients"].values()) > 0
    assert difference(one["gradients"], two["gradients"]) <= 1e-5
    assert difference(one["parameters"], two["parameters"]) <= 1e-5
    other = tensors(run(kind, 2), rank=1)
    assert difference(two["gradients"], other["gradients"]) == 0.0


@pytest.mark.parametrize("kind", ["sft", "dapo"])
def test_the_comparison_notices_when_one_ranks_data_is_missing(kind: str, run: Runs) -> None:
    one, without = tensors(run(kind, 1)), tensors(run(kind, 2, drop=True))
    assert difference(one["gradients"], without["gradients"]) > 1e-2


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_zero_takes_the_steps_of_plain_data_parallelism(zero: int, run: Runs) -> None:
    pytest.importorskip("deepspeed")
    plain, sharded = logged(run("dapo", 2)), logged(run("dapo", 2, zero))
    assert sharded["distributed_type"] == "DistributedType.DEEPSPEED"
    assert (sharded["partitioned"] > 0) == (zero == 3)
    assert len(plain["steps"]) == len(sharded["steps"]) == 3
    for ours, theirs in zip(plain["steps"], sharded["steps"], strict=True):
        assert theirs == pytest.approx(ours, abs=1e-4)
    parameters = tensors(run("dapo", 2, zero))["parameters"]
    assert difference(tensors(run("dapo", 2))["parameters"], parameters) <= 1e-4


def test_adapters_take_the_same_steps_with_zero_3_and_are_merged(run: Runs) -> None:
    pytest.importorskip("deepspeed")
    sharded, plain = run("dapo+lora", 2, 3), run("dapo+lora", 2)
    assert logged(sharded)["partitioned"] > 0
    for ours, theirs in zip(logged(plain)["steps"], logged(sharded)["steps"], strict=True):
        assert theirs == pytest.approx(ours, abs=1e-4)
    merged = tensors(plain)["parameters"]
    assert not any("lora" in name for name in merged)
    assert difference(merged, tensors(sharded)["parameters"]) <= 1e-4
    assert difference(tensors(run("dapo", 2))["parameters"], merged) > 1e-3, "other weights were trained"


def test_a_model_that_was_trained_with_zero_3_is_whole_again_and_loads(run: Runs) -> None:
    pytest.importorskip("deepspeed")
    from transformers import AutoModelForImageTextToText

    folder = run("dapo", 2, 3)
    model = AutoModelForImageTextToText.from_pretrained(folder / "model", dtype=torch.float32)
    loaded = {name: parameter.detach() for name, parameter in model.named_parameters()}
    assert difference(tensors(folder)["parameters"], loaded) == 0.0

"""Each loss has the gradient that its paper gives, whatever a step is cut into: against a reference in float64."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.support import REPOSITORY
from tests.support.training.gradient_case import (
    CASES,
    GENERATIONS,
    IN_TWO_PROCESSES,
    ONE_LEFT,
    QUESTIONS,
    Case,
    gradients_of,
    rollout,
    world64,
)
from tests.support.training.reference_loss import KINDS, reference_gradients
from tests.support.training.scripted_agent import tasks


@cache
def expected(name: str) -> dict[str, dict[str, torch.Tensor]]:
    return reference_of(CASES[name])


def reference_of(case: Case) -> dict[str, dict[str, torch.Tensor]]:
    world = world64()
    groups = [[rollout(world, case, task, n) for n in range(GENERATIONS)] for task in tasks(QUESTIONS)]
    return reference_gradients(world, groups, **case.options)


def apart(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """Norm of the difference, relative to the norm."""
    assert found.keys() >= wanted.keys()
    assert all(not found[name].any() for name in found.keys() - wanted.keys())
    difference = sum(float((found[name] - wanted[name]).double().square().sum()) for name in wanted)
    return float((difference / sum(float(one.square().sum()) for one in wanted.values())) ** 0.5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_papers(kind: str, name: str, tmp_path: Path) -> None:
    error = apart(gradients_of(kind, CASES[name], tmp_path), expected(name)[kind])
    assert error <= 1e-5


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("two")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [*launch, "-m", "tests.support.training.gradient_case", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, env=environment, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-4000:]
    loaded: dict[str, dict[str, torch.Tensor]] = torch.load(folder / "gradients.pt")
    return loaded


@pytest.mark.parametrize("name", IN_TWO_PROCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_take_it_together(
    kind: str, name: str, of_two_processes: dict[str, dict[str, torch.Tensor]]
) -> None:
    error = apart(of_two_processes[f"{name}-{kind}"], expected(name)[kind])
    assert error <= 1e-5


def test_a_process_without_a_rollout_and_without_a_picture_keeps_up(
    of_two_processes: dict[str, dict[str, torch.Tensor]],
) -> None:
    assert apart(of_two_processes["left-dapo"], reference_of(ONE_LEFT)["dapo"]) <= 1e-5


def test_the_comparison_notices_another_divisor() -> None:
    assert apart(expected("masked")["grpo"], expected("masked")["dapo"]) > 1e-2

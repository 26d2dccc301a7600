"""What is not finite ends a training before anything is saved; a training that teaches nothing says why."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import REPOSITORY
from tests.support.training.scripted_agent import ScriptedAgent, World, answer_length, tasks
from tests.support.training.sft import samples_of, train
from thinkimg.api import GRPO, Lora
from thinkimg.errors import UserError
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import train_grpo
from thinkimg.training.rewards import BoundReward, RewardError
from thinkimg.training.session import Session
from thinkimg.trajectory import Trajectory


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def grpo(world: World, folder: Path, reward: Any = answer_length, **block: Any) -> None:
    given = {"max_steps": 2, "prompts_per_step": 2, "num_generations": 2, "learning_rate": 1e-3} | block
    agent, session = ScriptedAgent(world, rounds=lambda task, number: 1), Session(folder, save_every=1)
    train_grpo(world.loaded, Episodes(agent, tasks(4), [BoundReward("mine", reward)]), GRPO(**given), session)


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("checkpoint-*"))


def spoil(world: World) -> str:
    name, parameter = next(pair for pair in world.model.named_parameters() if "language_model.layers" in pair[0])
    with torch.no_grad():
        parameter.view(-1)[3] = float("nan")
    return name


@pytest.mark.parametrize("lora", [None, Lora()], ids=["all weights", "adapters"])
def test_a_base_with_a_weight_that_is_not_finite_is_refused_by_its_name(tmp_path: Path, lora: Lora | None) -> None:
    world = World()
    name = spoil(world)
    with pytest.raises(UserError, match=f"weights that are not finite, .*{name.rpartition('.')[0]}"):
        train(world, samples_of(world), tmp_path, max_steps=2, lora=lora)


def test_sft_that_diverges_ends_before_it_saves(tmp_path: Path) -> None:
    """It reported a loss of 0.0, saved weights of NaN and was done."""
    world = World()
    world.model.model.language_model.layers[0].mlp.up_proj.weight.register_hook(lambda gradient: gradient * 1e36)
    with pytest.raises(UserError, match=r"sft: (a weight|a gradient|the loss) is not finite.* nothing of it is saved"):
        train(world, samples_of(world), tmp_path, epochs=20, args={"optim": "sgd", "max_grad_norm": 0.0})
    assert not saved(tmp_path)


def test_a_gradient_that_is_not_finite_ends_grpo_before_a_step_is_made_of_it(tmp_path: Path) -> None:
    world = World()
    before = {name: each.detach().clone() for name, each in world.model.named_parameters()}
    weight = world.model.model.language_model.layers[0].mlp.up_proj.weight
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(UserError, match=r"grpo: a gradient is not finite \(in this process\) in step 1"):
        grpo(world, tmp_path)
    assert all(torch.equal(each, before[name]) for name, each in world.model.named_parameters())
    assert not saved(tmp_path)


def test_all_processes_end_together_where_one_has_a_weight_that_is_not_finite(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "tests.support.training.one_bad_rank", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-3000:]
    said = [(tmp_path / f"rank-{rank}").read_text() for rank in range(2)]
    assert all("a weight is not finite" in words and "in step 2" in words for words in said), said
    assert "in another process" in said[0]
    assert [path.name for path in tmp_path.rglob("checkpoint-*")] == ["checkpoint-1"]


def test_a_reward_that_is_not_finite_ends_the_stage_with_its_name_value_and_trajectory(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"the reward mine gives inf, which is not finite \(trajectory [0-9a-f]+\)"):
        grpo(World(), tmp_path, lambda trajectory: float("inf"))
    assert not saved(tmp_path)


def never(trajectory: Trajectory) -> None:
    """A reward that applies to nothing."""


@pytest.mark.parametrize(
    ("reward", "block", "why"),
    [
        (never, {}, "of 8 rollouts 0 were left out and 8 had no reward; of 4 groups 4 had no two different rewards"),
        (lambda trajectory: 1.0, {}, "of 4 groups 4 had no two different rewards"),
        (answer_length, {"mask_truncated": True}, r"of 8 rollouts 8 were left out \(8 truncated\)"),
    ],
    ids=["no reward applies", "all groups are flat", "every rollout is masked"],
)
def test_a_training_without_any_gradient_says_why_unless_that_is_meant(
    tmp_path: Path, reward: Any, block: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if block:
        run = ScriptedAgent.run

        async def cut(self: ScriptedAgent, *arguments: Any) -> Trajectory:
            trajectory = await run(self, *arguments)
            trajectory.status = "tokens"
            return trajectory

        monkeypatch.setattr(ScriptedAgent, "run", cut)
    with pytest.raises(UserError, match=f"grpo.allowNoLearning: nothing was learnt: none of 2 steps.*{why}"):
        grpo(World(), tmp_path / "refused", reward, **block)
    grpo(World(), tmp_path / "meant", reward, **block, allow_no_learning=True)


def test_flat_groups_are_counted_whether_they_are_refilled_or_not(tmp_path: Path) -> None:
    even: list[str] = []

    def half(trajectory: Trajectory) -> float:
        task = str(trajectory.meta["task"])
        even.append(task)
        return 1.0 if int(task[-1]) % 2 else float(even.count(task) % 2)

    grpo(World(), tmp_path, half, prompts_per_step=4, max_steps=1)
    (line,) = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert (line["groups"], line["flat"], line["refilled"]) == (4, 2, 0)

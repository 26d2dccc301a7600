"""What V-ToolRL adds to GRPO: tool calls sampled again, bonuses that fade, the alarm, the correction for the engine."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.training.batches import gradients, prepare
from tests.support.training.scripted_agent import ScriptedAgent, World, tasks
from thinkimg.agent.agent import Agent, Limits, append_reply
from thinkimg.agent.formats import get_format
from thinkimg.api import GRPO, ImportanceCorrection, Reward
from thinkimg.errors import UserError
from thinkimg.image import Image
from thinkimg.message import ImageBlock, TextBlock, ToolResultBlock
from thinkimg.models.chat import SamplingParameters, TokenModel
from thinkimg.models.generator import Filters, Generation, GenerationRequest
from thinkimg.tools.tool import ToolResult
from thinkimg.training.episodes import Episodes
from thinkimg.training.forking import fork_of
from thinkimg.training.grpo import grpo_config, train_grpo
from thinkimg.training.rewards import make_rewards
from thinkimg.training.session import Session
from thinkimg.trajectory import Task, Trajectory


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# ---- tool use, its bonus and the alarm -------------------------------------------------------------------------------


class Chooser(ScriptedAgent):
    """The first word that the model says decides whether it uses a tool: about half of an untrained model's do."""

    async def run(self, task: Task, seed: int, temperature: float = 1.0) -> Trajectory:
        trajectory = Trajectory(question=task.question, reference=task.reference, meta={"task": task.id})
        shown = [trajectory.add_image(image) for image in task.images]
        trajectory.add("user", *(ImageBlock(handle=name) for name in shown), TextBlock(text=task.question))
        sampling = SamplingParameters(temperature, 1)
        turn = append_reply(trajectory, await self.world.chat.reply(trajectory, sampling, seed))
        if turn.tokens and turn.tokens[0] % 2:
            trajectory.add("tool", ToolResultBlock(call_id="1", name="crop", text="see"))
        trajectory.status, trajectory.answer = "answered", turn.message.text
        return trajectory


def tools_cost(trajectory: Trajectory) -> float:
    """A tool that does not help yet: with it, answers are a little worse."""
    return 0.7 if trajectory.tool_results else 1.0


def tool_rates(folder: Path, *bonus: Reward) -> list[dict[str, Any]]:
    world = World()
    rewards = [Reward(name=f"{__name__}:tools_cost"), *bonus]
    spec = GRPO(max_steps=40, prompts_per_step=4, num_generations=8, learning_rate=2e-3, rewards=rewards)
    train_grpo(world.loaded, Episodes(Chooser(world), tasks(8), make_rewards(rewards)), spec, Session(folder))
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_tool_use_collapses_with_an_alarm_and_a_fading_bonus_keeps_it(tmp_path: Path) -> None:
    without = tool_rates(tmp_path / "without")
    bonus = Reward(name="tool-use", weight=0.8, target_rate=0.6)
    kept = tool_rates(tmp_path / "with", bonus)
    start = sum(line["tool_calls"] for line in without[:3]) / 3
    assert start > 0.2
    assert sum(line["tool_calls"] for line in without[-5:]) / 5 < 0.3 * start
    assert sum(line["collapse"] for line in without) == 1
    last = sum(line["tool_calls"] for line in kept[-5:]) / 5
    assert 0.15 < last < 0.8, "neither out of use nor used for the bonus alone"
    assert not any(line["collapse"] for line in kept)


# ---- tool calls sampled again ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    result: ToolResult
    cached: bool = False


class Look:
    schemas: Mapping[str, Any] = {}

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Outcome:
        return Outcome(ToolResult(f"saw {arguments['at']}"))


class WrongAtFirst:
    """Thinks, calls with the wrong argument and answers wrongly; asked to go on from its own thought, it calls rightly
    every other time."""

    def __init__(self, world: World) -> None:
        self.family = world.family
        self.asked: list[str] = []

    async def generate(self, request: GenerationRequest) -> Generation:
        stop = self.family.stop_ids[0]
        last = len(request.tokens) - request.tokens[::-1].index(stop)
        turns, begun = request.tokens.count(stop), self.family.decode(request.tokens[last:])
        if turns > 2:
            right = "right" in self.family.decode(request.tokens)
            text = json.dumps(
                {"thought": "", "actions": [{"name": "Terminate", "arguments": {"ans": "7" if right else "0"}}]}
            )
        elif '"actions": [' in begun:
            self.asked.append(begun)
            at = random.Random(request.seed).choice(["right", "wrong"])
            text = json.dumps({"name": "Look", "arguments": {"at": at}}) + "]}"
        else:
            text = json.dumps({"thought": "let me see", "actions": [{"name": "Look", "arguments": {"at": "wrong"}}]})
        tokens = self.family.encode_reply(text)
        return Generation(tokens, [-1.0] * len(tokens), "stop")


def question(number: int) -> Task:
    return Task(f"task-{number}", "what is the value", tasks(1)[0].images, "7")


def forking_trainer(world: World, folder: Path, **settings: Any) -> Any:
    generator = WrongAtFirst(world)
    agent: Any = Agent(TokenModel(world.family, generator), Look(), Limits(rounds=3, tokens_per_turn=300))
    agent.tasks = [question(number) for number in range(8)]
    rewards = make_rewards([Reward(name="accuracy")], lambda answer, reference: float(answer == reference))
    return world.trainer(agent, folder, rewards, num_generations=8, **settings), generator


def test_where_every_call_went_wrong_it_is_sampled_again_from_the_thought(tmp_path: Path) -> None:
    world = World()
    trainer, generator = forking_trainer(world, tmp_path, fork_groups=1)
    batch = prepare(trainer, 2)
    forked, plain = trainer.groups
    assert plain.flat, "only as many groups as configured"
    assert not forked.flat
    assert len(generator.asked) == 8
    assert all('"thought": "let me see", "actions": [' in begun for begun in generator.asked)
    for trajectory in forked.trajectories:
        assert trajectory.meta["fork_of"]
        turn = trajectory.turns[2]
        assert get_format("openthinkimg").parse(turn.message.text).thought == "let me see"
        own = [token for token, flag in zip(turn.tokens, turn.mask, strict=True) if flag]
        assert "let me see" not in world.family.decode(own), "what was kept has no loss"
        assert trajectory.correct == (turn.message.tool_calls[0].arguments["at"] == "right")
    assert len({trajectory.id for trajectory in forked.trajectories}) == 8
    own_tokens = (batch["tool_mask"] * batch["completion_mask"]).sum(1)
    assert (own_tokens > 0).all()
    assert trainer.step_log is None
    trainer.close()


def test_without_the_flag_nothing_is_forked(tmp_path: Path) -> None:
    world = World()
    trainer, generator = forking_trainer(world, tmp_path)
    prepare(trainer, 2)
    assert not generator.asked
    assert all(group.flat for group in trainer.groups)
    trainer.close()


def test_a_trajectory_without_a_call_has_no_fork() -> None:
    assert fork_of(Trajectory(question="?"), World().family) is None


def test_forking_needs_an_agent_and_the_accuracy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"grpo\.forkGroups: forking needs an Agent"):
        World().trainer(ScriptedAgent(World()), tmp_path, fork_groups=1)
    world = World()
    agent = Agent(TokenModel(world.family, WrongAtFirst(world)), Look())
    with pytest.raises(UserError, match=r"grpo\.forkGroups: .*accuracy"):
        world.trainer(agent, tmp_path, fork_groups=1)


# ---- the loss --------------------------------------------------------------------------------------------------------


class Shifted(ScriptedAgent):
    """An engine that thinks every token likelier than the trainer does, by a factor."""

    shift = 0.0

    async def run(self, task: Task, seed: int, temperature: float = 1.0) -> Trajectory:
        trajectory = await super().run(task, seed, temperature)
        for turn in trajectory.turns:
            if turn.role == "assistant" and turn.logprobs:
                turn.logprobs = [value + self.shift for value in turn.logprobs]
        return trajectory


@pytest.mark.parametrize(
    ("shift", "clip_max", "ratio"), [(0.0, 2.0, 1.0), (0.1, 2.0, 0.9048), (-1.0, 2.0, 2.0)], ids=["same", "more", "cut"]
)
def test_tokens_are_weighed_by_the_ratio_of_trainer_and_engine(
    tmp_path: Path, shift: float, clip_max: float, ratio: float
) -> None:
    def gradient(correction: ImportanceCorrection | None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        world = World()
        agent = Shifted(world, rounds=lambda task, number: 1 + number % 3)
        agent.shift = shift
        trainer = world.trainer(agent, tmp_path, num_generations=4, importance_correction=correction)
        batch = prepare(trainer, 2)
        found = gradients(trainer, batch)
        trainer.close()
        return found, batch

    plain, _ = gradient(None)
    corrected, batch = gradient(ImportanceCorrection(mode="TokenTruncate", clip_max=clip_max))
    own = (batch["tool_mask"] * batch["completion_mask"]).bool()
    torch.testing.assert_close(
        batch["importance_sampling_ratio"][own], torch.full((int(own.sum()),), ratio), atol=2e-3, rtol=0
    )
    for name, value in plain.items():
        torch.testing.assert_close(corrected[name], value * ratio, atol=1e-4, rtol=2e-2)


def test_filtered_rollouts_are_weighed_by_their_share_of_the_whole_distribution(tmp_path: Path) -> None:
    """With `top_k: 1` every token was certain when it was drawn; the loss weighs it by its own probability."""
    world = World()
    agent = ScriptedAgent(world)
    agent.filters = Filters(top_k=1)
    correction = ImportanceCorrection(mode="TokenTruncate", clip_max=2.0)
    trainer = world.trainer(agent, tmp_path, importance_correction=correction, args={"top_k": 1})
    batch = prepare(trainer, 2)
    own = (batch["tool_mask"] * batch["completion_mask"]).bool()
    assert not batch["sampling_per_token_logps"][own].any()
    ratio = batch["importance_sampling_ratio"][own]
    torch.testing.assert_close(ratio, batch["old_per_token_logps"][own].exp())
    assert float(ratio.max()) < 0.9
    trainer.close()


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"])
def test_every_loss_type_trains(tmp_path: Path, loss_type: str) -> None:
    world = World()
    before = world.model.lm_head.weight.detach().clone()
    trainer = world.trainer(ScriptedAgent(world), tmp_path, loss_type=loss_type, num_generations=4)
    trainer.train()
    trainer.close()
    assert not torch.equal(before, world.model.lm_head.weight)
    assert trainer.state.log_history[0]["grad_norm"] > 0


def test_fsdp_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"grpo\.args\.fsdp: rollouts need the whole model"):
        grpo_config(GRPO(max_steps=1, args={"fsdp": "full_shard"}), Session(tmp_path))


def test_cispo_cuts_ratios_at_its_papers_limit_unless_told_otherwise(tmp_path: Path) -> None:
    block = GRPO(max_steps=1, loss_type="cispo")
    assert grpo_config(block, Session(tmp_path)).epsilon_high == 5.0
    told = block.model_copy(update={"args": {"epsilon_high": 4.0}})
    assert grpo_config(told, Session(tmp_path)).epsilon_high == 4.0

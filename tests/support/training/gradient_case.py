"""The gradient that one step of the GRPO trainer takes on trajectories that were made before, in float64; as a program:
in as many processes as it is launched with."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from tests.support.training.reference_loss import KINDS, MAX_COMPLETION, drift
from tests.support.training.replay import WORDS, Watch, recorded
from tests.support.training.scripted_agent import World, answer_length, tasks
from thinkimg.api import GRPO
from thinkimg.message import ImageBlock, TextBlock, ToolCallBlock, ToolResultBlock
from thinkimg.training.collator import encode_trajectory
from thinkimg.training.episodes import Episodes
from thinkimg.training.forking import fork_of
from thinkimg.training.grpo import ToolGRPOTrainer, grpo_config
from thinkimg.training.grpo.batches import picture_inputs
from thinkimg.training.rewards import BoundReward
from thinkimg.training.session import Session
from thinkimg.trajectory import Task, Trajectory

QUESTIONS, GENERATIONS = 4, 4


@dataclass(frozen=True)
class Case:
    """How a step is computed; `quantile` and `bonus` are options of the loss, `lost` rollouts are masked."""

    tokens_per_pass: int = 10**6
    buckets: int = 1
    micro_batch: int | None = None
    lost: frozenset[tuple[int, int]] = frozenset()
    forks: bool = False
    checkpointing: bool = False
    options: dict[str, float] = field(default_factory=dict)

    @property
    def args(self) -> dict[str, Any]:
        names = {"quantile": "top_entropy_quantile", "bonus": "entropy_coef"}
        chosen = {names[name]: value for name, value in self.options.items()}
        return {"gradient_checkpointing": self.checkpointing, **chosen}


LOST = frozenset({(0, 1), (0, 3), (2, 0), (3, 0), (3, 1), (3, 2)})
CASES = {
    "whole": Case(),
    "parts": Case(tokens_per_pass=200, buckets=3),
    "passes": Case(micro_batch=2),
    "masked": Case(lost=LOST, micro_batch=4, tokens_per_pass=200),
    "quantile": Case(lost=LOST, micro_batch=8, tokens_per_pass=200, options={"quantile": 0.3}),
    "bonus": Case(lost=LOST, micro_batch=8, tokens_per_pass=200, options={"quantile": 0.6, "bonus": 0.05}),
    "forks": Case(forks=True, tokens_per_pass=200, buckets=3),
}
THREE_LOST = frozenset((task, generation) for task in range(3) for generation in range(GENERATIONS))
ONE_LEFT = Case(lost=THREE_LOST, tokens_per_pass=200, checkpointing=True)
"""One process at least has neither a rollout nor a picture."""
IN_TWO_PROCESSES = ("masked", "bonus")


def world64() -> World:
    world = World()
    world.model.double()
    return world


def forked(world: World, task: Task, generation: int) -> Trajectory:
    """Goes on from a call that was begun after a malformed turn."""
    number = int(task.id.rpartition("-")[2])
    base = Trajectory(question=task.question, reference=task.reference, meta={"task": task.id})
    shown = [base.add_image(image) for image in task.images]
    base.add("user", *(ImageBlock(handle=name) for name in shown), TextBlock(text=task.question))
    base.add("assistant", TextBlock(text="see the bar " * (1 + number)))
    base.add("tool", ToolResultBlock(call_id="1", name="crop", text="value"), ImageBlock(handle=shown[0]))
    call = ToolCallBlock(id="2", name="crop", arguments={})
    base.add("assistant", TextBlock(text='{"thought": "red", "actions": [{"name": "crop"}]}'), call)
    fork = fork_of(encode_trajectory(world.family, base), world.family)
    assert fork is not None
    trajectory = fork.before.model_copy(deep=True)
    trajectory.meta["anew"] = len(trajectory.tokens) + len(fork.prefix)
    words = " ".join(WORDS[(generation * 3 + k) % len(WORDS)] for k in range(2 + generation))
    tokens = world.family.encode_reply(words)
    turn = trajectory.add("assistant", TextBlock(text=words))
    turn.tokens = [*fork.prefix, *tokens]
    turn.mask = [False] * len(fork.prefix) + [True] * len(tokens)
    trajectory.answer, trajectory.status = words, "answered"
    return trajectory


def rollout(world: World, case: Case, task: Task, generation: int) -> Trajectory:
    made = (forked if case.forks else recorded)(world, task, generation)
    if (int(task.id.rpartition("-")[2]), generation) in case.lost:
        made.status = "rounds"
    return made


class Replaying:
    def __init__(self, world: World, case: Case) -> None:
        self.world, self.case = world, case
        self.asked: dict[str, int] = {}

    async def run(self, task: Task, seed: int, temperature: float = 1.0) -> Trajectory:
        generation = self.asked.get(task.id, 0)
        self.asked[task.id] = generation + 1
        return rollout(self.world, self.case, task, generation)


class OffPolicy(ToolGRPOTrainer):
    """Its rollouts were sampled with other weights."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super()._generate_and_score_completions(inputs)
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
        width = batch["completion_ids"].shape[1]
        with torch.no_grad():
            now, _, _ = self._get_per_token_logps_and_entropies(self.model, ids, mask, width, **picture_inputs(batch))
        gone = torch.stack([drift(row, 0) for row in batch["completion_ids"]])
        return batch | {"old_per_token_logps": now.double() - gone}


def gradients_of(kind: str, case: Case, folder: Path) -> dict[str, torch.Tensor]:
    """Of one step, as the optimiser gets them."""
    torch.set_num_threads(1)
    world, watch = world64(), Watch()
    spec = GRPO(
        max_steps=1, prompts_per_step=QUESTIONS, num_generations=GENERATIONS, learning_rate=1e-9, resample_limit=0,
        mask_truncated=True, max_rounds=4, max_tokens_per_turn=MAX_COMPLETION // 4, loss_type=kind,
        tokens_per_pass=case.tokens_per_pass,
        micro_batch=case.micro_batch, args={"optim": "sgd", "max_grad_norm": 0.0, **case.args},
    )  # fmt: skip
    session = Session(folder, world_size=int(os.environ.get("WORLD_SIZE", "1")), callbacks=[watch])
    episodes = Episodes(Replaying(world, case), tasks(QUESTIONS), [BoundReward("length", answer_length)])
    with patch("thinkimg.training.grpo.loss.LENGTH_BUCKETS", case.buckets):
        trainer = OffPolicy(world.loaded, episodes, spec, grpo_config(spec, session), callbacks=[watch])
        trainer.train()
    trainer.close()
    return watch.gradients


if __name__ == "__main__":
    target = Path(sys.argv[1])
    found = {f"{name}-{kind}": gradients_of(kind, CASES[name], target) for name in IN_TWO_PROCESSES for kind in KINDS}
    found["left-dapo"] = gradients_of("dapo", ONE_LEFT, target)
    if os.environ.get("RANK") == "0":
        torch.save(found, target / "gradients.pt")

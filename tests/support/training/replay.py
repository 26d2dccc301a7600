"""Trajectories that were made before, handed out again: nothing is sampled, so that runs in one and in several
processes, with and without DeepSpeed, train on the very same tokens."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tests.support.training.scripted_agent import World, answer_length, picture, tasks
from thinkimg.api import GRPO, SFT, Lora
from thinkimg.message import ImageBlock, TextBlock, ToolResultBlock
from thinkimg.training.collator import encode_samples, encode_trajectory
from thinkimg.training.configs import zero_config
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import train_grpo
from thinkimg.training.rewards import BoundReward
from thinkimg.training.session import Session
from thinkimg.training.sft import train_sft
from thinkimg.trajectory import Task, Trajectory

WORDS = ["what", "is", "the", "value", "of", "the", "bar", "see", "crop", "answer", "red"]


def recorded(world: World, task: Task, generation: int) -> Trajectory:
    """A trajectory of one to four turns, longer for later tasks: ranks get different lengths."""
    number = int(task.id.rpartition("-")[2])
    trajectory = Trajectory(question=task.question, reference=task.reference, meta={"task": task.id})
    shown = [trajectory.add_image(image) for image in task.images]
    trajectory.add("user", *(ImageBlock(handle=name) for name in shown), TextBlock(text=task.question))
    rounds = 1 + (number + generation) % 3
    for turn in range(rounds):
        words = [WORDS[(number + generation * 3 + turn + k) % len(WORDS)] for k in range(2 + 3 * number + generation)]
        trajectory.add("assistant", TextBlock(text=" ".join(words)))
        if turn < rounds - 1:
            name = trajectory.add_image(picture(number + turn, 64 + 16 * turn, 64))
            trajectory.add("tool", ToolResultBlock(call_id="1", name="crop", text="see"), ImageBlock(handle=name))
    trajectory.answer, trajectory.status = trajectory.turns[-1].message.text, "answered"
    return encode_trajectory(world.family, trajectory)


class ReplayingAgent:
    """Hands out what was recorded: the k-th time a task is asked for, its k-th generation."""

    def __init__(self, world: World, generations: int, keep: Any = lambda task: True) -> None:
        self.world, self.generations, self.keep = world, generations, keep
        self.asked: dict[str, int] = {}

    async def run(self, task: Task, seed: int, temperature: float = 1.0) -> Trajectory:
        generation = self.asked.get(task.id, 0) % self.generations
        self.asked[task.id] = self.asked.get(task.id, 0) + 1
        trajectory = recorded(self.world, task, generation)
        if not self.keep(task):
            trajectory.status = "rounds"  # masked, but nobody's loss: a step of mostly lost ones is refused
        return trajectory


class Watch(TrainerCallback):
    """Gradients of the first optimiser step, whole; loss and gradient norm of each."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}
        self.logged: list[dict[str, float]] = []
        self.seen: dict[str, Any] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not self.gradients:
            named = {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}
            self.gradients = {name: grad.detach().clone() for name, grad in named.items() if grad is not None}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs and "grad_norm" in logs:
            self.logged.append({"loss": float(logs["loss"]), "grad_norm": float(logs["grad_norm"])})

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        from accelerate.state import AcceleratorState

        self.seen["distributed_type"] = str(AcceleratorState().distributed_type)
        self.seen["partitioned"] = sum(hasattr(p, "ds_tensor") and p.numel() == 0 for p in model.parameters())


def train(kind: str, folder: Path, zero: int = 0, drop: bool = False, steps: int = 3) -> tuple[World, Watch]:
    """SFT, or GRPO with the loss `kind`, on recorded trajectories; `dapo+lora` trains adapters. `drop`: half of the
    rows, which with two ranks are one rank's, give nothing."""
    torch.set_num_threads(1)
    torch.manual_seed(0)  # adapters begin at random
    kind, _, adapters = kind.partition("+")
    world, watch = World(), Watch()
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    session = Session(folder, world_size=world_size, callbacks=[watch])
    common: dict[str, Any] = {"optim": "sgd", "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}
    common |= {"deepspeed": zero_config(zero)} if zero else {}
    if kind == "sft":
        args = common | {"logging_steps": 1, "bf16": False, "gradient_checkpointing": False}
        records = [recorded(world, task, n) for n, task in enumerate(tasks(8))]
        samples, _ = encode_samples(world.family, records)
        if drop:
            nothing = [replace(sample, mask=[False] * len(sample.mask)) for sample in samples]
            samples = [nothing[n] if n % 2 else sample for n, sample in enumerate(samples)]
        train_sft(world.loaded, samples, SFT(learning_rate=0.1, batch_size=8, max_steps=steps, args=args), session)
    else:
        spec = GRPO(
            max_steps=steps, prompts_per_step=4, num_generations=4, learning_rate=0.1, loss_type=kind,
            max_rounds=4, max_tokens_per_turn=16, lora=Lora(rank=4, alpha=16.0) if adapters else None,
            args=common, mask_truncated=True,
        )  # fmt: skip
        first = {"task-0", "task-1", "task-2", "task-3"}
        agent = ReplayingAgent(world, 4, (lambda task: task.id in first) if drop else (lambda task: True))
        rewards = [BoundReward("length", answer_length)]
        train_grpo(world.loaded, Episodes(agent, tasks(8), rewards), spec, session)
    return world, watch


def main(kind: str, folder: Path, zero: int, drop: bool) -> None:
    world, watch = train(kind, folder, zero, drop)
    rank = int(os.environ.get("RANK", "0"))
    torch.save(
        {"gradients": watch.gradients, "parameters": {n: p.detach() for n, p in world.model.named_parameters()}},
        folder / f"tensors-{rank}.pt",
    )
    (folder / f"log-{rank}.json").write_text(json.dumps({"steps": watch.logged, **watch.seen}))
    if zero and rank == 0:
        world.model.save_pretrained(folder / "model")


if __name__ == "__main__":
    from accelerate.state import AcceleratorState, GradientState
    from transformers.integrations import unset_hf_deepspeed_config

    for run in sys.argv[2:]:  # one process for all: most of a run is imports
        AcceleratorState._reset_state()
        GradientState._reset_state()
        unset_hf_deepspeed_config()  # or models that are made after a run with ZeRO-3 are born in parts
        kind, zero, drop = run.split("-")
        target = Path(sys.argv[1]) / run
        target.mkdir(parents=True, exist_ok=True)
        main(kind, target, int(zero), drop == "drop")

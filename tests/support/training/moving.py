"""How far weights move in a training on recorded trajectories, given the types that they are loaded and computed in.

Run as a program, in one or more processes, it leaves for each run the float32 weights that the optimiser changes,
before and after: `python -m tests.support.training.moving FOLDER RUN...` with runs such as `dapo+lora-bf16-3` (what is
trained, the type, the ZeRO stage).
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tests.support.training.replay import ReplayingAgent, recorded
from tests.support.training.scripted_agent import World, answer_length, tasks
from thinkimg.api import GRPO, SFT, Lora
from thinkimg.training.collator import encode_samples
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import train_grpo
from thinkimg.training.rewards import BoundReward
from thinkimg.training.session import Session
from thinkimg.training.sft import train_sft

STEPS = 30


def masters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What the optimiser changes, whole, by name; with DeepSpeed its copies."""
    found = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        whole = None
        if hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping"):
            from deepspeed.utils import safe_get_full_fp32_param

            whole = safe_get_full_fp32_param(parameter)
        found[name.removeprefix("module.")] = (parameter.detach() if whole is None else whole).clone()
    return found


class Masters(TrainerCallback):
    def __init__(self) -> None:
        self.before: dict[str, torch.Tensor] = {}
        self.after: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.before = masters(model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.after = masters(model)


def train(kind: str, dtype: str, zero: int, folder: Path) -> tuple[World, Masters]:
    """SFT at 1e-5, or GRPO with the loss `kind` at 1e-6, with AdamW; `+lora` trains adapters. The weights come from
    bfloat16 whatever `dtype` is: `bf16` trains the model as loaded so, `float32` one that was made float32."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kind, _, adapters = kind.partition("+")
    world, watch = World(), Masters()
    world.model.to(torch.bfloat16)
    if dtype == "float32":
        world.model.to(torch.float32)
    session = Session(folder, world_size=int(os.environ.get("WORLD_SIZE", "1")), callbacks=[watch])
    block: dict[str, Any] = {
        "max_steps": STEPS,
        "zero_stage": zero,
        "lora": Lora(rank=4, alpha=8.0) if adapters else None,
        "args": {"bf16": dtype == "bf16", "lr_scheduler_type": "constant"},
    }
    if kind == "sft":
        block["args"]["gradient_checkpointing"] = True
        samples, _ = encode_samples(world.family, [recorded(world, task, n) for n, task in enumerate(tasks(8))])
        train_sft(world.loaded, samples, SFT(learning_rate=1e-5, batch_size=4, **block), session)
    else:
        spec = GRPO(
            prompts_per_step=2, num_generations=4, learning_rate=1e-6, loss_type=kind, resample_limit=0, max_rounds=4,
            max_tokens_per_turn=16, **block,
        )  # fmt: skip
        episodes = Episodes(ReplayingAgent(world, 4), tasks(4), [BoundReward("length", answer_length)])
        train_grpo(world.loaded, episodes, spec, session)
    return world, watch


def main(run: str, folder: Path) -> None:
    kind, dtype, zero = run.split("-")
    folder.mkdir(parents=True, exist_ok=True)
    world, watch = train(kind, dtype, int(zero), folder)
    if os.environ.get("RANK", "0") == "0":
        after = {name: parameter.detach() for name, parameter in world.model.named_parameters()}
        torch.save({"before": watch.before, "after": watch.after, "model": after}, folder / "masters.pt")


if __name__ == "__main__":
    from accelerate.state import AcceleratorState, GradientState
    from transformers.integrations import unset_hf_deepspeed_config

    for name in sys.argv[2:]:  # one process for all: most of a run is imports
        AcceleratorState._reset_state()
        GradientState._reset_state()
        unset_hf_deepspeed_config()  # or models that are made after a run with ZeRO-3 are born in parts
        main(name, Path(sys.argv[1]) / name)

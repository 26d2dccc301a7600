"""GRPO in two processes, each with an engine of its own: what `test_two_engines.py` launches."""

import hashlib
import json
import os
import sys
from pathlib import Path

import torch

from tests.support.engine.talkers import Talker, save_tiny, task
from thinkimg.models.families.qwen_vl import QwenVL
from thinkimg.models.vllm.generator import VLLMGenerator
from thinkimg.training.grpo import GRPOSettings, ToolGRPOTrainer, grpo_config
from thinkimg.training.rewards import Reward


def train(folder: Path, rank: int, world_size: int) -> dict:
    """Two steps; then one more generation, scored: how far the engine is from the trainer."""
    torch.set_num_threads(1)
    model, processor = save_tiny(folder / f"tiny-{rank}")
    family = QwenVL(processor)
    generator = VLLMGenerator(family)
    engine = {"use_vllm": True, "vllm_max_model_length": 512, "vllm_gpu_memory_utilization": 0.1}
    settings = GRPOSettings(steps=2, prompts_per_step=4, generations=4, learning_rate=3e-3, trl=engine)
    # Trajectories of unlike lengths on the two ranks: nobody waits for the other within a turn.
    talker = Talker(family, generator, turns=2 + rank, tokens=6 + 6 * rank)
    trainer = ToolGRPOTrainer(
        model, processor, family, talker, [task(n) for n in range(8)],
        [Reward("length", lambda trajectory: float(sum(map(ord, trajectory.answer or "")) % 7))],
        grpo_config(settings, folder / "out", world_size), settings, vllm=generator,
    )  # fmt: skip
    trainer.train()
    trainer.model.train()
    batch = trainer._generate_and_score_completions([trainer.train_dataset[n // 4] for n in range(8)])
    difference = []
    for row, logps in zip(trainer.rows, batch["old_per_token_logps"], strict=True):
        own = torch.tensor(row.mask, dtype=torch.bool)
        difference.append((torch.tensor(row.logprobs) - logps[: len(row.mask)])[own].abs())
    weights = b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())
    trainer.close()
    return {
        "weights": hashlib.sha256(weights).hexdigest(),
        "difference": float(torch.cat(difference).mean()),
        "turns": max(t.rounds for group in trainer.groups for t in group.trajectories),
        "masked": sum(row.masked is not None for row in trainer.rows),
    }


if __name__ == "__main__":
    rank = int(os.environ["RANK"])
    result = train(Path(sys.argv[1]), rank, int(os.environ["WORLD_SIZE"]))
    (Path(sys.argv[1]) / f"rank-{rank}.json").write_text(json.dumps(result))
    os._exit(0)  # vLLM's and TRL's process groups end with the process

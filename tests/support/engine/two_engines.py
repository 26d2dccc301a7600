"""GRPO in two processes, each with an engine of its own: what `test_two_engines.py` launches."""

import hashlib
import json
import os
import sys
from pathlib import Path

import torch

from tests.support.engine.talkers import Talker, loaded, save_tiny, task
from thinkimg.api import GRPO
from thinkimg.models.vllm.generator import VLLMGenerator
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import ToolGRPOTrainer, grpo_config
from thinkimg.training.rewards import BoundReward
from thinkimg.training.session import Session


def train(folder: Path, rank: int, world_size: int) -> dict:
    """Two steps; then one more generation, scored: how far the engine is from the trainer."""
    torch.set_num_threads(1)
    model = loaded(*save_tiny(folder / f"tiny-{rank}"))
    generator = VLLMGenerator(model.family)
    engine = {"use_vllm": True, "vllm_max_model_length": 512, "vllm_gpu_memory_utilization": 0.1}
    spec = GRPO(max_steps=2, prompts_per_step=4, num_generations=4, learning_rate=3e-3)
    # Trajectories of unlike lengths on the two ranks: nobody waits for the other within a turn.
    talker = Talker(model.family, generator, turns=2 + rank, tokens=6 + 6 * rank)
    reward = BoundReward("length", lambda trajectory: float(sum(map(ord, trajectory.answer or "")) % 7))
    episodes = Episodes(talker, [task(n) for n in range(8)], [reward], vllm=generator)
    session = Session(folder / "out", world_size=world_size, engine=engine)
    trainer = ToolGRPOTrainer(model, episodes, spec, grpo_config(spec, session))
    trainer.train()
    trainer.model.train()
    batch = trainer._generate_and_score_completions([trainer.train_dataset[n // 4] for n in range(8)])
    difference = []
    for row, logps in zip(trainer.rows, batch["old_per_token_logps"], strict=True):
        own = torch.tensor(row.mask, dtype=torch.bool)
        difference.append((torch.tensor(row.logprobs) - logps[: len(row.mask)])[own].abs())
    weights = b"".join(parameter.detach().numpy().tobytes() for parameter in model.model.parameters())
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

"""Two steps of GRPO in as many processes as it is launched with; prints a hash of the weights at the end."""

import hashlib
import os
import sys
from pathlib import Path

import torch

from tests.support.training.scripted_agent import ScriptedAgent, World, answer_length, tasks
from thinkimg.api import GRPO
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import train_grpo
from thinkimg.training.rewards import BoundReward
from thinkimg.training.session import Session


def two_steps(folder: Path, world_size: int) -> str:
    torch.set_num_threads(1)
    world = World()
    agent = ScriptedAgent(world, rounds=lambda task, number: 1 + number % 3)
    spec = GRPO(max_steps=2, prompts_per_step=4, num_generations=4, learning_rate=1e-3)
    episodes = Episodes(agent, tasks(8), [BoundReward("length", answer_length)])
    train_grpo(world.loaded, episodes, spec, Session(folder, world_size=world_size))
    weights = b"".join(parameter.detach().numpy().tobytes() for parameter in world.model.parameters())
    return hashlib.sha256(weights).hexdigest()


if __name__ == "__main__":
    weights = two_steps(Path(sys.argv[1]), int(os.environ["WORLD_SIZE"]))
    # A file per rank: what two processes print to one pipe may come out mixed.
    (Path(sys.argv[1]) / f"weights-{os.environ['RANK']}").write_text(weights)

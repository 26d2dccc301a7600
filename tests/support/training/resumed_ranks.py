"""Six steps of GRPO in the processes that torchrun starts, from the newest complete checkpoint on. With KILL, rank 1 is
killed in the middle of the fourth step's rollouts."""

import os
import signal
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback

from tests.support.training.scripted_agent import ScriptedAgent, World, answer_length, tasks
from thinkimg.api import GRPO
from thinkimg.training import step_log
from thinkimg.training.checkpoints import CheckpointCallback, newest_checkpoint
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import train_grpo
from thinkimg.training.rewards import BoundReward
from thinkimg.training.session import Session
from thinkimg.trajectory import Trajectory


class Killed(ScriptedAgent):
    """Ends its process, as a lost node does, while trajectories of the fourth step are under way."""

    step = -1

    async def run(self, task, seed: int, temperature: float = 1.0) -> Trajectory:
        trajectory = await super().run(task, seed, temperature)
        if os.environ.get("KILL") and self.step == 3 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return trajectory


class Counted(TrainerCallback):
    """Tells the agent which step begins."""

    def __init__(self, agent: Killed) -> None:
        self.agent = agent

    def on_step_begin(self, args, state, control, **_) -> None:
        self.agent.step = state.global_step


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    step_log.TRAJECTORIES_EVERY = 1
    world = World()
    agent = Killed(world, rounds=lambda task, number: 1 + int(task.id[-1]) % 3)
    spec = GRPO(max_steps=6, prompts_per_step=4, num_generations=4, learning_rate=1e-3)
    session = Session(
        folder, world_size=int(os.environ["WORLD_SIZE"]), save_every=2, resume_from=newest_checkpoint(folder),
        callbacks=[CheckpointCallback(keep=2), Counted(agent)],
    )  # fmt: skip
    train_grpo(world.loaded, Episodes(agent, tasks(8), [BoundReward("length", answer_length)]), spec, session)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

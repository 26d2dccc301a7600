"""Six steps of GRPO in the processes that torchrun starts, from the newest complete checkpoint on. With KILL, rank 1 is
killed in the middle of the fourth step's rollouts."""

import os
import signal
import sys
from pathlib import Path

import torch

from tests.support.training.scripted_agent import ScriptedAgent, World, answer_length, tasks
from thinkimg.training.checkpoints import CheckpointCallback, newest_checkpoint
from thinkimg.training.grpo import GRPOSettings, train_grpo
from thinkimg.training.rewards import Reward
from thinkimg.trajectory import Trajectory


class Killed(ScriptedAgent):
    """Ends its process, as a lost node does, while trajectories of the fourth step are under way."""

    step = -1

    async def run(self, task, seed: int, temperature: float = 1.0) -> Trajectory:
        trajectory = await super().run(task, seed, temperature)
        if os.environ.get("KILL") and self.step == 3 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return trajectory


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    world = World()
    agent = Killed(world, rounds=lambda task, number: 1 + int(task.id[-1]) % 3)
    settings = GRPOSettings(
        steps=6, prompts_per_step=4, generations=4, learning_rate=1e-3, save_steps=2, save_total_limit=None,
        trajectories_every=1,
    )  # fmt: skip

    def step(number: int) -> None:
        agent.step = number

    train_grpo(
        world.model, world.processor, world.family, agent, tasks(8), [Reward("length", answer_length)], settings,
        folder, world.features, before_rollouts=step, resume_from=newest_checkpoint(folder),
        world_size=int(os.environ["WORLD_SIZE"]), callbacks=[CheckpointCallback(keep=2)],
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))

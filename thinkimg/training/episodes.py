"""What a reinforcement run learns from: who makes trajectories, of which tasks, and what they are worth."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from thinkimg.errors import UserError
from thinkimg.models.vllm.generator import VLLMGenerator
from thinkimg.training.rewards import BoundReward
from thinkimg.training.rollouts import Actor
from thinkimg.trajectory import Task

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Episodes:
    """Where trajectories come from.

    Attributes:
        agent: makes trajectories with tokens; its generator must use the very model that is trained.
        tasks: to train on, at least as many as one step takes; no two of one id.
        rewards: see `thinkimg.training.rewards`.
        connect, disconnect: run on the rollouts' event loop, to which a tool client belongs, before the first step and
            after the last.
        vllm: the generator of `agent`, where it is to run on TRL's vLLM engine in this process.

    Raises:
        UserError: two tasks have the same id.
    """

    agent: Actor
    tasks: Sequence[Task]
    rewards: Sequence[BoundReward]
    connect: Work | None = None
    disconnect: Work | None = None
    vllm: VLLMGenerator | None = None

    def __post_init__(self) -> None:
        if len({task.id for task in self.tasks}) < len(self.tasks):
            raise UserError("two tasks have the same id; their trajectories would get the same random numbers", "tasks")

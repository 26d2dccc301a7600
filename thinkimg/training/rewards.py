"""Rewards: small functions from a trajectory to a number, combined by weights.

A reward returns None where it does not apply; it then counts neither for nor against the trajectory. One that asks
somebody else, such as a judge, is a coroutine function: those of a step run at the same time, and a failure of the
infrastructure there takes the trajectory out of the loss. Rewards of other packages are found by entry point (group
`thinkimg.rewards`, named `plugin/NAME`) or as `package.module:function`.
"""

import asyncio
import functools
import importlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, cast

from thinkimg.api import Reward
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.training.boxes import mean_iou, read_boxes
from thinkimg.trajectory import Trajectory

RewardFunction = Callable[[Trajectory], float | Awaitable[float | None] | None]
Scorer = Callable[[str, str], float]
"""(answer, reference) to a score between 0 and 1."""

ENTRY_POINTS = "thinkimg.rewards"
PLUGIN = "plugin/"


@dataclass(frozen=True)
class BoundReward:
    """A reward with its function, the name it is logged under and its weight in the sum.

    Attributes:
        target_rate: of a bonus for tool use: within a group of rollouts of one question, the reward is multiplied by
            max(0, 1 - share / target_rate), where share is that of rollouts with a positive reward. Tool use is pushed
            up to that rate, and no further. None: never.
    """

    name: str
    function: RewardFunction
    weight: float = 1.0
    target_rate: float | None = None


def accuracy(trajectory: Trajectory, scorer: Scorer) -> float | None:
    """The scorer's verdict on the answer; 0 without an answer, None for a question without a reference."""
    if trajectory.reference is None:
        return None
    if trajectory.answer is None:
        return 0.0
    return float(scorer(trajectory.answer, trajectory.reference))


def format_reward(trajectory: Trajectory) -> float:
    """1 if the episode ended with an answer and every turn of the model could be parsed, else 0."""
    return float(trajectory.status == "answered" and not trajectory.meta.get("malformed"))


def tool_success(trajectory: Trajectory) -> float | None:
    """Share of tool calls that were not the model's mistake; None without calls."""
    results = trajectory.tool_results
    return sum(result.error is None for result in results) / len(results) if results else None


def tool_use(trajectory: Trajectory) -> float:
    """1 if a tool was called and gave a result, else 0."""
    return float(any(result.error is None for result in trajectory.tool_results))


def length(trajectory: Trajectory, max_tokens: int) -> float:
    """1 for at most `max_tokens` of the model's own tokens, falling in a straight line to 0 at twice as many."""
    return min(1.0, max(0.0, 2.0 - sum(trajectory.mask) / max_tokens))


def iou(trajectory: Trajectory) -> float | None:
    """Mean overlap (intersection over union) of the answer's boxes with those of the reference, each paired at most
    once; a box without a partner counts 0. None where the reference names no box."""
    wanted = read_boxes(trajectory.reference or "")
    return mean_iou(read_boxes(trajectory.answer or ""), wanted) if wanted else None


REWARDS: dict[str, Callable[..., Any]] = {
    "accuracy": accuracy,
    "format": format_reward,
    "iou": iou,
    "length": length,
    "tool-success": tool_success,
    "tool-use": tool_use,
}


def make_rewards(rewards: Sequence[Reward], scorer: Scorer | None = None) -> list[BoundReward]:
    """The rewards that a manifest's entries name, in their order.

    Args:
        scorer: given to functions that have a parameter of this name.

    Raises:
        UserError: a plugin or a module that is not there, a judge without its key, a missing scorer.
    """
    return [BoundReward(reward.name, _bound(reward, scorer), reward.weight, reward.target_rate) for reward in rewards]


def _bound(reward: Reward, scorer: Scorer | None) -> RewardFunction:
    """The function with all but the trajectory given."""
    if reward.judge is not None:
        from thinkimg.training.judge import JudgeReward

        return JudgeReward(reward.judge)
    function = _find(reward.name)
    given: dict[str, Any] = {}
    if reward.max_tokens is not None:
        given["max_tokens"] = reward.max_tokens
    if "scorer" in inspect.signature(function).parameters:
        if scorer is None:
            raise UserError(f"the reward {reward.name!r} needs a scorer", "rewards")
        given["scorer"] = scorer
    return functools.partial(function, **given) if given else function


def total(trajectory: Trajectory, rewards: Sequence[BoundReward]) -> float | None:
    """The weighted sum of what `score` stored; None if no reward applied."""
    values = [
        reward.weight * trajectory.rewards[reward.name] for reward in rewards if reward.name in trajectory.rewards
    ]
    return sum(values) if values else None


def score(trajectory: Trajectory, rewards: Sequence[BoundReward]) -> None:
    """Fill `trajectory.rewards`, and `trajectory.correct` if accuracy is among them.

    Raises:
        InfrastructureError: whom a reward asks does not answer.
    """
    asyncio.run(_score(trajectory, rewards))


async def _score(trajectory: Trajectory, rewards: Sequence[BoundReward]) -> None:
    values = {reward.name: await _value(reward.function(trajectory)) for reward in rewards}
    trajectory.rewards = {name: float(value) for name, value in values.items() if value is not None}
    if "accuracy" in trajectory.rewards:
        trajectory.correct = trajectory.rewards["accuracy"] >= 0.5


async def score_group(
    trajectories: Sequence[Trajectory], rewards: Sequence[BoundReward]
) -> list[InfrastructureError | None]:
    """`score` the rollouts of one question at the same time, then let the bonuses for tool use fade; for each, the
    failure that left it without rewards."""
    found = await asyncio.gather(*(_score(one, rewards) for one in trajectories), return_exceptions=True)
    for error in found:
        if error is not None and not isinstance(error, InfrastructureError):
            raise error
    for reward in rewards:
        if reward.target_rate is not None:
            _fade(trajectories, reward.name, reward.target_rate)
    return cast("list[InfrastructureError | None]", found)


def _fade(trajectories: Sequence[Trajectory], name: str, target_rate: float) -> None:
    scored = [trajectory for trajectory in trajectories if name in trajectory.rewards]
    if not scored:
        return
    share = sum(trajectory.rewards[name] > 0 for trajectory in scored) / len(scored)
    left = max(0.0, 1 - share / target_rate) if target_rate else 0.0
    for trajectory in scored:
        trajectory.rewards[name] *= left


async def _value(given: float | Awaitable[float | None] | None) -> float | None:
    return await given if inspect.isawaitable(given) else given


def _find(name: str) -> Callable[..., Any]:
    if name in REWARDS:
        return REWARDS[name]
    if name.startswith(PLUGIN):
        return _plugin(name.removeprefix(PLUGIN))
    module, _, function = name.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"cannot load the reward {name}: {error}", "rewards") from error
    return found


def _plugin(name: str) -> Callable[..., Any]:
    known = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise UserError(
            f"no installed package has an entry point {name!r} in the group {ENTRY_POINTS}; there are: {there}",
            "rewards",
        )
    try:
        found: Callable[..., Any] = known[name].load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"cannot load the reward {PLUGIN}{name}: {error}", "rewards") from error
    return found

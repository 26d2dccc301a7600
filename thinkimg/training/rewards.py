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
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, cast

from thinkimg.api import Reward
from thinkimg.errors import InfrastructureError, UserError, describe
from thinkimg.training.boxes import mean_iou, read_boxes
from thinkimg.trajectory import Trajectory

RewardFunction = Callable[[Trajectory], float | Awaitable[float | None] | None]
Scorer = Callable[[str, str], float]
"""(answer, reference) to a score between 0 and 1."""
Verdict = Callable[[Trajectory], Awaitable[float]]
"""From 0 to 1. Raises `InfrastructureError`: whom it asks does not answer."""

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


async def judged_accuracy(trajectory: Trajectory, verdict: Verdict) -> float | None:
    """As `accuracy`, by whoever says what is right of a whole trajectory."""
    if trajectory.reference is None:
        return None
    return 0.0 if trajectory.answer is None else await verdict(trajectory)


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


def make_rewards(
    rewards: Sequence[Reward], scorer: Scorer | None = None, verdict: Verdict | None = None
) -> list[BoundReward]:
    """The rewards that a manifest's entries name, in their order.

    Args:
        scorer: given to functions that have a parameter of this name.
        verdict: whether an answer is right, with all that its trajectory says: what `accuracy` is, instead of the
            scorer's word.

    Raises:
        UserError: a plugin or a module that is not there, a judge without its key, a missing scorer.
    """
    return [
        BoundReward(reward.name, _bound(reward, scorer, verdict), reward.weight, reward.target_rate)
        for reward in rewards
    ]


def _bound(reward: Reward, scorer: Scorer | None, verdict: Verdict | None) -> RewardFunction:
    """The function with all but the trajectory given."""
    if reward.name == "accuracy" and verdict is not None:
        return functools.partial(judged_accuracy, verdict=verdict)
    if reward.judge is not None:
        from thinkimg.training.judge import JudgeReward

        return JudgeReward(reward.judge)
    function = _find(reward.name)
    given: dict[str, Any] = {}
    if reward.max_tokens is not None:
        given["max_tokens"] = reward.max_tokens
    if "scorer" in inspect.signature(function).parameters:
        if scorer is None:
            needs = "needs a scorer that is a rule of answer and reference, such as exact"
            raise UserError(f"the reward {reward.name!r} {needs}", "rewards")
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
        RewardError: a reward raises, or gives no finite number.
        InfrastructureError: whom a reward asks does not answer.
    """
    asyncio.run(_score(trajectory, rewards))


async def _score(trajectory: Trajectory, rewards: Sequence[BoundReward]) -> None:
    values = {reward.name: await value_of(reward, trajectory) for reward in rewards}
    trajectory.rewards = {name: value for name, value in values.items() if value is not None}
    if "accuracy" in trajectory.rewards:
        trajectory.correct = trajectory.rewards["accuracy"] == 1.0  # partial credit is not right: as in evaluations


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


class RewardError(UserError):
    """A reward that raises, or gives something that no model can learn from."""

    def __init__(self, reward: BoundReward, trajectory: Trajectory, message: str) -> None:
        super().__init__(f"the reward {reward.name} {message} (trajectory {trajectory.id})", "rewards")


async def value_of(reward: BoundReward, trajectory: Trajectory) -> float | None:
    """What a reward gives for a trajectory; None where it does not apply.

    Raises:
        RewardError: it raises, or gives no finite number.
        InfrastructureError: whom it asks does not answer.
    """
    try:
        given: Any = reward.function(trajectory)
        given = await given if inspect.isawaitable(given) else given
    except InfrastructureError:
        raise
    except UserError as error:
        raise RewardError(reward, trajectory, f"cannot be computed: {error}") from error
    except Exception as error:  # the user's own code
        said = f"raises {describe(error)}; a reward takes one Trajectory and returns a number or None"
        raise RewardError(reward, trajectory, said) from error
    if given is None:
        return None
    try:
        value = float(given)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = f"{type(given).__name__} {given!r}"[:120]
        raise RewardError(reward, trajectory, f"gives the {kind}, not one number or None") from error
    if not math.isfinite(value * reward.weight):
        weighted = "" if reward.weight == 1.0 or not math.isfinite(value) else f", weighted with {reward.weight:g}"
        raise RewardError(reward, trajectory, f"gives {value}{weighted}, which is not finite")
    return value


def _find(name: str) -> Callable[..., Any]:
    if name in REWARDS:
        return REWARDS[name]
    if name.startswith(PLUGIN):
        return _plugin(name.removeprefix(PLUGIN))
    module, _, function = name.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever a module does when it is imported
        raise UserError(f"cannot load the reward {name}: {describe(error)}", "rewards") from error
    return _callable(found, name)


def _callable(found: Any, name: str) -> Callable[..., Any]:
    if not callable(found):
        raise UserError(f"the reward {name} is a {type(found).__name__}, not a function", "rewards")
    return cast("Callable[..., Any]", found)


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
    except Exception as error:  # whatever a module does when it is imported
        raise UserError(f"cannot load the reward {PLUGIN}{name}: {describe(error)}", "rewards") from error
    return _callable(found, name)

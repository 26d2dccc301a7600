"""Rewards: small functions from a trajectory to a number, combined by weights.

A reward returns None where it does not apply; it then counts neither for nor against the trajectory. One that asks
somebody else, such as a judge, is a coroutine function: those of a step run at the same time, and a failure of the
infrastructure there takes the trajectory out of the loss. Rewards of other packages are found by entry point (group
`thinkimg.rewards`, named `plugin/NAME`) or as `package.module:function`.
"""

import asyncio
import difflib
import functools
import importlib
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, cast

from thinkimg.errors import InfrastructureError, UserError
from thinkimg.training.boxes import mean_iou, read_boxes
from thinkimg.trajectory import Trajectory

RewardFunction = Callable[[Trajectory], float | Awaitable[float | None] | None]
Scorer = Callable[[str, str], float]
"""(answer, reference) to a score between 0 and 1."""

ENTRY_POINTS = "thinkimg.rewards"
PLUGIN = "plugin/"


@dataclass(frozen=True)
class Reward:
    """A reward with the name it is logged under and its weight in the sum.

    Attributes:
        target_rate: of a bonus for tool use: within a group of rollouts of one question, the reward is multiplied by
            max(0, 1 - share / target_rate), where share is that of rollouts with a positive reward. Tool use is pushed
            up to that rate, and no further. None: never.
    """

    name: str
    function: RewardFunction
    weight: float = 1.0
    target_rate: float | None = None


@dataclass(frozen=True)
class RewardSpec:
    """What to make a reward of: its weight, its rate (see `Reward`), and arguments of its function by name."""

    weight: float = 1.0
    target_rate: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


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


def _judge(**options: Any) -> RewardFunction:
    from thinkimg.training.judge import Judge

    return Judge(**options)


REWARDS: dict[str, Callable[..., Any]] = {
    "accuracy": accuracy,
    "format": format_reward,
    "iou": iou,
    "judge": _judge,
    "length": length,
    "tool-success": tool_success,
    "tool-use": tool_use,
}
_MADE = (_judge,)
"""Functions that make the reward, rather than being it."""


def make_rewards(weights: Mapping[str, float | RewardSpec], scorer: Scorer | None = None) -> list[Reward]:
    """Rewards by name (or `plugin/NAME`, or `module:function`) and weight.

    Args:
        weights: name to weight, in the order of the log.
        scorer: given to functions that have a parameter of this name.

    Raises:
        UserError: unknown name (the nearest is suggested), a module that cannot be imported, a missing scorer.
    """
    if not weights:
        raise UserError("at least one reward is needed, for example accuracy: 1.0", "rewards")
    rewards = []
    for name, given in weights.items():
        spec = given if isinstance(given, RewardSpec) else RewardSpec(given)
        function = _bound(name, _find(name), scorer, spec.options)
        rewards.append(Reward(name, function, spec.weight, spec.target_rate))
    return rewards


def total(trajectory: Trajectory, rewards: Sequence[Reward]) -> float | None:
    """The weighted sum of what `score` stored; None if no reward applied."""
    values = [
        reward.weight * trajectory.rewards[reward.name] for reward in rewards if reward.name in trajectory.rewards
    ]
    return sum(values) if values else None


def score(trajectory: Trajectory, rewards: Sequence[Reward]) -> None:
    """Fill `trajectory.rewards`, and `trajectory.correct` if accuracy is among them.

    Raises:
        InfrastructureError: whom a reward asks does not answer.
    """
    asyncio.run(_score(trajectory, rewards))


async def _score(trajectory: Trajectory, rewards: Sequence[Reward]) -> None:
    values = {reward.name: await _value(reward.function(trajectory)) for reward in rewards}
    trajectory.rewards = {name: float(value) for name, value in values.items() if value is not None}
    if "accuracy" in trajectory.rewards:
        trajectory.correct = trajectory.rewards["accuracy"] >= 0.5


async def score_group(
    trajectories: Sequence[Trajectory], rewards: Sequence[Reward]
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
    module, colon, function = name.partition(":")
    if colon:
        try:
            found: Callable[..., Any] = getattr(importlib.import_module(module), function)
            return found
        except (ImportError, AttributeError) as error:
            raise UserError(f"cannot load the reward {name}: {error}", "rewards") from error
    nearest = difflib.get_close_matches(name, REWARDS, 1, 0.0)[0]
    raise UserError(
        f"unknown reward {name!r}; did you mean {nearest!r}? Known: {', '.join(REWARDS)}, plugin/NAME or "
        "module:function",
        "rewards",
    )


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


def _bound(
    name: str, function: Callable[..., Any], scorer: Scorer | None, options: Mapping[str, Any]
) -> RewardFunction:
    if function in _MADE:
        return cast(RewardFunction, function(**options))
    given = dict(options)
    if "scorer" in inspect.signature(function).parameters:
        if scorer is None:
            raise UserError(f"the reward {name!r} needs a scorer", "rewards")
        given["scorer"] = scorer
    return functools.partial(function, **given) if given else function

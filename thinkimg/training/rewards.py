"""Rewards: small functions from a trajectory to a number, combined by weights.

A reward returns None where it does not apply; it then counts neither for nor against the trajectory. Custom rewards
are named by entry point, `package.module:function`.
"""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from thinkimg.errors import UserError
from thinkimg.trajectory import Trajectory

RewardFunction = Callable[[Trajectory], float | None]
Scorer = Callable[[str, str], float]
"""(answer, reference) to a score between 0 and 1."""


@dataclass(frozen=True)
class Reward:
    """A reward with the name it is logged under and its weight in the sum."""

    name: str
    function: RewardFunction
    weight: float = 1.0


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


REWARDS: dict[str, Callable[..., float | None]] = {
    "accuracy": accuracy,
    "format": format_reward,
    "tool-success": tool_success,
}


def make_rewards(weights: Mapping[str, float], scorer: Scorer | None = None) -> list[Reward]:
    """Rewards by name (or entry point `module:function`) and weight.

    Args:
        weights: name to weight, in the order of the log.
        scorer: given to functions that have a parameter of this name.

    Raises:
        UserError: unknown name (the nearest is suggested), a module that cannot be imported, a missing scorer.
    """
    if not weights:
        raise UserError("at least one reward is needed, for example accuracy: 1.0", "rewards")
    return [Reward(name, _bound(name, _find(name), scorer), weight) for name, weight in weights.items()]


def total(trajectory: Trajectory, rewards: Sequence[Reward]) -> float | None:
    """The weighted sum of what `score` stored; None if no reward applied."""
    values = [
        reward.weight * trajectory.rewards[reward.name] for reward in rewards if reward.name in trajectory.rewards
    ]
    return sum(values) if values else None


def score(trajectory: Trajectory, rewards: Sequence[Reward]) -> None:
    """Fill `trajectory.rewards`, and `trajectory.correct` if accuracy is among them."""
    values = {reward.name: reward.function(trajectory) for reward in rewards}
    trajectory.rewards = {name: float(value) for name, value in values.items() if value is not None}
    if "accuracy" in trajectory.rewards:
        trajectory.correct = trajectory.rewards["accuracy"] >= 0.5


def _find(name: str) -> Callable[..., float | None]:
    if name in REWARDS:
        return REWARDS[name]
    module, colon, function = name.partition(":")
    if colon:
        try:
            found: Callable[..., float | None] = getattr(importlib.import_module(module), function)
            return found
        except (ImportError, AttributeError) as error:
            raise UserError(f"cannot load the reward {name}: {error}", "rewards") from error
    nearest = difflib.get_close_matches(name, REWARDS, 1, 0.0)[0]
    raise UserError(
        f"unknown reward {name!r}; did you mean {nearest!r}? Known: {', '.join(REWARDS)}, or module:function", "rewards"
    )


def _bound(name: str, function: Callable[..., float | None], scorer: Scorer | None) -> RewardFunction:
    if "scorer" not in inspect.signature(function).parameters:
        return function
    if scorer is None:
        raise UserError(f"the reward {name!r} needs a scorer", "rewards")
    return functools.partial(function, scorer=scorer)

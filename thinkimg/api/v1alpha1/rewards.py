"""The rewards of a GRPO stage: built-in ones by name, the user's own as `module:function`."""

from __future__ import annotations

import re
from typing import Annotated

from .resource import Block, Checked, Rule, Violation, refuse, refuse_all, suggestion

BUILT_IN_REWARDS = ("accuracy", "format", "tool-success")
_FUNCTION = r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*"


def _reward_name(name: str) -> str:
    if name not in BUILT_IN_REWARDS and not re.fullmatch(_FUNCTION, name):
        refuse(
            f'there is no reward "{name}"',
            f"{suggestion(name, BUILT_IN_REWARDS)} A function of your own is written module:function.",
        )
    return name


_REWARD_NAME = Checked(
    _reward_name,
    (
        Rule(
            f"self in {list(BUILT_IN_REWARDS)} || self.matches('^{_FUNCTION}$')",
            f"there is no such reward. Built in are {', '.join(BUILT_IN_REWARDS)}; a function of your own is written "
            "module:function.",
        ),
    ),
)


class Reward(Block):
    """One summand of the reward."""

    name: Annotated[str, _REWARD_NAME]
    """`accuracy`, `format`, `tool-success` (share of calls that were not the model's mistake), or `module:function`
    from `spec.code`."""
    weight: float = 1.0
    """Its factor; 0 only records it."""


def distinct_rewards(rewards: list[Reward]) -> list[Reward]:
    """Each reward once: a second entry of the same name is a mistake, not a sum."""
    names = [reward.name for reward in rewards]
    refuse_all(
        Violation((i, "name"), f'"{name}" is there twice', "Keep one of them.")
        for i, name in enumerate(names)
        if name in names[:i]
    )
    return rewards

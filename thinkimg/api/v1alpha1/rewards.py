"""The rewards of a GRPO stage: built-in ones by name, the user's own as `module:function`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, model_validator

from .resource import Block, Checked, Fraction, Rule, Tokens, Violation, refuse, refuse_all, suggestion
from .uris import ENDPOINT_URL

BUILT_IN_REWARDS = ("accuracy", "format", "iou", "judge", "length", "tool-success", "tool-use")
_FUNCTION = r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*"
_PLUGIN = r"plugin/[A-Za-z0-9][A-Za-z0-9._-]*"
_OPTION_OF = {"target_rate": "tool-use", "max_tokens": "length", "judge": "judge"}
"""Which reward a setting belongs to."""


def _known_or_own(kind: str, known: Sequence[str]) -> Checked:
    """One of the built-in names of a `kind`, a function of the user's own, or one of an installed package."""
    own = "function of your own is written module:function, one of an installed package plugin/NAME."

    def check(name: str) -> str:
        if name not in known and not re.fullmatch(f"{_FUNCTION}|{_PLUGIN}", name):
            refuse(f'there is no {kind} "{name}"', f"{suggestion(name, known)} A {own}")
        return name

    rule = Rule(
        f"self in {list(known)} || self.matches('^({_FUNCTION}|{_PLUGIN})$')",
        f"there is no such {kind}. Built in are {', '.join(known)}; a {own}",
    )
    return Checked(check, (rule,))


class Judge(Block):
    """A model behind an OpenAI-compatible address that says how good an answer is."""

    base_url: Annotated[str, ENDPOINT_URL]
    """Address up to and including `/v1`."""
    model: str
    """Name of the model, as the endpoint knows it."""
    api_key_variable: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$", max_length=253)] | None = None
    """Environment variable that holds the API key, from `spec.env` or `spec.secretRefs`; default: none is sent."""
    criteria: Annotated[str, Field(max_length=4000)] = "Does the answer say the same as the reference?"
    """The question that the judge answers with a number between 0 and 1."""


SCORERS = (
    "exact", "relaxed", "relaxed_normalised", "charxiv", "multiple_choice", "lmms_eval_vstar", "vlmevalkit_choice",
    "openthinkimg_fuzzy", "judge"
)  # fmt: skip


class Scorer(Block):
    """What decides whether an answer is right."""

    cel = (
        Rule(
            "(self.name == 'judge') == has(self.judge)",
            "the scorer judge needs judge: {baseUrl, model}; no other has it. Correct one of the two.",
        ),
    )

    name: Annotated[str, _known_or_own("scorer", SCORERS)]
    """`relaxed_normalised` (numbers within 5 %), `exact`, `multiple_choice` (by the row's `options`), another of those
    that `thinkimg eval` has, `judge`, or a function of your own, written and found as a reward is: 1 is right."""
    judge: Judge | None = None
    """judge: who judges; it says yes or no."""

    @model_validator(mode="after")
    def _judge_belongs(self) -> Scorer:
        if self.name == "judge" and self.judge is None:
            refuse_all([Violation(("judge",), "nobody is named who judges", "Give baseUrl and model.")])
        if self.name != "judge" and self.judge is not None:
            refuse_all([Violation(("judge",), "it belongs to the scorer judge", "Remove it.")])
        return self


def _option_rules() -> tuple[Rule, ...]:
    aliases = {"target_rate": "targetRate", "max_tokens": "maxTokens", "judge": "judge"}
    rules = [
        Rule(
            f"!has(self.{aliases[option]}) || self.name == '{name}'",
            f"{aliases[option]} belongs to the reward {name}. Remove it.",
        )
        for option, name in _OPTION_OF.items()
    ]
    needed = Rule(
        "(self.name != 'judge' || has(self.judge)) && (self.name != 'length' || has(self.maxTokens))",
        "the reward judge needs judge: {baseUrl, model}, the reward length needs maxTokens. Add it.",
    )
    return (*rules, needed)


class Reward(Block):
    """One summand of the reward."""

    cel = _option_rules()

    name: Annotated[str, _known_or_own("reward", BUILT_IN_REWARDS)]
    """`accuracy`; `format`; `tool-success` (share of calls that were not the model's mistake); `tool-use` (1 with a
    call that worked); `length` (1 up to `maxTokens` own tokens, falling to 0 at twice as many); `iou` (overlap of the
    answer's boxes with the reference's); `judge`; `module:function` from `spec.code`; or `plugin/NAME`, an entry point
    of the group `thinkimg.rewards` of an installed package."""
    weight: float = 1.0
    """Its factor; 0 only records it."""
    target_rate: Fraction | None = None
    """tool-use: the reward fades as the share of the question's rollouts that use tools nears this, and is 0 from there
    on. Default: it never fades."""
    max_tokens: Tokens | None = None
    """length: up to so many tokens the reward is 1."""
    judge: Judge | None = None
    """judge: who judges."""

    @model_validator(mode="after")
    def _options_belong(self) -> Reward:
        violations = [
            Violation((option,), f"it belongs to the reward {name}", "Remove it.")
            for option, name in _OPTION_OF.items()
            if getattr(self, option) is not None and self.name != name
        ]
        if self.name == "judge" and self.judge is None:
            violations.append(Violation(("judge",), "nobody is named who judges", "Give baseUrl and model."))
        if self.name == "length" and self.max_tokens is None:
            violations.append(Violation(("maxTokens",), "it says no length", "Give a number of tokens."))
        refuse_all(violations)
        return self


def distinct_rewards(rewards: list[Reward]) -> list[Reward]:
    """Each reward once: a second entry of the same name is a mistake, not a sum."""
    names = [reward.name for reward in rewards]
    refuse_all(
        Violation((i, "name"), f'"{name}" is there twice', "Keep one of them.")
        for i, name in enumerate(names)
        if name in names[:i]
    )
    return rewards

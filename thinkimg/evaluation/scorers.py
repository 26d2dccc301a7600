"""Scorers by name: how right an answer is, from 0 to 1.

A benchmark has two: an *official* one, whose verdicts are those of a published implementation, for comparisons with
papers, and a *normalised* one, ours, which forgives form and nothing else.

Official:
relaxed              ChartQA's relaxed accuracy (Masry et al., 2022), as in lmms-eval
lmms_eval_vstar      the letter that lmms-eval's V*Bench reads (Wu & Xie, 2023)
vlmevalkit_choice    the option that VLMEvalKit reads without a judge (Duan et al., 2024)
openthinkimg_fuzzy   OpenThinkIMG's ladder, with partial credit for similar strings (Su et al., 2025)

Normalised:
relaxed_normalised   a number within 5 %, in any notation; the same text but for its form
multiple_choice      the right option, by letter or text, read alike for every letter
charxiv              CharXiv's grading rules by the kind of question, without its judge (Wang et al., 2024)
exact                the same text but for its form; a number of the same value

By a model (`--judge`):
charxiv_judge        CharXiv's own judge: official, if the model is its (Wang et al., 2024)
reachqa_judge        ReachQA's own judge, likewise (He et al., 2024)
judge                what a judge model says, asked in our words by CharXiv's rules

`openthinkimg_fuzzy` exists so that published numbers can be compared with; "decrease" gets 0.67 of "increase" there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeGuard

from thinkimg.data.choices import lettered
from thinkimg.errors import UserError
from thinkimg.evaluation import charxiv, choices, official, openthinkimg_fuzzy
from thinkimg.evaluation.metrics import exact_match, relaxed_match
from thinkimg.trajectory import Trajectory

Role = Literal["official", "normalised"]


class Scorer(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """What its verdict on an answer follows from: an answer with a score of another version is scored again."""
        ...

    async def score(self, trajectory: Trajectory) -> float:
        """From 0 to 1; an answer that is missing gets 0.

        Raises:
            InfrastructureError: a judge does not answer.
        """
        ...


class GroupScorer(Scorer, Protocol):
    """One that judges some answers several at a time, when all are there.

    Attributes:
        size: at most so many at once.
    """

    @property
    def size(self) -> int: ...

    def group_of(self, meta: Mapping[str, Any]) -> str | None:
        """Of a trajectory's `meta`: answers of one group are judged together, in order; None: `score` says it."""
        ...

    async def score_group(self, trajectories: Sequence[Trajectory]) -> list[float]: ...


def is_group_scorer(scorer: Scorer) -> TypeGuard[GroupScorer]:
    return hasattr(scorer, "group_of")


def waits(scorer: Scorer, meta: Mapping[str, Any]) -> bool:
    """Whether it judges an answer together with others."""
    return is_group_scorer(scorer) and scorer.group_of(meta) is not None


@dataclass(frozen=True)
class RuleScorer:
    """A scorer that only computes. `rule` is given the answer (never None), the reference, and the trajectory.

    Attributes:
        role: what kind of scorer it is.
        beside: the scorer of the other kind that is shown beside it.
        source: of an official one.
        version: another one when the rule's verdicts change. `tests/unit/evaluation/scorer_versions.json` holds them
            to that.
    """

    name: str
    rule: Callable[[str, str, Trajectory], float]
    role: Role = "normalised"
    beside: str = ""
    source: official.Source | None = None
    version: str = "1"

    async def score(self, trajectory: Trajectory) -> float:
        return self.of(trajectory)

    def of(self, trajectory: Trajectory) -> float:
        if trajectory.answer is None:
            return 0.0
        return float(self.rule(trajectory.answer, trajectory.reference or "", trajectory))


def same_choice(answer: str, reference: str, meta: Mapping[str, Any]) -> bool:
    """Whether both name the same option, by letter or text; the options are the row's `options` or `choices`."""
    options = options_of(meta)
    named = choices.choose(answer, options)
    return named is not None and named == (choices.choose(reference, options) or reference.strip())


def options_of(meta: Mapping[str, Any]) -> dict[str, str]:
    return lettered(meta.get("options") or meta.get("choices"))


RULES: dict[str, RuleScorer] = {
    scorer.name: scorer
    for scorer in (
        RuleScorer("exact", lambda answer, reference, _: exact_match(answer, reference)),
        RuleScorer(
            "relaxed",
            lambda answer, reference, _: official.relaxed(answer, reference),
            "official",
            "relaxed_normalised",
            official.CHARTQA,
        ),
        RuleScorer(
            "relaxed_normalised", lambda answer, reference, _: relaxed_match(answer, reference), beside="relaxed"
        ),
        RuleScorer("charxiv", lambda answer, reference, of: charxiv.score(answer, reference, of.meta.get("rubric"))),
        RuleScorer(
            "multiple_choice",
            lambda answer, reference, of: same_choice(answer, reference, of.meta),
            beside="vlmevalkit_choice",
        ),
        RuleScorer(
            "lmms_eval_vstar",
            lambda answer, reference, _: official.vstar_letter(answer) == reference.strip().upper(),
            "official",
            "multiple_choice",
            official.VSTAR,
        ),
        RuleScorer(
            "vlmevalkit_choice",
            lambda answer, reference, of: official.vlmevalkit_letter(answer, options_of(of.meta)) == reference.strip(),
            "official",
            "multiple_choice",
            official.VLMEVALKIT,
        ),
        RuleScorer(
            "openthinkimg_fuzzy",
            lambda answer, reference, _: openthinkimg_fuzzy.score(answer, reference),
            "official",
            "relaxed_normalised",
            official.CHARTGEMMA,
        ),
    )
}
JUDGE = "judge"
NAMES = (*RULES, JUDGE)
JUDGES = (*official.JUDGES, JUDGE)
"""Scorers that ask a model."""


def find_rule(name: str) -> RuleScorer:
    if name not in RULES:
        raise UserError(f"there is no scorer {name!r}; there are {', '.join((*RULES, *JUDGES))}", "--scorer")
    return RULES[name]

"""Scorers by name: how right an answer is, from 0 to 1, as each benchmark defines it.

exact                the same text but for case, quotes, articles and white space; a number of the same value
relaxed              the same text but for case; a number within 5 % (ChartQA: Masry et al., 2022; as in lmms-eval)
relaxed_normalised   both: a number within 5 %, text as in `exact`
charxiv              CharXiv's grading rules by the kind of question, without its judge (Wang et al., 2024)
multiple_choice      the right option's letter or text (VLMEvalKit: Duan et al., 2024; V*Bench of lmms-eval)
openthinkimg_fuzzy   OpenThinkIMG's ladder, with partial credit for similar strings (its `tf_eval`, task chartgemma)
judge                what a judge model says (ReachQA: He et al., 2024, for what is put to it)

`openthinkimg_fuzzy` exists so that published numbers can be compared with; "decrease" gets 0.67 of "increase" there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from thinkimg.errors import UserError
from thinkimg.evaluation import charxiv, choices, openthinkimg_fuzzy
from thinkimg.evaluation.metrics import normalise_text, parse_number, relaxed_match
from thinkimg.trajectory import Trajectory


class Scorer(Protocol):
    @property
    def name(self) -> str: ...

    async def score(self, trajectory: Trajectory) -> float:
        """From 0 to 1; an answer that is missing gets 0.

        Raises:
            InfrastructureError: a judge does not answer.
        """
        ...


@dataclass(frozen=True)
class RuleScorer:
    """A scorer that only computes. `rule` is given the answer (never None), the reference, and the trajectory."""

    name: str
    rule: Callable[[str, str, Trajectory], float]

    async def score(self, trajectory: Trajectory) -> float:
        return self.of(trajectory)

    def of(self, trajectory: Trajectory) -> float:
        if trajectory.answer is None:
            return 0.0
        return float(self.rule(trajectory.answer, trajectory.reference or "", trajectory))


def exact(answer: str, reference: str) -> bool:
    """Equal as normalised text, or numbers of the same value (`1.0` is `1`, `12%` is `0.12`)."""
    expected, given = parse_number(reference), parse_number(answer)
    if expected is not None and given is not None:
        return given == expected
    return normalise_text(answer) == normalise_text(reference)


def relaxed(answer: str, reference: str, tolerance: float = 0.05) -> bool:
    """ChartQA's relaxed accuracy, in the form that Qwen-VL's evaluation gave it and lmms-eval took over.

    Numbers within 5 % of the reference agree (Masry et al., 2022, end of section 5.1); a percent sign divides by 100. A
    reference of zero, and everything that is no number, must be the same text but for case.
    """
    expected, given = _as_float(reference), _as_float(answer)
    if given is not None and expected:
        return abs(given - expected) / abs(expected) <= tolerance
    return answer.lower() == reference.lower()


def _as_float(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


RULES: dict[str, RuleScorer] = {
    scorer.name: scorer
    for scorer in (
        RuleScorer("exact", lambda answer, reference, _: exact(answer, reference)),
        RuleScorer("relaxed", lambda answer, reference, _: relaxed(answer, reference)),
        RuleScorer("relaxed_normalised", lambda answer, reference, _: relaxed_match(answer, reference)),
        RuleScorer("charxiv", lambda answer, reference, of: charxiv.score(answer, reference, of.meta.get("rubric"))),
        RuleScorer(
            "multiple_choice",
            lambda answer, reference, of: choices.choose(answer, of.meta.get("options", {})) == reference.strip(),
        ),
        RuleScorer("openthinkimg_fuzzy", lambda answer, reference, _: openthinkimg_fuzzy.score(answer, reference)),
    )
}
JUDGE = "judge"
NAMES = (*RULES, JUDGE)


def find_rule(name: str) -> RuleScorer:
    if name not in RULES:
        raise UserError(f"there is no scorer {name!r}; there are {', '.join(NAMES)}", "--scorer")
    return RULES[name]

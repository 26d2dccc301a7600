"""The judges of CharXiv and ReachQA, asked and read as their authors do (`thinkimg.evaluation.official`).

The same words, settings and attempts, and the same reading of what comes back, oddities included: CharXiv's judge is
asked about five answers at once, and counts an answer wrong about which it says nothing that can be read in ten
attempts; `Correctness: No, but nearly: yes` is right for ReachQA. What a model answered is its final answer here, in
the place of all that it said. Where the endpoint itself fails the answer is lost, as everywhere.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from thinkimg.errors import InfrastructureError
from thinkimg.evaluation.charxiv import RUBRICS
from thinkimg.evaluation.official import CHARXIV_JUDGE, REACHQA_JUDGE
from thinkimg.message import TextBlock
from thinkimg.models.chat import ChatModel, ContextFull, QuestionRefused, SamplingParameters
from thinkimg.trajectory import Trajectory

log = logging.getLogger(__name__)

CHARXIV, REACHQA = "charxiv_judge", "reachqa_judge"
FIXED: Mapping[str, Mapping[str, Any]] = {
    CHARXIV: {"response_format": {"type": "json_object"}, "n": 1, "top_p": 1},
    REACHQA: {"top_p": 0.95},
}
"""Scorer to the fields of its requests that are the benchmark's, beside temperature, tokens and seed."""
_ATTEMPTS = 10
_TOKENS, _MOST_TOKENS = 256, 1024
_CHARXIV_SEED = 42
_UNREAD = "%s: the judge's verdict cannot be read, so that the answer counts as wrong, as %s counts it: %r"

Found = TypeVar("Found")


# ---- CharXiv --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CharxivWords:
    """What CharXiv's judge is asked.

    Attributes:
        questions: number of a descriptive template to the question.
        examples: rubric to its rules and examples.
        rules: type of a reasoning answer to its rules and examples, with places for question, truth and response.
    """

    prefix: str
    questions: Mapping[int, str]
    examples: Mapping[str, str]
    reasoning_prefix: str
    rules: Mapping[int, str]

    @classmethod
    def of(cls, constants: Mapping[str, Any]) -> "CharxivWords":
        """From the constants of its source."""
        return cls(
            constants["DESCRIPTIVE_GRADING_PREFIX"],
            constants["DESCRIPTIVE_GRADING_QMAP"],
            constants["DESCRIPTIVE_GRADING_ICL"],
            constants["REASONING_GRADING_PREFIX"],
            constants["REASONING_GRADING_INST"],
        )

    def about(self, template: int, answers: Sequence[tuple[str, str]]) -> str:
        """About several (response, truth), all to questions of one template."""
        keys = [key for n in range(1, len(answers) + 1) for key in (f"extract_answer_T{n}", f"score_T{n}")]
        text = self.prefix.replace("<|NUM_TRIPLETS|>", str(len(answers)))
        text = text.replace("<|OVERARCHING_QUESTION|>", self.questions[template]).replace("<|JSON_KEYS|>", str(keys))
        shown = (
            f"T{n}:\nResponse {n}: {response}\nGround Truth {n}: {truth}\n\n"
            for n, (response, truth) in enumerate(answers, 1)
        )
        return text + self.examples[RUBRICS[template]] + "".join(shown)

    def about_reasoning(self, kind: int, question: str, response: str, truth: str) -> str:
        rules = self.rules[kind].replace("<|question|>", question)
        return self.reasoning_prefix + rules.replace("<|ground_truth|>", truth).replace("<|response|>", response)


@dataclass(frozen=True)
class CharxivJudge:
    """A `GroupScorer`: descriptive questions of a template are judged five at a time, in the order of the data.

    Attributes:
        named: which model it is.
    """

    model: ChatModel
    words: CharxivWords
    named: str = ""
    name: str = CHARXIV
    size: int = 5

    @property
    def version(self) -> str:
        return f"{self.named} {CHARXIV_JUDGE.commit[:7]}"

    def group_of(self, meta: Mapping[str, Any]) -> str | None:
        """Of a descriptive question its template, and which sample it is; None for a reasoning one."""
        return f"{meta['template']}/{meta.get('sample', 1)}" if "template" in meta else None

    async def score(self, trajectory: Trajectory) -> float:
        """Of a reasoning question. Raises `InfrastructureError`: the endpoint fails."""
        trajectory.meta["judged_by"] = self.named
        if trajectory.answer is None:
            return 0.0
        meta = trajectory.meta
        asked = (meta["answer_type"], meta["raw_question"], trajectory.answer, trajectory.reference or "")
        verdict = await self._ask(trajectory, self.words.about_reasoning(*asked), _reasoning_verdict)
        if verdict is None:
            log.warning(_UNREAD, meta.get("task"), "CharXiv", meta["judge"])
        return verdict or 0.0

    async def score_group(self, trajectories: Sequence[Trajectory]) -> list[float]:
        """Of at most `size` descriptive questions of one group. Raises as `score`."""
        first, count = trajectories[0], len(trajectories)
        text = self.words.about(
            first.meta["template"], [(one.answer or "", one.reference or "") for one in trajectories]
        )
        found = await self._ask(first, text, lambda reply: _descriptive_verdicts(reply, count))
        for one in trajectories:
            one.meta |= {"judged_by": self.named, "judge": first.meta["judge"]}
        if found is None:
            names = ", ".join(str(one.meta.get("task")) for one in trajectories)
            log.warning(_UNREAD, names, "CharXiv", first.meta["judge"])
        values = found or [0.0] * count
        return [0.0 if one.answer is None else value for one, value in zip(trajectories, values, strict=True)]

    async def _ask(self, kept_in: Trajectory, text: str, read: Callable[[Any], Found]) -> Found | None:
        """What `read` makes of the first reply of which it makes something. None after ten attempts, or where a text
        that does not end has had all the tokens there are."""
        asked, tokens = _asked(text), _TOKENS
        for _ in range(_ATTEMPTS):
            try:
                sampling = SamplingParameters(0.0, tokens, extra=FIXED[CHARXIV])
                said = (await self.model.reply(asked, sampling, _CHARXIV_SEED)).text
                kept_in.meta["judge"] = said
                return read(json.loads(said))
            except (ContextFull, QuestionRefused) as error:
                kept_in.meta["judge"] = str(error)
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                if "Unterminated string starting at" in str(error):
                    if tokens >= _MOST_TOKENS:
                        return None
                    tokens = min(_MOST_TOKENS, tokens * 2)
        return None


def _descriptive_verdicts(reply: Any, count: int) -> list[float]:
    """Raises `ValueError`, `LookupError` or `TypeError` where one is missing or neither 0 nor 1."""
    for number in range(1, count + 1):
        if f"extract_answer_T{number}" not in reply:
            raise LookupError(f"no extract_answer_T{number}")
        if reply[f"score_T{number}"] not in [0, 1]:
            raise ValueError(f"score_T{number} is neither 0 nor 1")
    return [float(reply[f"score_T{number}"]) for number in range(1, count + 1)]


def _reasoning_verdict(reply: Any) -> float | None:
    """None for a score that is neither 0 nor 1, after which the judge is not asked again."""
    _, found = reply["extracted_answer"], reply["score"]
    return float(found) if found in [0, 1] else None


# ---- ReachQA --------------------------------------------------------------------------------------------------------

_CORRECTNESS = re.compile(r"Correctness:\s*(.*)", re.IGNORECASE | re.DOTALL)


def read_correctness(reply: str) -> float | None:
    """1 if there is a yes anywhere behind the first `Correctness:`, else 0 if there is a no; None where neither is."""
    found = _CORRECTNESS.search(reply)
    behind = found[1].lower() if found else ""
    return 1.0 if "yes" in behind else 0.0 if "no" in behind else None


@dataclass(frozen=True)
class ReachqaJudge:
    """A scorer.

    Attributes:
        words: with places for question, answer and prediction.
        named: which model it is.
    """

    model: ChatModel
    words: str
    named: str = ""
    name: str = REACHQA

    @property
    def version(self) -> str:
        return f"{self.named} {REACHQA_JUDGE.commit[:7]}"

    async def score(self, trajectory: Trajectory) -> float:
        """Raises `InfrastructureError`: the endpoint fails, or does not take the answer."""
        trajectory.meta["judged_by"] = self.named
        if trajectory.answer is None:
            return 0.0
        text = self.words.format(
            question=trajectory.question, answer=trajectory.reference or "", prediction=trajectory.answer
        )
        sampling = SamplingParameters(0.0, 4096, extra={**FIXED[REACHQA], "seed": None})
        try:
            said = (await self.model.reply(_asked(text, "You are a helpful assistant."), sampling, 0)).text
        except (ContextFull, QuestionRefused) as error:  # the model's answer may be right: there is no verdict
            raise InfrastructureError(f"the judge does not take the answer: {error}") from error
        trajectory.meta["judge"] = said
        verdict = read_correctness(said)
        if verdict is None:
            log.warning(_UNREAD, trajectory.meta.get("task"), "ReachQA", said)
        return verdict or 0.0


def _asked(text: str, system: str = "") -> Trajectory:
    asked = Trajectory(question=text)
    if system:
        asked.add("system", TextBlock(text=system))
    asked.add("user", TextBlock(text=text))
    return asked

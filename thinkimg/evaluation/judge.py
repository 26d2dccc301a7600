"""A model that says whether an answer is right, behind an OpenAI-compatible endpoint."""

import re
from dataclasses import dataclass

from thinkimg.errors import InfrastructureError
from thinkimg.message import TextBlock
from thinkimg.models.chat import ChatModel, ContextFull, QuestionRefused, SamplingParameters
from thinkimg.trajectory import Trajectory

_ATTEMPTS = 3
_WORDING = ""
_VERDICT = re.compile(r"correctness\s*\W*\s*(yes|no)\b", re.IGNORECASE)
_QUESTION = """\
A question about a picture, which is not shown here, has a known answer. Decide whether a model's answer is the same.
Another form of the same answer is right (another notation of the same number, another wording of the same thing). An \
answer that is wrong, that says more than one thing, or that leaves out a part is not right. How it was found does not \
matter.{rules}

Question: {question}
Known answer: {reference}
The model's answer: {answer}

Reply with one sentence of analysis, and then with a line of its own: "Correctness: Yes" or "Correctness: No"."""

RULES = {
    "title": "Both must be the same term; another notation (α and alpha) or a missing letter such as (a) is accepted.",
    "ocr": "Both must be the same term, or the same number; another notation (α and alpha) is accepted.",
    "quant": "Both must be numbers of exactly the same value.",
    "bool": "Both must say the same: yes or no.",
    "enum": "Both must name the same terms in the same order.",
    "trend": "Both must describe the same general trend.",
    "layout": "Both must have the same number of rows and of columns.",
    "text": "Both must name the same terms, in any order.",
    "phrase": "If the question gives options, both must be the same option; else both must mean the same.",
    "number": "Both must be numbers of exactly the same value, in any notation.",
}
"""CharXiv's grading rules (Wang et al., 2024), by rubric."""


@dataclass(frozen=True)
class JudgeScorer:
    """A scorer. Whether the answer agrees with the reference is put to `model` as ReachQA does (He et al., 2024), with
    CharXiv's rule for the kind of question where there is one, else with `criteria`. `named` says which model it
    is, and is kept in `meta["judged_by"]`."""

    model: ChatModel
    name: str = "judge"
    criteria: str = ""
    named: str = ""

    @property
    def version(self) -> str:
        """Who judges, and by what. Another `_WORDING` where what is asked here changes."""
        return " ".join(part for part in (self.named, self.criteria, _WORDING) if part)

    async def score(self, trajectory: Trajectory) -> float:
        """1 or 0; no answer is 0 without asking. `meta["judge"]` keeps what the judge said.

        Raises:
            InfrastructureError: the endpoint fails, or says neither Yes nor No in three attempts.
        """
        if self.named:
            trajectory.meta["judged_by"] = self.named
        if trajectory.answer is None or not trajectory.answer.strip():
            return 0.0
        asked = Trajectory(question=trajectory.question)
        asked.add("user", TextBlock(text=_text(trajectory, self.criteria)))
        for attempt in range(_ATTEMPTS):
            try:
                reply = await self.model.reply(asked, SamplingParameters(0.0 if attempt == 0 else 0.7, 512), attempt)
            except (ContextFull, QuestionRefused) as error:  # the model's answer may be right: there is no verdict
                raise InfrastructureError(f"the judge does not take the answer: {error}") from error
            if verdicts := _VERDICT.findall(reply.text):
                trajectory.meta["judge"] = reply.text
                return float(verdicts[-1].lower() == "yes")
        raise InfrastructureError(f"the judge says neither Yes nor No: {reply.text[:200]!r}")


def _text(trajectory: Trajectory, criteria: str) -> str:
    rule = RULES.get(str(trajectory.meta.get("rubric")), criteria)
    return _QUESTION.format(
        rules=f"\n{rule}" if rule else "",
        question=trajectory.question,
        reference=trajectory.reference or "",
        answer=trajectory.answer,
    )

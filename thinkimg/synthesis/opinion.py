"""A model's filter: is this trajectory worth learning from?"""

import re
from dataclasses import dataclass

from thinkimg.errors import InfrastructureError
from thinkimg.message import TextBlock
from thinkimg.models.chat import ChatModel, ContextFull, QuestionRefused, SamplingParameters
from thinkimg.trajectory import Trajectory

_VERDICT = re.compile(r"verdict\W*\s*(keep|drop)\b", re.IGNORECASE)
_ATTEMPTS = 3
_ASKED = """\
A model answered a question about a picture, step by step, with tools that look at the picture. Other models are to \
learn from how it went about it. Keep it if every step follows from what was seen before, every call helps to answer \
the question, and the answer follows from what the tools said. Drop it if a step invents what was not seen, a call is \
of no use, or the answer was not found but guessed.

Question: {question}

{steps}

Reply with one sentence of reasons, and then with a line of its own: "Verdict: keep" or "Verdict: drop"."""


@dataclass(frozen=True)
class ModelOpinion:
    """An `Opinion` of a model behind any endpoint. What it said is kept in `meta["opinion"]`."""

    model: ChatModel

    async def __call__(self, trajectory: Trajectory) -> str | None:
        """The reason to drop the trajectory: the model's opinion, or that it had none."""
        steps = "\n\n".join(f"[{turn.role}] {turn.message.text}" for turn in trajectory.turns if turn.role != "system")
        asked = Trajectory(question=trajectory.question)
        asked.add("user", TextBlock(text=_ASKED.format(question=trajectory.question, steps=steps)))
        try:
            for attempt in range(_ATTEMPTS):
                reply = await self.model.reply(asked, SamplingParameters(0.0 if attempt == 0 else 0.7, 512), attempt)
                if verdicts := _VERDICT.findall(reply.text):
                    trajectory.meta["opinion"] = reply.text
                    return "model's opinion" if verdicts[-1].lower() == "drop" else None
        except (InfrastructureError, ContextFull, QuestionRefused) as error:
            trajectory.meta["opinion"] = f"none: {error}"
        return "model gave no opinion"

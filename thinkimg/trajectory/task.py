"""A question about pictures: what an agent is asked, and what a trajectory answers."""

from dataclasses import dataclass, field
from typing import Any

from thinkimg.image import Image

PLACEHOLDER = "<image>"
"""Where a picture stands in the text of a question: each takes the next picture."""
NOTED = frozenset((
    "attempt", "chain", "control", "dropped", "error", "filtered", "fork_of", "generation", "imported", "invariant",
    "item", "judge", "judged_by", "kind", "lmms", "lost", "malformed", "masked", "mode", "model", "opinion",
    "question_id", "refusal", "retry_after", "row", "sample", "sample_of", "sample_seed", "scored_by", "stage",
    "start", "step", "task", "usage",
))  # fmt: skip
"""Keys of a trajectory's `meta` that ThinkIMG writes itself."""


@dataclass(frozen=True)
class Task:
    """A question about images. `meta`, what else its row says, is copied into the trajectory."""

    id: str
    question: str
    images: tuple[Image, ...]
    reference: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[str | Image, ...]:
        """Text and pictures as the model reads them: each picture at its `<image>` where there is one for each, else
        all of them before the text."""
        texts = self.question.split(PLACEHOLDER)
        if not self.images or len(texts) != len(self.images) + 1:
            return (*self.images, self.question)
        woven = [texts[0], *(part for pair in zip(self.images, texts[1:], strict=True) for part in pair)]
        return tuple(part for part in woven if part != "")

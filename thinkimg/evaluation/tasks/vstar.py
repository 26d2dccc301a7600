"""V*Bench (Wu & Xie, 2023): small things in large pictures, two to four options."""

import re
from collections.abc import Iterator

from thinkimg.data.questions import Question
from thinkimg.data.row import Row
from thinkimg.evaluation.tasks.task import EvaluationTask

_OPTION = re.compile(r"\(([A-D])\)\s*(.*?)(?=\s*\([A-D]\)|\n|$)")


def questions(row: Row) -> Iterator[Question]:
    """The options stand in the text, as `(A) …`; `category` is direct_attributes or relative_position."""
    text = row.text("text", "question")
    yield Question(
        id=str(row.first("question_id") if row.get("question_id") is not None else row.number),
        text=text if "letter" in text else f"{text}\nAnswer with the option's letter from the given choices directly.",
        reference=row.text("label", "answer").strip().upper(),
        image=row.pictures("image"),
        kind=str(row.get("category", "")),
        meta={"options": {letter: option.strip().rstrip(".") for letter, option in _OPTION.findall(text)}},
    )


TASK = EvaluationTask(
    "vstar",
    data="hf://lmms-lab/vstar-bench",
    questions=questions,
    scorer="multiple_choice",
    official="lmms_eval_vstar",
    normalised="multiple_choice",
    source="Wu & Xie, 2023, arXiv 2312.14135",
)

"""The test questions of OpenThinkIMG's table (Su et al., 2025), drawn from ChartGemma's data (Masry et al., 2024)."""

import re
from collections.abc import Iterator
from dataclasses import replace

from thinkimg.data.questions import Question, usual_columns
from thinkimg.data.row import Row
from thinkimg.evaluation.tasks.task import EvaluationTask


def questions(row: Row) -> Iterator[Question]:
    """Rows with `image_path` (or `image`), `question` and `label` (or `solution`), which may stand in answer tags."""
    for question in usual_columns(row):
        reference = re.sub(r"</?answer>", "", question.reference).strip()
        text = question.text.rpartition("Question:")[2].strip().removeprefix("<image>").strip()
        yield replace(question, reference=reference, text=text)


TASK = EvaluationTask(
    "chartgemma",
    data="hf://Warrieryes/OpenThinkIMG-Chart-Test-994",
    questions=questions,
    scorer="relaxed_normalised",
    official="openthinkimg_fuzzy",
    normalised="relaxed_normalised",
    source="Su et al., 2025, arXiv 2505.08617; `--scorer openthinkimg_fuzzy` is the score of its table",
)

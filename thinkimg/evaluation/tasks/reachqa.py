"""ReachQA (He et al., 2024): recognition and reasoning questions about generated charts."""

from collections.abc import Iterator
from dataclasses import replace

from thinkimg.data.questions import Question, usual_columns
from thinkimg.data.row import Row
from thinkimg.evaluation.tasks.task import EvaluationTask


def questions(row: Row) -> Iterator[Question]:
    """`qa_type` (or `split`, in the repository's own files) says which kind of question it is."""
    for question in usual_columns(row):
        yield replace(question, kind=str(row.get("qa_type") or row.get("split") or ""))


TASK = EvaluationTask(
    "reachqa",
    data="hf://hewei2001/ReachQA",
    questions=questions,
    scorer="relaxed_normalised",
    official="reachqa_judge",
    normalised="relaxed_normalised",
    source="He et al., 2024, arXiv 2410.18798; the paper scores by GPT-4o: `--scorer official`",
)

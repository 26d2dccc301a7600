"""Our synthetic charts (`thinkimg.data.charts`): exact answers by construction, new ones for every seed."""

from collections.abc import Iterator

from thinkimg.data.rows import Row
from thinkimg.evaluation.tasks.task import EvaluationTask, Question


def questions(row: Row) -> Iterator[Question]:
    known = {name: row["meta"][name] for name in ("panel", "label") if row["meta"].get(name)}
    yield Question(row["id"], row["question"], row["answer"], row["image"], row["kind"], known)


TASK = EvaluationTask(
    "charts", data="charts://?questions=1200&difficulty=1", questions=questions, scorer="relaxed_normalised"
)

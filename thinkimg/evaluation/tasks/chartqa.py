"""ChartQA (Masry et al., 2022): questions by people and generated ones, relaxed accuracy."""

from collections.abc import Iterator

from thinkimg.data.questions import Question
from thinkimg.data.row import Row
from thinkimg.evaluation.tasks.task import EvaluationTask


def questions(row: Row) -> Iterator[Question]:
    """Rows of HuggingFaceM4/ChartQA (`query`, `label`, `human_or_machine`) or lmms-lab/ChartQA (`question`, `answer`,
    `type`)."""
    kind = {0: "human", 1: "augmented"}.get(row.get("human_or_machine", -1)) or str(row.get("type") or "")
    yield Question(
        id=str(row.get("id", row.number)),
        text=f"{row.text('query', 'question')}\nAnswer with a single word or number.",
        reference=row.text("label", "answer"),
        image=row.pictures("image"),
        kind=kind.removesuffix("_test"),
    )


TASK = EvaluationTask(
    "chartqa",
    data="hf://HuggingFaceM4/ChartQA",
    questions=questions,
    scorer="relaxed",
    official="relaxed",
    normalised="relaxed_normalised",
    source="Masry et al., 2022, arXiv 2203.10244",
)

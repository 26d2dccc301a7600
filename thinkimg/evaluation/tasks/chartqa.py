"""ChartQA (Masry et al., 2022): questions by people and generated ones, relaxed accuracy."""

from collections.abc import Iterator

from thinkimg.data.rows import Row
from thinkimg.evaluation.tasks.task import EvaluationTask, Question


def questions(row: Row) -> Iterator[Question]:
    """Rows of HuggingFaceM4/ChartQA (`query`, `label`, `human_or_machine`) or lmms-lab/ChartQA (`question`, `answer`,
    `type`)."""
    label = row.first("label", "answer")
    kind = {0: "human", 1: "augmented"}.get(row.get("human_or_machine", -1)) or str(row.get("type") or "")
    yield Question(
        id=str(row.get("id", row.number)),
        text=f"{row.first('query', 'question')}\nAnswer with a single word or number.",
        reference=str(label[0] if isinstance(label, list) else label),
        image=row.picture("image"),
        kind=kind.removesuffix("_test"),
    )


TASK = EvaluationTask(
    "chartqa",
    data="hf://HuggingFaceM4/ChartQA",
    questions=questions,
    scorer="relaxed",
    source="Masry et al., 2022, arXiv 2203.10244",
)

"""`EvaluationTask`: where the questions of a benchmark are, what a row of it asks, and how answers are scored."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from thinkimg.data.rows import Row, read_rows
from thinkimg.errors import UserError
from thinkimg.image import Image, ImageDecodeError
from thinkimg.trajectory import Task


@dataclass(frozen=True)
class Question:
    """One question about one picture.

    Attributes:
        id: its name; the same for ever, since answers are kept under it.
        image: an encoded picture.
        kind: a group of questions that the results show by itself.
        meta: what the scorer needs besides (`options` of a multiple-choice question); models never see it.
    """

    id: str
    text: str
    reference: str
    image: bytes = field(repr=False)
    kind: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


def usual_columns(row: Row) -> Iterator[Question]:
    """One question per row, from columns under their usual names."""
    reference = row.first("answer", "label", "solution")
    if isinstance(reference, list):  # some data sets list several right answers; the first is the canonical one
        reference = reference[0]
    yield Question(
        id=str(row.get("id", row.get("question_id", row.number))),
        text=str(row.first("question", "query", "problem")),
        reference=str(reference),
        image=row.picture("image", "image_path"),
        kind=str(row.get("kind") or row.get("category") or ""),
    )


@dataclass(frozen=True)
class EvaluationTask:
    """A benchmark.

    Attributes:
        data: where it is: see `thinkimg.data.rows`.
        questions: what a row asks; none, one, or several questions.
        scorer: name of the scorer that decides; see `thinkimg.evaluation.scorers`.
        source: paper and data set, for readers.
    """

    name: str
    data: str
    questions: Callable[[Row], Iterable[Question]] = usual_columns
    scorer: str = "exact"
    split: str = "test"
    source: str = ""

    def tasks(
        self, data: str | None = None, split: str | None = None, limit: int | None = None, seed: int = 0
    ) -> Iterator[Task]:
        """The questions as the agent takes them, read as they are needed.

        Raises:
            UserError: the data cannot be read, or a picture is broken.
        """
        return islice(self._read(data or self.data, split or self.split, seed), limit)

    def _read(self, data: str, split: str, seed: int) -> Iterator[Task]:
        try:
            for row in read_rows(data, split, seed):
                for question in self.questions(row):
                    yield _task_of(question, row)
        except ValueError as error:
            raise UserError(f"{self.name}: {error}", "--data") from error


def _task_of(question: Question, row: Row) -> Task:
    try:
        image = Image.from_bytes(question.image)
    except ImageDecodeError as error:
        raise ValueError(f"{row.where}: {error}") from error
    meta = {**question.meta, "question_id": question.id, "kind": question.kind or "all"}
    return Task(question.id, question.text, (image,), question.reference, meta)

"""`EvaluationTask`: where the questions of a benchmark are, what a row of it asks, and how answers are scored."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from thinkimg.data.questions import Ask, good_tasks, read_tasks, usual_columns
from thinkimg.errors import UserError
from thinkimg.trajectory import Task


@dataclass(frozen=True)
class EvaluationTask:
    """A benchmark.

    Attributes:
        data: where it is: see `thinkimg.data.rows`.
        questions: what a row asks; none, one, or several questions.
        scorer: name of the scorer that decides; see `thinkimg.evaluation.scorers`.
        official, normalised: the benchmark's two scorers, both of which its table shows; "" where there is none.
        source: paper and data set, for readers.
    """

    name: str
    data: str
    questions: Ask = usual_columns
    scorer: str = "exact"
    official: str = ""
    normalised: str = ""
    split: str = "test"
    source: str = ""

    def close(self) -> None:
        """Nothing is held."""

    def tasks(
        self, data: str | None = None, split: str | None = None, limit: int | None = None, seed: int = 0
    ) -> Iterator[Task]:
        """The questions as the agent takes them, read as they are needed.

        Raises:
            UserError: the data cannot be read, or has bad rows, which are all named.
        """
        source = data or self.data
        found = islice(read_tasks(source, split or self.split, seed, self.questions), limit)
        try:
            for task in good_tasks(found, source):
                yield task if task.meta["kind"] else replace(task, meta={**task.meta, "kind": "all"})
        except ValueError as error:
            raise UserError(f"{self.name}: {error}", "--data") from error

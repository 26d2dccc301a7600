"""Questions about pictures: what a row of a data set asks, checked in one way for training, evaluation and synthesis.

Evaluation reads them one by one as it needs them (`read_tasks`), training all of them before it starts
(`load_questions`). Either way every bad row is reported at once, with its place and its column.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, cast

from thinkimg.data.row import BadRow, Row
from thinkimg.data.rows import read_rows
from thinkimg.data.templates import Template
from thinkimg.image import Image, ImageDecodeError
from thinkimg.trajectory import PLACEHOLDER, Task

_LISTED, _MOST = 20, 1000


@dataclass(frozen=True)
class Question:
    """One question about a picture or several.

    Attributes:
        id: its name; the same for ever, since answers are kept under it.
        image: a picture, encoded or an `Image`, or several in order.
        kind: a group of questions that the results show by itself.
        meta: what scorers and rewards need besides (`options` of a multiple-choice question); models never see it.
    """

    id: str
    text: str
    reference: str
    image: bytes | Image | Sequence[bytes | Image] = field(repr=False)
    kind: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


Ask = Callable[[Row], Iterable[Question]]
"""What a row asks: none, one, or several questions."""


class BadRows(ValueError):
    """The rows of a source that cannot be used, in order: the first twenty, and how many there are."""

    def __init__(self, source: str, rows: Iterable[BadRow]) -> None:
        self.rows = list(islice(rows, _MOST))
        count, unit = len(self.rows), self.rows[0].place.split()[0]
        many = f"{count} or more" if count == _MOST else str(count)
        lines = [f"{source}: {many} bad {unit}{'s' if count > 1 else ''}", *map(str, self.rows[:_LISTED])]
        if count > _LISTED:
            lines.append(f"and {count - _LISTED} more")
        super().__init__("\n".join(lines))


def usual_columns(row: Row) -> Iterator[Question]:
    """One question per row, from columns under their usual names (`thinkimg.data.row`); all the others are its
    `meta`."""
    asked, column = row.question()
    yield Question(
        id=_given_id(row) or str(row.number),
        text=asked.text,
        reference=_untagged(row.reference()),
        image=row.shown([asked], column) or row.pictures(),
        kind=str(row.get("kind") or row.get("category") or ""),
        meta=row.columns(),
    )


def read_tasks(source: str, split: str, seed: int = 0, ask: Ask = usual_columns) -> Iterator[Task | BadRow]:
    """The questions of a source as the agent takes them, read as they are needed.

    Raises:
        ValueError: the source is wrong, or cannot be read.
    """
    for row in read_rows(source, split, seed):
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            for question in ask(row):
                yield task_of(question, row)
        except BadRow as bad:
            yield bad
        except ValueError as error:
            yield row.bad(str(error))


def good_tasks(tasks: Iterable[Task | BadRow], source: str) -> Iterator[Task]:
    """The tasks; at the first bad row the rest is looked through for others.

    Raises:
        BadRows: there are some.
    """
    found = iter(tasks)
    for one in found:
        if isinstance(one, BadRow):
            raise BadRows(source, (bad for bad in (one, *found) if isinstance(bad, BadRow)))
        yield one


def load_questions(
    source: str, split: str, seed: int = 0, decode: bool = True, template: str | None = None
) -> list[Task]:
    """All questions of a source. A picture that several ask about is held once; names that are given several times are
    told apart (`name#2`), and a row without one is called after its place.

    Args:
        decode: every picture once, so that a broken one is found here and not in mid-training.
        template: see `thinkimg.data.templates`; None: the question as it is.

    Raises:
        BadRows: what is wrong with each row that cannot be used.
        ValueError: the source is wrong, cannot be read, or has no questions.
    """
    images: dict[str, Image] = {}
    words = Template(template) if template is not None else None

    def shared(number: int, image: Image, question: Question, row: Row) -> Image:
        if image.too_thin:
            size = f"{image.width}x{image.height} pixels"
            raise row.bad(f"picture {number} is too thin to be shown to a model: {size}")
        if image.sha256 not in images and decode:
            try:
                image.pixels()
            except ImageDecodeError as error:
                raise row.bad(f"the picture of question {question.id!r} cannot be used: {error}") from None
        return images.setdefault(image.sha256, image)

    def ask(row: Row) -> Iterator[Question]:
        for question in usual_columns(row):
            named = question if _given_id(row) else replace(question, id=row.name)
            if words is not None:
                named = replace(named, text=words.fill(named.text, named.meta))
            found = cast(tuple[Image, ...], question.image)
            shown = (shared(number, image, named, row) for number, image in enumerate(found, start=1))
            yield replace(named, image=tuple(shown))

    tasks = list(good_tasks(read_tasks(source, split, seed, ask), source))
    if not tasks:
        raise ValueError(f"{source}: no questions in it")
    return list(told_apart(tasks))


def told_apart(tasks: Iterable[Task]) -> Iterator[Task]:
    """Of tasks of one name the second is called `name#2`."""
    times: Counter[str] = Counter()
    for task in tasks:
        times[task.id] += 1
        yield task if times[task.id] == 1 else replace(task, id=f"{task.id}#{times[task.id]}")


def task_of(question: Question, row: Row) -> Task:
    """Raises `BadRow` for a picture that `Image` does not accept."""
    given = question.image
    try:
        images = tuple(
            one if isinstance(one, Image) else Image.from_bytes(one)
            for one in ((given,) if isinstance(given, bytes | Image) else given)
        )
    except ImageDecodeError as error:
        raise row.bad(str(error)) from error
    if (places := question.text.count(PLACEHOLDER)) not in (0, len(images)):
        raise row.bad(f"the question has {places} times {PLACEHOLDER}, and there are {len(images)} pictures")
    meta = {**question.meta, "question_id": question.id, "kind": question.kind}
    return Task(question.id, question.text, images, question.reference, meta)


def _given_id(row: Row) -> str:
    given = row.get("id", row.get("question_id"))
    return "" if given is None else str(given)


def _untagged(answer: str) -> str:
    """What stands between answer tags, as OpenThinkIMG's RL data has them."""
    found = re.search(r"<answer>(.*?)</answer>", answer, re.DOTALL)
    return found.group(1).strip() if found else answer

"""HR-Bench (Wang et al., 2024): pictures of 4K and 8K; each question four times, its options moved round.

The benchmark's figure is the mean over the four rounds; they have the same number of questions, so it is the accuracy.
"""

from collections.abc import Iterator

from thinkimg.data.questions import Question
from thinkimg.data.row import Row
from thinkimg.evaluation.tasks.task import EvaluationTask


def questions(row: Row) -> Iterator[Question]:
    """`index`, `question`, `A` to `D`, `answer`, `category` (single, cross), `cycle_category`; picture as base64."""
    options = {letter: str(row[letter]) for letter in "ABCD" if row.get(letter) not in (None, "")}
    listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    yield Question(
        id=str(row.get("index", row.number)),
        text=f"{row.text('question').strip()}\n{listed}\nAnswer the option letter directly.",
        reference=row.text("answer").strip().upper(),
        image=row.pictures("image"),
        kind=str(row.get("category", "")),
        meta={"options": options, "cycle": str(row.get("cycle_category", ""))},
    )


HRBENCH_4K, HRBENCH_8K = (
    EvaluationTask(
        name,
        data="hf://DreamMr/HR-Bench",
        split=split,
        questions=questions,
        scorer="multiple_choice",
        official="vlmevalkit_choice",
        normalised="multiple_choice",
        source="Wang et al., 2024, arXiv 2408.15556",
    )
    for name, split in (("hrbench", "hrbench_4k"), ("hrbench8k", "hrbench_8k"))
)

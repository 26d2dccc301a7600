"""CharXiv (Wang et al., 2024): charts of papers; up to four descriptive questions and one reasoning question each.

The questions' wording, with its instructions, is the benchmark's (data set princeton-nlp/CharXiv, CC BY-SA 4.0): it is
part of what is measured.
"""

from collections.abc import Iterator

from thinkimg.data.questions import Question
from thinkimg.data.row import Row
from thinkimg.evaluation.charxiv import NOT_APPLICABLE, RUBRICS
from thinkimg.evaluation.tasks.task import EvaluationTask

_X = (
    "including the case when x-axis is shared across multiple subplots. When the x-axis is present on both the top "
    "and bottom of the plot, answer {} at the bottom."
)
_Y = (
    "including the case when y-axis is shared across multiple subplots. When the y-axis is present on both the left "
    "and right of the plot, {} at the left."
)
_UNITS = (
    " Ignore units or scales that are written separately from the tick, such as units and scales from the axis label "
    "or the corner of the plot."
)
_TICK_X = (
    "* Your final answer should be the tick value on the x-axis that is explicitly written, "
    + _X.format("based on the axis")
    + _UNITS
)
_TICK_Y = (
    "* Your final answer should be the tick value on the y-axis that is explicitly written, "
    + _Y.format("based on the axis")
    + _UNITS
)
_NOT_REGULAR = (
    "* If the plot does not have an explicit {}-axis tick value, or if the tick values are not numerical, or if the "
    'difference is not constant between all consecutive tick values, answer "Not Applicable".'
)
_NO_LINES = '* If the plot does not contain any lines or is not considered a line plot, answer "Not Applicable".'
_NO_GRID = "Ignore grid lines, tick marks, and any vertical or horizontal auxiliary lines."
_LEGEND = (
    "account for only labels relevant to the plot in the legend, even if the legend is located outside the plot.",
    "* If the plot does not have a legend or no legend is not considered relevant to this plot, answer "
    '"Not Applicable".',
)
_COLORBAR = (
    "* You should remove the percentage sign (if any) in your answer.",
    "* If the plot does not have an explicit colorbar-based continuous legend or the legend is not considered relevant "
    'to this subplot, answer "Not Applicable".',
)
DESCRIPTIVE: dict[int, tuple[str, ...]] = {
    1: (
        "{}what is its title?",
        "* Your final answer should be the most relevant title of the plot that is explicitly written.",
        "* If the plot does not have an explicit title or contains only a letter, answer 'Not Applicable'.",
    ),
    2: (
        "{}what is the label of the x-axis?",
        "* Your final answer should be the label of the x-axis that is explicitly written, "
        + _X.format("the label of the x-axis"),
        "* If the plot does not have an explicit x-axis label, answer 'Not Applicable'.",
    ),
    3: (
        "{}what is the label of the y-axis?",
        "* Your final answer should be the label of the y-axis that is explicitly written, "
        + _Y.format("answer the label of the y-axis"),
        "* If the plot does not have an explicit y-axis label, answer 'Not Applicable'.",
    ),
    4: ("{}what is the leftmost labeled tick on the x-axis?", _TICK_X),
    5: ("{}what is the rightmost labeled tick on the x-axis?", _TICK_X),
    6: ("{}what is the spatially lowest labeled tick on the y-axis?", _TICK_Y),
    7: ("{}what is the spatially highest labeled tick on the y-axis?", _TICK_Y),
    8: (
        "{}what is difference between consecutive numerical tick values on the x-axis?",
        "* Your final answer should be the difference between consecutive numerical tick values of the x-axis, "
        + _X.format("based on the axis")
        + _UNITS,
        _NOT_REGULAR.format("x"),
    ),
    9: (
        "{}what is difference between consecutive numerical tick values on the y-axis?",
        "* Your final answer should be the difference between consecutive numerical tick values of the y-axis, "
        + _Y.format("answer based on the axis")
        + _UNITS,
        _NOT_REGULAR.format("y"),
    ),
    10: (
        "{}how many lines are there?",
        f"* Your final answer should be the number of lines in the plot. {_NO_GRID}",
        _NO_LINES,
    ),
    11: (
        "{}do any lines intersect?",
        f'* Your final answer should be "Yes" if any lines intersect, and "No" otherwise. {_NO_GRID}',
        _NO_LINES,
    ),
    12: (
        "{}how many discrete labels are there in the legend?",
        f"* Your final answer should {_LEGEND[0]}",
        _LEGEND[1],
    ),
    13: (
        "{}what are the names of the labels in the legend?",
        "* You should write down the labels from top to bottom, then from left to right and separate the labels with "
        f"commas. Your final answer should {_LEGEND[0]}",
        _LEGEND[1],
    ),
    14: (
        "{}what is the difference between the maximum and minimum values of the tick labels on the continuous legend "
        "(i.e., colorbar)?",
        *_COLORBAR,
    ),
    15: (
        "{}what is the maximum value of the tick labels on the continuous legend (i.e., colorbar)?",
        *_COLORBAR,
    ),
    16: (
        "{}what is the general trend of data from left to right?",
        '* Your final answer should be within a few words, such as "increases", "increases then stabilizes".',
    ),
    17: (
        "{}What is the total number of explicitly labeled ticks across all axes?",
        "* Your final answer should be the total number of explicitly labeled ticks across all axes, including the "
        "case when any axis is shared across multiple subplots.",
    ),
    18: (
        "What is the layout of the subplots?",
        '* Your final answer should follow "n by m" format, where n is the number of rows and m is the number of '
        "columns.",
        '* If the plot does not contain subplots, answer "1 by 1".',
    ),
    19: (
        "What is the number of subplots?",
        "* Your final answer should be the total number of subplots in the plot.",
        '* If the plot does not contain subplots, answer "1".',
    ),
}
"""Number of a template -> its lines; {} is where the subplot is named."""

CLASSES = {
    **dict.fromkeys((1, 2, 3, 4, 5, 6, 7), "information_extraction"),
    **dict.fromkeys((8, 9, 13, 14, 15), "enumeration"),
    **dict.fromkeys((10, 12, 19), "counting"),
    **dict.fromkeys((11, 16, 18), "pattern_recognition"),
    17: "compositionality",
}
"""The benchmark's groups of descriptive questions (`QNUM2QTYPE` in its `src/score_utils.py`)."""

REASONING: dict[int, tuple[str, str, tuple[str, ...]]] = {
    1: (
        "text_in_chart",
        "text",
        (
            "* Your final answer must be grounded to some text that is explicitly written and relevant to the question "
            "in the chart.",
            "* If you need to answer multiple terms, separate them with commas.",
            "* Unless specified in the question (such as answering with a letter), you are required to answer the full "
            "names of subplots and/or labels by default.",
        ),
    ),
    2: (
        "text_in_general",
        "phrase",
        (
            "* If there are options in the question, your final answer must conform to one of the options.",
            "* If there are additional instructions in the question, follow them accordingly.",
            "* If there are neither options nor additional instructions, you are allowed to respond with a short "
            "phrase only.",
        ),
    ),
    3: (
        "number_in_chart",
        "number",
        (
            "* Your final answer must be grounded to a number that is exlicitly written and relevant to the question "
            "in the chart, even if it's an approximate value.",
            "* You are allowed to extract numbers within some text when needed.",
        ),
    ),
    4: ("number_in_general", "number", ()),
}
"""Type of the answer -> name of the group, rubric, instructions (the benchmark's spelling included)."""


def descriptive(row: Row) -> Iterator[Question]:
    """Four templates per figure, those that do not apply to it among them."""
    for number in range(1, 5):
        template = row.get(f"descriptive_q{number}")
        if template is None:
            continue
        template = int(template)
        reference = row.text(f"descriptive_a{number}")
        yield Question(
            id=f"{_figure(row)}-d{number}",
            text="\n".join(DESCRIPTIVE[template]).format(_place(row)),
            reference=reference,
            image=row.pictures("image"),
            kind=CLASSES[template],
            meta={"rubric": RUBRICS[template], "template": template, "applicable": reference.lower() != NOT_APPLICABLE},
        )


def reasoning(row: Row) -> Iterator[Question]:
    answer, asked = row.text("reasoning_a"), row.text("reasoning_q")
    answer_type = int(row.text("reasoning_a_type"))
    kind, rubric, lines = REASONING[answer_type]
    if not lines:
        digits = answer.partition(".")[2]
        lines = (
            f"* Your final answer must be a number with {len(digits)} decimal places."
            if digits
            else "* Your final answer must be an exact integer.",
        )
    yield Question(
        id=f"{_figure(row)}-r",
        text="\n".join((asked, *lines)),
        reference=answer,
        image=row.pictures("image"),
        kind=kind,
        meta={"rubric": rubric, "answer_type": answer_type, "raw_question": asked},
    )


def both(row: Row) -> Iterator[Question]:
    yield from descriptive(row)
    yield from reasoning(row)


def _figure(row: Row) -> str:
    named = (row.get(name) for name in ("original_id", "figure_id"))
    return str(next((name for name in named if name not in (None, "")), row.number))


def _place(row: Row) -> str:
    if row.get("subplot_loc"):
        return f"For {row['subplot_loc']}, "
    if not row.get("subplot_row"):
        return "For the current plot, "
    return f"For the subplot at row {row['subplot_row']} and column {row['subplot_col']}, "


CHARXIV, CHARXIV_DESCRIPTIVE, CHARXIV_REASONING = (
    EvaluationTask(
        name,
        data="hf://princeton-nlp/CharXiv",
        split="validation",
        questions=questions,
        scorer="charxiv",
        official="charxiv_judge",
        normalised="charxiv",
        source="Wang et al., 2024, arXiv 2406.18521; the paper scores by GPT-4o: `--scorer official`",
    )
    for name, questions in (("charxiv", both), ("charxiv_descriptive", descriptive), ("charxiv_reasoning", reasoning))
)

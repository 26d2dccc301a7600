"""Our synthetic charts (`thinkimg.data.charts`): exact answers by construction, new ones for every seed."""

from thinkimg.evaluation.tasks.task import EvaluationTask

TASK = EvaluationTask(
    "charts",
    data="charts://?questions=1200&difficulty=1",
    scorer="relaxed_normalised",
    official="relaxed",
    normalised="relaxed_normalised",
)

"""An Evaluate stage: each of its models answers the split's questions, greedily, sampled, and with changed pictures."""

import time

from thinkimg.api import Evaluate as Settings
from thinkimg.evaluation.compare import right_of
from thinkimg.evaluation.control import Controlled
from thinkimg.evaluation.owed import control_figures
from thinkimg.evaluation.samples import several
from thinkimg.evaluation.summary import summarise
from thinkimg.jobs.stages.answers import Asking, answers
from thinkimg.jobs.stages.context import Context
from thinkimg.jobs.stages.speaking import speaking
from thinkimg.models.trained import trained_with_tools
from thinkimg.results import AnswerRow, EvaluateDone, ModelFigures
from thinkimg.trajectory import Task


def run_evaluation(context: Context, name: str) -> EvaluateDone:
    """Raises `UserError` before a question is asked: pictures that cannot be changed as the stage says."""
    settings = context.job.spec.stage(name).evaluate
    assert settings is not None
    tasks = context.tasks(settings.split, settings.questions)
    control, field = settings.changed_pictures, f"{name}.evaluate.control"
    controlled = Controlled(control, tasks, field) if control else None
    entries, told = {}, _Answered(context, name, len(tasks) * settings.answers_per_question * len(settings.models))
    for model in settings.models:
        told.begin(model)
        entries[model] = _figures_of(context, name, settings, model, tasks, controlled, told)
    return EvaluateDone(models=entries)


class _Answered:
    """Tells how many answers there are, of all models together."""

    def __init__(self, context: Context, stage: str, total: int) -> None:
        self.context, self.stage, self.total = context, stage, total
        self.done, self.model = 0, ""

    def begin(self, model: str) -> None:
        self.model = model
        self._say()

    def one(self, *_: object) -> None:
        self.done += 1
        if self.done % max(20, self.total // 200) == 0:
            self._say()

    def _say(self) -> None:
        # The others have done about as many.
        step = min(self.done * self.context.world_size, self.total)
        self.context.progress(self.stage, step=step, total_steps=self.total, message=f"evaluating {self.model}")


def _figures_of(
    context: Context,
    stage: str,
    settings: Settings,
    model: str,
    tasks: list[Task],
    controlled: Controlled | None,
    told: _Answered,
) -> ModelFigures:
    began = time.monotonic()
    folder = context.run.stage(stage) / model
    folder.mkdir(exist_ok=True)
    tools = trained_with_tools(context.job, model)
    with speaking(context, model) as speaker:

        def ask(mode: str, questions: list[Task], temperature: float, under: Controlled | None) -> list[AnswerRow]:
            file = folder / f"{mode}.jsonl"
            asking = Asking(file, stage, temperature, tools, model, settings.concurrency, under)
            return answers(context, speaker, questions, asking, told.one)

        greedy = ask("greedy", tasks, 0.0, None)
        several_times = list(several(tasks, settings.samples)) if settings.sampled else []
        sampled = ask("sampled", several_times, settings.temperature, None) if settings.sampled else []
        changed = ask(controlled.control.name, tasks, 0.0, controlled) if controlled else []
    figures = summarise(greedy, sampled, round(time.monotonic() - began, 1))
    if controlled is not None:
        figures.controls = [control_figures(controlled.control, [right_of(greedy)], [right_of(changed)])]
    return figures

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
    entries = {}
    for number, model in enumerate(settings.models):
        context.progress(name, step=number, total_steps=len(settings.models), message=f"evaluating {model}")
        entries[model] = _figures_of(context, name, settings, model, tasks, controlled)
    return EvaluateDone(models=entries)


def _figures_of(
    context: Context, stage: str, settings: Settings, model: str, tasks: list[Task], controlled: Controlled | None
) -> ModelFigures:
    began = time.monotonic()
    folder = context.run.stage(stage) / model
    folder.mkdir(exist_ok=True)
    tools = trained_with_tools(context.job, model)
    with speaking(context, model) as speaker:

        def ask(mode: str, questions: list[Task], temperature: float, under: Controlled | None) -> list[AnswerRow]:
            file = folder / f"{mode}.jsonl"
            asking = Asking(file, stage, temperature, tools, model, settings.concurrency, under)
            return answers(context, speaker, questions, asking)

        greedy = ask("greedy", tasks, 0.0, None)
        several_times = list(several(tasks, settings.samples)) if settings.sampled else []
        sampled = ask("sampled", several_times, settings.temperature, None) if settings.sampled else []
        changed = ask(controlled.control.name, tasks, 0.0, controlled) if controlled else []
    figures = summarise(greedy, sampled, round(time.monotonic() - began, 1))
    if controlled is not None:
        figures.controls = [control_figures(controlled.control, [right_of(greedy)], [right_of(changed)])]
    return figures

"""The benchmarks that are built in, one file each, and those that users write: `docs/guides/add-a-task.md`."""

import importlib.util
from dataclasses import replace
from pathlib import Path

from thinkimg.data.questions import Question, usual_columns
from thinkimg.errors import UserError
from thinkimg.evaluation.lmms import PREFIX, LmmsTask
from thinkimg.evaluation.tasks import chartgemma, chartqa, charts, charxiv, hrbench, reachqa, vstar
from thinkimg.evaluation.tasks.task import EvaluationTask

TASKS: dict[str, EvaluationTask] = {
    task.name: task
    for task in (
        chartgemma.TASK,
        chartqa.TASK,
        charxiv.CHARXIV,
        charxiv.CHARXIV_DESCRIPTIVE,
        charxiv.CHARXIV_REASONING,
        reachqa.TASK,
        vstar.TASK,
        hrbench.HRBENCH_4K,
        hrbench.HRBENCH_8K,
        charts.TASK,
    )
}


def find_task(name: str) -> EvaluationTask | LmmsTask:
    """A built-in task by its name, that of a Python file with `TASK = EvaluationTask(…)`, which is run, or with
    `lmms:` one of lmms-eval's.

    Raises:
        UserError: there is none.
    """
    if name.startswith(PREFIX):
        return LmmsTask(name.removeprefix(PREFIX))
    if name.endswith(".py"):
        return _task_in(Path(name))
    if name not in TASKS:
        raise UserError(
            f"there is no task {name!r}; there are {', '.join(TASKS)}, the path of a Python file, or {PREFIX}NAME",
            "TASK",
        )
    return TASKS[name]


def _task_in(path: Path) -> EvaluationTask:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError("there is no such file", str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    task = getattr(module, "TASK", None)
    if not isinstance(task, EvaluationTask):
        raise UserError("the file must say TASK = EvaluationTask(…)", str(path))
    if "://" not in task.data:  # beside the file, wherever it is used from
        task = replace(task, data=str(path.parent / task.data))
    return task


__all__ = ["TASKS", "EvaluationTask", "Question", "find_task", "usual_columns"]

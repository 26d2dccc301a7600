"""Every split that will be read, as its stage reads it: each bad row is named."""

from collections.abc import Iterator

from thinkimg.agent.agent import Agent
from thinkimg.agent.tools import NoTools
from thinkimg.api import Dataset
from thinkimg.data.chart_rows import chart_options
from thinkimg.data.questions import read_tasks
from thinkimg.errors import UserError
from thinkimg.evaluation.control import Controlled
from thinkimg.jobs.preflight.findings import Finding, Plan, block_of
from thinkimg.jobs.stages.questions import UnaskedModel, load_tasks, load_trajectories, source_of
from thinkimg.trajectory import Task

_ROWS = "Correct the data, or leave these rows out."


def check_data(plan: Plan) -> Iterator[Finding]:
    """Fills in `plan.tasks`."""
    data = plan.job.spec.data
    if _learns_ready_made(plan):
        try:
            load_trajectories(data, plan.folder, lambda: Agent(UnaskedModel(), NoTools()))
        except (UserError, ValueError) as error:
            name = "trajectories" if data.trajectories else "train"
            yield plan.refused(("spec", "data", name, "uri"), error, _ROWS)
    for split in _splits(plan):
        source = source_of(data, split)
        if source is None:
            continue  # the manifest's own rules say so
        try:
            tasks, count = _tasks_and_count(plan, split, source)
        except (UserError, ValueError) as error:
            yield plan.refused(("spec", "data", split if source is not data.train else "train", "uri"), error, _ROWS)
            continue
        plan.tasks[split] = tasks[0], count
        yield from _changed_pictures(plan, split, tasks)


def _learns_ready_made(plan: Plan) -> bool:
    return any(stage.sft and plan.job.spec.data_stage(stage) is None for _, stage in plan.stages())


def _splits(plan: Plan) -> list[str]:
    """Those that the waiting stages ask, and all others that are files here: a wrong row in them is found as well."""
    data, asked = plan.job.spec.data, set()
    for _, stage in plan.stages():
        if stage.synthesize or stage.grpo:
            asked.add("train")
        if stage.sft and stage.sft.gate:
            asked.add("validation")
        if stage.evaluate:
            asked.add(stage.evaluate.split)
    learnt = (data.trajectories or data.train) if _learns_ready_made(plan) else None
    for split in ("train", "validation", "test"):
        source = getattr(data, split)
        if source is not None and source is not learnt and "://" not in source.uri:
            asked.add(split)
    if data.validation is None and {"train", "validation"} <= asked:
        asked.remove("validation")  # the same questions
    return sorted(asked)


def _tasks_and_count(plan: Plan, split: str, source: Dataset) -> tuple[list[Task], int]:
    """Pictures are held for one split at a time. Synthetic charts are all right once the first can be made, but one
    need not have another that can take its place."""
    seed = plan.job.spec.seed
    controls = [stage.evaluate.control for _, stage in plan.stages() if stage.evaluate]
    if source.uri.startswith("charts://") and "other" not in controls:
        count = chart_options(source.uri)["questions"]
        first = next(task for task in read_tasks(source.uri, split, seed) if isinstance(task, Task))
        return [first], count
    tasks = load_tasks(plan.job.spec.data, split, seed, plan.folder)
    return tasks, len(tasks)


def _changed_pictures(plan: Plan, split: str, tasks: list[Task]) -> Iterator[Finding]:
    """Questions of an evaluation without a picture that could be changed, or without another that could take its
    place."""
    for index, stage in plan.stages():
        block = stage.evaluate
        if block is None or block.split != split or block.changed_pictures is None:
            continue
        try:
            Controlled(block.changed_pictures, tasks[: block.questions])
        except UserError as error:
            remedy = "Ask other questions, or more of them, or use another control."
            yield plan.refused(block_of(index, stage, "control"), error, remedy)

"""One of lmms-eval's tasks as a benchmark of ours."""

import asyncio
import base64
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from thinkimg.errors import UserError
from thinkimg.evaluation.lmms.process import VERSION, Harness
from thinkimg.image import Image, ImageDecodeError
from thinkimg.trajectory import PLACEHOLDER, Task, Trajectory

PREFIX = "lmms:"
YAML = (".yaml", ".yml")
REPLIES = "replies"
"""Of `--judge`: the file of what judges replied; read where it has a reply, else added to."""


class LmmsTask:
    """See `thinkimg.evaluation.tasks.EvaluationTask`, which it stands beside. Its process starts when it is asked, and
    lasts until `close`.

    Args:
        written: behind the prefix: a task or group of lmms-eval's, or the path of a YAML file of that form.
    """

    def __init__(self, written: str) -> None:
        path = Path(written)
        self.name = f"{PREFIX}{path.stem if path.suffix in YAML else written}"
        self._arguments = [str(path.resolve()) if path.suffix in YAML else written]
        self._numbers: dict[str, int] = {}

    def scorer(
        self, judge: Mapping[str, Any], scorers: Sequence[str], folder: Path, limit: int | None, seed: int
    ) -> "LmmsScorer":
        """What scores it. Settles what the worker is started with, too.

        Args:
            judge, scorers: the options of these names.
            folder: of the output, where judges' replies are kept unless `judge` says where.
            limit: of questions; of a group, of each of its tasks.

        Raises:
            UserError: options that only our own tasks have.
        """
        if scorers:
            raise UserError(f"{self.name} is scored by lmms-eval; leave --scorer out", "--scorer")
        if unknown := sorted(judge.keys() - {REPLIES}):
            raise UserError(
                f"{self.name} asks lmms-eval's own judge, which its variables choose (OPENAI_API_KEY, ...); the only "
                f"option is {REPLIES}=FILE, not {unknown[0]}",
                "--judge",
            )
        replies = Path(str(judge.get(REPLIES) or folder / "judge.jsonl"))
        replies.parent.mkdir(parents=True, exist_ok=True)
        limited = [] if limit is None else ["--limit", str(limit)]
        self._arguments += ["--seed", str(seed), "--replies", str(replies), *limited]
        return LmmsScorer(self)

    @cached_property
    def _harness(self) -> Harness:
        harness = Harness(self._arguments)
        if where := harness.about["judge"]:
            harness.close()
            raise UserError(
                f"{self.name} asks a judge ({where}), and there is neither a key in the environment (OPENAI_API_KEY; "
                f"what else it reads, lmms-eval says) nor a file of replies: --judge {REPLIES}=FILE",
                "--judge",
            )
        if why := self._why_no_accuracy(harness.about["tasks"]):
            harness.close()
            raise UserError(why, "TASK")
        return harness

    def _why_no_accuracy(self, tasks: Mapping[str, Mapping[str, Any]]) -> str:
        """Why no share of right answers can be told of the task, or of all tasks of a group; "" if one can."""
        for name, task in tasks.items():
            if not task["higher_is_better"]:
                return f"{PREFIX}{name}: of its metric {task['metric']} less is better"
        if len({task["metric"] for task in tasks.values()}) == 1:
            return ""
        said = ", ".join(f"{name} has {task['metric']}" for name, task in tasks.items())
        alone = " ".join(f"{PREFIX}{name}" for name in tasks)
        return f"the tasks of {self.name} are not measured alike ({said}); name them one by one: {alone}"

    @property
    def about(self) -> dict[str, Any]:
        return self._harness.about

    def close(self) -> None:
        if "_harness" in vars(self):
            self._harness.close()
            del self._harness

    def tasks(
        self, data: str | None = None, split: str | None = None, limit: int | None = None, seed: int = 0
    ) -> Iterator[Task]:
        """The questions as lmms-eval asks an endpoint, read as they are needed; how many, `scorer` has been told.

        Raises:
            UserError: lmms-eval cannot load or run the task; `data` or `split` is given, which the task itself says.
        """
        if data is not None or split is not None:
            raise UserError(f"the data of {self.name} are the task's; leave --data and --split out", "--data")
        for number in range(self.about["questions"]):
            asked = self._harness.ask("question", number=number)
            self._numbers[asked["id"]] = number
            yield _task(asked)

    def score(self, trajectory: Trajectory) -> dict[str, Any]:
        """What lmms-eval says of one answer, which there is."""
        number = self._numbers[trajectory.meta["task"]]
        return self._harness.ask("score", number=number, answer=trajectory.answer)

    def aggregate(self, answers: Mapping[str, str | None]) -> dict[str, dict[str, float]]:
        """lmms-eval's own results of all questions: task, or group, to metric to its value.

        Args:
            answers: of every question, by its name; a missing one is an empty one, as it is behind an endpoint.
        """
        ordered = sorted(self._numbers, key=self._numbers.__getitem__)
        found = self._harness.ask("aggregate", answers=[answers[name] for name in ordered])["results"]
        return {name: _numbers(metrics) for name, metrics in found.items()}


class LmmsScorer:
    """The first metric of the task, or of every task of a group, of one question: a number, or what its aggregation
    says of this one alone."""

    def __init__(self, task: LmmsTask) -> None:
        self._task = task

    @property
    def name(self) -> str:
        return str(next(iter(self._task.about["tasks"].values()))["metric"])

    @property
    def version(self) -> str:
        """Of lmms-eval, as it is installed."""
        return str(self._task.about.get("lmms_eval", VERSION))

    async def score(self, trajectory: Trajectory) -> float:
        """See `thinkimg.evaluation.scorers.Scorer`. All metrics of the question are kept in `meta["lmms"]`. A missing
        answer is never right, not even where the task draws one."""
        if trajectory.answer is None:
            return 0.0
        found = await asyncio.to_thread(self._task.score, trajectory)
        trajectory.meta["lmms"] = {name: found[name] for name in ("metric", "metrics")}
        return float(found["value"])


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Without names, counts, and the standard errors that were not asked for."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if "," in name and "_stderr" not in name and isinstance(value, int | float)
    }


def _task(asked: dict[str, Any]) -> Task:
    """Raises `UserError` for a picture that cannot be read."""
    texts, images = [], []
    for part in asked["parts"]:
        if "text" in part:
            texts.append(part["text"])
            continue
        try:
            images.append(Image.from_bytes(base64.b64decode(part["picture"])))
        except ImageDecodeError as error:
            raise UserError(f"{asked['id']}: {error}", "lmms") from error
        texts.append(PLACEHOLDER)
    written = "".join(text for text, part in zip(texts, asked["parts"], strict=True) if "text" in part)
    if PLACEHOLDER in written:  # the text has words for its places itself
        texts = [written]
    meta = {"question_id": asked["id"], "kind": asked["task"]}
    return Task(asked["id"], "".join(texts), tuple(images), asked["reference"], meta)

"""The questions of one of lmms-eval's tasks, and its scoring. Prompts are those that lmms-eval sends to an endpoint
(its model `openai`, task type `chat`); filters, `process_results` and aggregation are called as its evaluator does."""

import base64
import io
import json
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from judges import JudgeFailed, Judges, NoJudge  # type: ignore[import-not-found]  # beside this file, where it is run

MODEL_NAME = "openai"
"""What prompts that differ by model are written for."""


class Refused(Exception):
    """Said to whoever asks; the worker goes on."""


class Worker:
    """One task, or a group of them: its questions in order.

    Args:
        name: of the task, or the path of its YAML file.
        seed: of whatever is drawn while a question is scored; each question has its own stream.
    """

    def __init__(self, name: str, seed: int, limit: int | None, judges: Judges) -> None:
        from lmms_eval.evaluator_utils import get_task_list
        from lmms_eval.tasks import TaskManager, get_task_dict

        name, include = _named(name)
        manager = TaskManager("ERROR", include_path=include, model_name=MODEL_NAME)
        if name not in manager.task_index:
            raise Refused(f"lmms-eval {version('lmms-eval')} has no task {name!r}: `thinkimg eval --list`")
        self.seed, self.judges = seed, judges
        self.tree = get_task_dict([name], manager, "chat")
        self.outputs = [output for output in get_task_list(self.tree) if output.task is not None]
        for output in self.outputs:
            self._prepare(output.task, output.task_name, limit)
        self.questions = [(output, instance) for output in self.outputs for instance in output.task.instances]
        self.scored: dict[tuple[int, str], dict[str, dict[str, Any]]] = {}

    def _prepare(self, task: Any, name: str, limit: int | None) -> None:
        kind = task.OUTPUT_TYPE
        if kind != "generate_until":
            raise Refused(f"{name} wants {kind}; what can be run are questions that a text answers (generate_until)")
        if (task.get_config("repeats") or 1) > 1:
            raise Refused(f"{name} asks each question {task.get_config('repeats')} times")
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=1234)  # lmms-eval's own default
        if task.config.auto_strip_thinking and task.config.reasoning_tags is None:
            from lmms_eval.filters.transformation import StripThinkingFilter

            for ensemble in task._filters:
                ensemble.filters.insert(0, StripThinkingFilter())
        task.args = None
        task.build_all_requests(limit=limit, rank=0, world_size=1)

    # ---- what is asked ----------------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        return {
            "lmms_eval": version("lmms-eval"),
            "questions": len(self.questions),
            "tasks": {output.task_name: _measure(output.task) for output in self.outputs},
            "sources": sorted({_source(output.task.config) for output in self.outputs}),
            "versions": {output.task_name: str(output.task.VERSION) for output in self.outputs},
        }

    def question(self, number: int) -> dict[str, Any]:
        """The parts of the one user message, in order: texts, and pictures as base64."""
        output, instance = self.questions[number]
        task, split = output.task, instance.args[5]
        doc = task.dataset[split][instance.doc_id]
        messages = instance.args[1](doc)
        if [message["role"] for message in messages] != ["user"]:
            roles = ", ".join(message["role"] for message in messages)
            raise Refused(f"{output.task_name}: a conversation of {roles}; one question is what can be asked")
        parts = [_part(part, output.task_name) for part in messages[0]["content"]]
        target = task.doc_to_target(doc)
        return {
            "id": f"{output.task_name}/{instance.doc_id}",
            "task": output.task_name,
            "parts": parts,
            "reference": target if isinstance(target, str) else json.dumps(target, default=str),
        }

    def score(self, number: int, answer: str) -> dict[str, Any]:
        """The value of the first metric for this question alone, and all of them as `process_results` has them."""
        output, _ = self.questions[number]
        metrics = self._metrics(number, answer)
        key, found = next(iter(metrics.items()))
        name = next((name for name in output.task._metric_fn_list if name in found), None)
        if name is None:
            raise Refused(f"{output.task_name}: no metric that it declares comes of a question: {sorted(found)}")
        value = self._value(output, name, found[name])
        return {"metric": name, "filter": key, "value": value, "metrics": _plain(found)}

    def _metrics(self, number: int, answer: str) -> dict[str, dict[str, Any]]:
        if (number, answer) not in self.scored:
            self.scored[number, answer] = self._process(number, answer)
        return self.scored[number, answer]

    def _process(self, number: int, answer: str) -> dict[str, dict[str, Any]]:
        from lmms_eval.api.reasoning import parse_reasoning_tags_config
        from lmms_eval.evaluator import _process_document_results

        output, instance = self.questions[number]
        task = output.task
        instance.resps, instance.filtered_resps = [answer], {}
        every, task._instances = task._instances, [instance]
        tags = parse_reasoning_tags_config(cli_value=None, task_value=task.config.reasoning_tags)
        doc = task.dataset[instance.args[5]][instance.doc_id]
        try:
            with self._scoring(f"{output.task_name}/{instance.doc_id}"):
                task.apply_filters()
                return {
                    key: _process_document_results(
                        (instance.doc_id, doc, [instance]),
                        task=task,
                        filter_key=key,
                        reasoning_tags=tags,
                        log_samples=False,
                    ).metrics
                    for key in list(instance.filtered_resps)
                }
        finally:
            task._instances = every

    @contextmanager
    def _scoring(self, name: str) -> Iterator[None]:
        """What is drawn at random is the same in every run, and what is asked over HTTP is a judge's."""
        import numpy

        random.seed(f"{self.seed}/{name}")
        numpy.random.seed(random.getrandbits(32))
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(random.getrandbits(32))
        self.judges.listening, self.judges.failed = True, None
        try:
            yield
        finally:
            self.judges.listening = False
        if self.judges.failed is not None:
            raise JudgeFailed(self.judges.failed)

    def _value(self, output: Any, name: str, found: Any) -> float:
        """A number, a field of that name in a dictionary, or what the task's aggregation says of this one alone."""
        key = output.task_config.get("score_key") or "score"
        alone = found.get(key) if isinstance(found, dict) else found
        if not isinstance(alone, bool | int | float):
            with self._scoring(name):
                alone = _aggregate(output.task.aggregation()[name], [found], output.task.args)
        try:
            value = float(alone)
        except (TypeError, ValueError):
            raise Refused(f"{output.task_name}: its metric {name} is no number for one question: {alone!r}") from None
        value = value / 100 if 1 < value <= 100 else value  # some give percent
        if not 0 <= value <= 1:
            raise Refused(f"{output.task_name}: its metric {name} is no share of right answers: {value:g}")
        return value

    def aggregate(self, answers: list[str | None]) -> dict[str, Any]:
        """The results as lmms-eval prints them, of all questions in order; None is a question without an answer, which
        counts as an empty one."""
        from lmms_eval.evaluator_utils import consolidate_group_results, consolidate_results

        for output in self.outputs:
            output.sample_metrics.clear()
            output.agg_metrics.clear()
        for number, (output, _) in enumerate(self.questions):
            for key, metrics in self._metrics(number, answers[number] or "").items():
                for name, value in metrics.items():
                    output.sample_metrics[name, key].append(value)
        with self._scoring("all"):
            for output in self.outputs:
                output.calculate_aggregate_metric(bootstrap_iters=0)
        results, _, _, versions, *_ = consolidate_results(self.outputs)
        results = consolidate_group_results(results, versions, self.tree)[0]
        return {"results": {name: _plain(dict(found)) for name, found in results.items()}}

    def needs_judge(self) -> str | None:
        """Where a judge would be asked about three answers that are none; None: nowhere."""
        for number in range(min(3, len(self.questions))):
            try:
                self._process(number, "I do not know.")
            except NoJudge as error:
                return str(error)
        return None


def _named(written: str) -> tuple[str, str | None]:
    """A task's name, and the folder of its YAML file if that is what is written."""
    if not written.endswith((".yaml", ".yml")):
        return written, None
    from lmms_eval import utils

    if not os.path.isfile(written):
        raise Refused(f"there is no {written}")
    config = utils.load_yaml_config(written, mode="simple")
    if not isinstance(config.get("task"), str):
        raise Refused(f"{written} has no `task`, which is the name")
    return config["task"], os.path.dirname(written)


def _measure(task: Any) -> dict[str, Any]:
    """Of one task: its first metric, by which an answer is right."""
    metric = next(iter(task._metric_fn_list), None)
    return {"metric": metric, "higher_is_better": bool(task.higher_is_better().get(metric, True))}


def _aggregate(function: Any, items: list[Any], args: Any) -> Any:
    import inspect

    return function(items, args=args) if "args" in inspect.signature(function).parameters else function(items)


def _part(part: dict[str, Any], task: str) -> dict[str, str]:
    if part["type"] == "text":
        return {"text": part["text"]}
    if part["type"] != "image":
        raise Refused(f"{task}: its questions have {part['type']}; pictures and text are what can be asked about")
    return {"picture": _encoded(part["url"])}


def _encoded(picture: Any) -> str:
    """As lmms-eval sends it to an endpoint: PNG."""
    from PIL import Image

    opened = Image.open(picture) if isinstance(picture, str) else picture
    buffer = io.BytesIO()
    (opened if opened.mode in ("RGB", "RGBA", "L") else opened.convert("RGB")).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _source(config: Any) -> str:
    parts = (config.dataset_path, config.dataset_name, config.test_split or config.validation_split)
    return " ".join(str(part) for part in parts if part)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def listing() -> list[dict[str, Any]]:
    """Every task whose questions are answered with a text, as its YAML says it. Sizes are not in them."""
    from lmms_eval import utils
    from lmms_eval.tasks import TaskManager

    manager = TaskManager("ERROR")
    found = []
    for name in manager.all_subtasks:
        try:
            config = utils.load_yaml_config(manager.task_index[name]["yaml_path"], mode="simple")
        except Exception:
            continue  # its code does not load here: it could not be run either
        if config.get("output_type", "generate_until") != "generate_until":
            continue
        metrics = [str(one["metric"]) for one in config.get("metric_list") or () if one]
        split = config.get("test_split") or config.get("validation_split")
        parts = [config.get("dataset_path"), config.get("dataset_name"), split]
        found.append({"name": name, "source": [str(part or "") for part in parts], "metrics": metrics})
    return found

"""What an evaluation is asked for: the options of `thinkimg eval`, and all that follows from them before it begins."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thinkimg.api import UNUSED_SCOPE, Control, ControlKind, ControlScope
from thinkimg.errors import UserError
from thinkimg.results import EvaluationSettings

if TYPE_CHECKING:
    from thinkimg.agent.agent import Agent
    from thinkimg.evaluation.identity import Asked
    from thinkimg.evaluation.lmms import LmmsTask
    from thinkimg.evaluation.scorers import Scorer
    from thinkimg.evaluation.tasks import EvaluationTask
    from thinkimg.models.reference import Model
    from thinkimg.models.trained import Asking


@dataclass(frozen=True)
class Options:
    """One model on one or several tasks; each attribute is an option of `thinkimg eval`.

    What is None is as the model was trained, where a run or a file says it, else as `Asking` says.

    Attributes:
        model: see `thinkimg.models.reference`; of `openai` with `base_url`, the endpoint's own name of it.
        backend: None: `openai` for an endpoint, else `transformers`.
        servers: of tools; none at all evaluates without tools. None is right for a model that was trained without.
        server_keys: address -> key; None: each is sent the environment's `THINKIMG_TOOL_API_KEY`.
        tools: offered of those that the servers have; none named: those that the model was trained with, else all.
        source: what `model` means, if that has been found already.
        stores, data_of, stop: OpenThinkIMG's: task -> file of its trajectories; task -> data; a text that ends a reply.
        adopts: also OpenThinkIMG's: answers of other evaluations may be among those that are there.
    """

    tasks: Sequence[str]
    model: str
    out: Path
    backend: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    servers: Sequence[str] | None = None
    server_keys: Mapping[str, str] | None = None
    tools: Sequence[str] = ()
    format: str | None = None
    prompt: Literal["full", "compact"] | None = None
    max_rounds: int | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None
    temperature: float = 0.0
    samples: int = 1
    control: ControlKind | None = None
    control_scope: ControlScope = "question"
    seed: int = 0
    concurrency: int = 64
    data: str | None = None
    split: str | None = None
    limit: int | None = None
    scorers: Sequence[str] = ()
    judge: Mapping[str, Any] = field(default_factory=dict)
    price: tuple[float, float] = (0.0, 0.0)
    shard: str = "0/1"
    stores: Mapping[str, Path] = field(default_factory=dict)
    data_of: Mapping[str, str] = field(default_factory=dict)
    stop: str | None = None
    source: "Model | None" = None
    adopts: bool = False

    @property
    def changed_pictures(self) -> Control | None:
        return None if self.control is None else Control(self.control, self.control_scope)


@dataclass(frozen=True)
class Chosen:
    """The options, the model that they mean, and how it is asked."""

    options: Options
    model: "Model"
    asking: "Asking"

    def settings(self, task: str, agent: "Agent", questions: "Asked", shards: int) -> EvaluationSettings:
        """All that an answer depends on. Scorers are not: answers are scored again."""
        from thinkimg.evaluation.identity import asked_with

        given, model = self.options, self.model
        return EvaluationSettings(
            task=task,
            name=given.name or model.name,
            temperature=given.temperature,
            samples=given.samples,
            seed=given.seed,
            stop=given.stop,
            data=given.data_of.get(task, given.data),
            split=given.split,
            limit=given.limit,
            questions=len(questions.names),
            data_content=questions.content,
            shards=shards,
            **asked_with(model, given.backend, given.model_args, self.asking, agent),
        )


def check_options(options: Options, tasks: Sequence[Any]) -> None:
    """Raises `UserError` for options that contradict each other, or the tasks."""
    if options.data is not None and len(tasks) > 1:
        raise UserError("--data and --split speak of one task; name one", "--data")
    if options.samples > 1:
        _refuse_equal_samples(options, tasks)
    if options.control is None and options.control_scope != "question":
        raise UserError(f"{UNUSED_SCOPE.message}. {UNUSED_SCOPE.remedy}", "--control-scope")


def _refuse_equal_samples(options: Options, tasks: Sequence[Any]) -> None:
    """Raises `UserError` where all answers to a question would be the same one, or another harness counts them."""
    from thinkimg.evaluation.lmms import LmmsTask

    if any(isinstance(task, LmmsTask) for task in tasks):
        raise UserError(
            "lmms-eval's own metrics take one answer to each question: leave it out for lmms:…", "--samples"
        )
    many = f"{options.samples} answers to a question would be the same one {options.samples} times"
    extra = options.model_args.get("extra")
    sent = extra if isinstance(extra, Mapping) else {}
    if options.temperature == 0 or sent.get("temperature", 1) == 0:
        where = "extra.temperature" if options.temperature else "--temperature"
        raise UserError(f"{many} at temperature 0: give {where} above it, such as 1.0", "--samples")
    if sent.get("seed") is not None:
        raise UserError(f"{many}, since extra.seed fixes it: leave it out", "--samples")


def choose(options: Options) -> Chosen:
    """Raises `UserError`: no such model, or one that was trained with tools and is given no server."""
    from thinkimg.models.backends import find_model
    from thinkimg.models.trained import asking

    model = options.source
    if model is None:
        model = find_model(options.model, options.backend, options.model_args)
        print(model, file=sys.stderr)
    if options.servers is None and model.trained is not None and model.trained.tools:
        names = " ".join(tool.spec.tool for tool in model.trained.tools)
        raise UserError(
            f"{options.model} was trained with tools: start them (`thinkimg serve {names}`) and name the servers, or "
            "say that it is evaluated without any",
            "servers",
        )
    asked = asking(
        model.trained,
        format=options.format,
        prompt=options.prompt,
        max_rounds=options.max_rounds,
        max_tokens=options.max_tokens,
        max_seconds=options.max_seconds,
    )
    return Chosen(options, model, asked)


def scorers_of(options: Options, task: "EvaluationTask | LmmsTask") -> "Sequence[Scorer]":
    """Those that were asked for, or the benchmark's two; what one of these lacks is said. Raises `UserError`."""
    from thinkimg.evaluation.evaluate import Shard
    from thinkimg.evaluation.lmms import LmmsTask
    from thinkimg.evaluation.make_scorers import make_scorers

    if isinstance(task, LmmsTask):
        folder = options.out / task.name
        return [task.scorer(options.judge, options.scorers, folder, options.limit, options.seed)]
    shared = Shard.parse(options.shard).count > 1
    return make_scorers(task, options.scorers, options.judge, shared)

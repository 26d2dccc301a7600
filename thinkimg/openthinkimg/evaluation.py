"""`python -m thinkimg.evaluation`: the command line and the configuration files of OpenThinkIMG's `tf_eval`.

Its flags and its YAML mean here what its documentation says; what its code did otherwise is not repeated: every entry
of a list runs, `resume_from_ckpt` works, folders are made. A checkpoint is our trajectory file (JSON lines, pictures in
`images/` beside it); one that OpenThinkIMG wrote is read as well.
"""

import argparse
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from thinkimg import jsonl
from thinkimg.errors import UserError
from thinkimg.evaluation.options import Options
from thinkimg.evaluation.output import TRAJECTORIES
from thinkimg.evaluation.run import run_evaluation
from thinkimg.evaluation.shown import show
from thinkimg.image import Image
from thinkimg.pairs import split_pairs
from thinkimg.results import EvaluationResults
from thinkimg.serving.config import read_document
from thinkimg.trajectory import Trajectory
from thinkimg.trajectory.store import ITEM, Store

BACKENDS = {
    "qwen2vl": "transformers",
    "vllm_models": "vllm",
    "vllm": "vllm",
    "openai": "openai",
    "gemini": "openai",
    "transformers": "transformers",
}
"""OpenThinkIMG's names of backends, and ours."""
GONE = {
    "lmdeploy_models": "use vllm_models, or openai with the address of lmdeploy's server",
    "llava_plus": "LLaVA-Plus is not supported",
}
GEMINI = "https://generativelanguage.googleapis.com/v1beta/openai"
_IGNORED = {"tensor_parallel", "limit_mm_per_prompt"}


def _pairs(given: Any, info: ValidationInfo) -> Any:
    if not isinstance(given, str):
        return given
    return split_pairs(given, str(info.field_name))


Pairs = Annotated[dict[str, Any], BeforeValidator(_pairs)]
"""`a=b,c=d`, or a mapping."""


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ModelArguments(_Arguments):
    """Attributes:
    model: the backend.
    model_args: `pretrained=…`, `temperature=…`, `max_new_tokens=…` (2048) and what else the backend takes, as `a=b,c=d`
        or a mapping.
    model_mode: which output syntax; every one of ours is `general`.
    batch_size: questions under way at once.
    stop_token: ends a reply; the text before it is read.
    max_rounds: tool rounds; the model speaks once more after the last one, as there.
    """

    model: str = "qwen2vl"
    model_args: Pairs = Field(default_factory=dict)
    model_mode: Literal["opensource", "general", "llava_plus"] = "general"
    batch_size: int = Field(default=1, ge=1)
    stop_token: str | None = None
    max_rounds: int = Field(default=3, ge=0)


class TaskArguments(_Arguments):
    """`resume_from_ckpt` and `save_to_ckpt`: task -> file."""

    task_name: list[str]
    resume_from_ckpt: dict[str, Path] = Field(default_factory=dict)
    save_to_ckpt: dict[str, Path] = Field(default_factory=dict)
    data: dict[str, str] = Field(default_factory=dict)
    num_sample: int | None = Field(default=None, ge=1)

    @field_validator("task_name", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        return [name.strip() for name in given.split(",")] if isinstance(given, str) else given


class ScriptArguments(_Arguments):
    """`output_path` gets one line of JSON per task and run; `controller_addr` is a tool server or a gateway."""

    verbosity: str = "INFO"
    output_path: Path = Path("results.jsonl")
    controller_addr: str | None = None
    wandb_args: Pairs = Field(default_factory=dict)


class Entry(_Arguments):
    """One run: an entry of a configuration file, or the command's flags."""

    model_args: ModelArguments = Field(default_factory=ModelArguments)
    task_args: TaskArguments
    script_args: ScriptArguments = Field(default_factory=ScriptArguments)


def main(arguments: Sequence[str] | None = None) -> list[EvaluationResults]:
    """Run every entry. Raises `UserError` before the first one starts if any is wrong."""
    flags = vars(_parser().parse_args(arguments))
    config = flags.pop("config")
    entries = _from_file(Path(config)) if config else [_entry(_grouped(flags), "flags")]
    options = [_options(entry) for entry in entries]
    results: list[EvaluationResults] = []
    for entry, chosen in zip(entries, options, strict=True):
        logging.basicConfig(level=entry.script_args.verbosity.upper(), force=True)
        results += _run(entry, chosen)
    return results


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m thinkimg.evaluation", description="OpenThinkIMG's tf_eval")
    parser.add_argument(
        "--config", help="YAML or JSON: one entry or a list, each with model_args, task_args, script_args"
    )
    for group in _GROUPS.values():
        for name in group.model_fields:
            parser.add_argument(f"--{name}")
    return parser


_GROUPS: dict[str, type[_Arguments]] = {
    "model_args": ModelArguments,
    "task_args": TaskArguments,
    "script_args": ScriptArguments,
}


def _grouped(flags: Mapping[str, Any]) -> dict[str, Any]:
    grouped: dict[str, Any] = {}
    for name, group in _GROUPS.items():
        given = {field: flags[field] for field in group.model_fields if flags[field] is not None}
        for field in ("resume_from_ckpt", "save_to_ckpt", "data"):
            if isinstance(given.get(field), str):
                given[field] = split_pairs(given[field], f"--{field}")
        grouped[name] = given
    return grouped


def _from_file(path: Path) -> list[Entry]:
    document = read_document(path)
    entries = document if isinstance(document, list) else [document]
    return [_entry(one, f"{path}[{number}]") for number, one in enumerate(entries)]


def _entry(document: Any, where: str) -> Entry:
    try:
        return Entry.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(first["msg"], ".".join(map(str, (where, *first["loc"])))) from error


def _options(entry: Entry) -> Options:
    """What `thinkimg eval` would be told."""
    model, tasks, script = entry.model_args, entry.task_args, entry.script_args
    if model.model in GONE or model.model not in BACKENDS:
        remedy = GONE.get(model.model, f"there are {', '.join(BACKENDS)}")
        raise UserError(f"there is no backend {model.model!r}: {remedy}", "model_args.model")
    arguments = {name: value for name, value in model.model_args.items() if name not in _IGNORED}
    name = arguments.pop("pretrained", None) or arguments.pop("model_name", None)
    if name is None:
        raise UserError("says no pretrained=… (or model_name=… of an endpoint)", "model_args.model_args")
    temperature = float(arguments.pop("temperature", 0.0))
    max_tokens = int(arguments.pop("max_new_tokens", 2048))
    if model.model == "gemini":
        arguments = {"base_url": GEMINI, "api_key_variable": "GEMINI_API_KEY", **arguments}
    if "max_retry" in arguments:
        arguments["retries"] = arguments.pop("max_retry")
    return Options(
        tasks=tasks.task_name,
        model=str(name),
        out=script.output_path.with_suffix(""),
        backend=BACKENDS[model.model],
        model_args=arguments,
        servers=(script.controller_addr,) if script.controller_addr else (),
        max_rounds=model.max_rounds + 1,
        max_tokens=max_tokens,
        temperature=temperature,
        concurrency=model.batch_size,
        limit=tasks.num_sample,
        data_of=tasks.data,
        stop=model.stop_token,
        shard=f"{os.environ.get('RANK', '0')}/{os.environ.get('WORLD_SIZE', '1')}",
        stores=tasks.save_to_ckpt,
        adopts=True,
    )


def _run(entry: Entry, options: Options) -> list[EvaluationResults]:
    for task, ckpt in entry.task_args.resume_from_ckpt.items():
        target = options.stores.get(task) or _default_store(options, task)
        if ckpt.exists() and ckpt.resolve() != target.resolve():
            adopt(ckpt, target)
    results = run_evaluation(options)
    path = entry.script_args.output_path
    path.parent.mkdir(parents=True, exist_ok=True)
    for found in results:
        show(found)
        figures = found.model_dump(mode="json", exclude={"kind", "version"})
        jsonl.append({"task_name": found.task, "model_name": options.model, "Acc": found.accuracy, **figures}, path)
    return results


def _default_store(options: Options, task: str) -> Path:
    return options.out / task / TRAJECTORIES


def adopt(source: Path, target: Path) -> int:
    """Copy the answers of another file that `target` does not hold, with their pictures; returns how many.

    Args:
        source: as a `Store` writes it, or a checkpoint of OpenThinkIMG's `tf_eval` (JSON lines of `{"task_name",
            "model_name", "results": {"idx", "results": {"final_answer", …}}}`). Of the latter the answer is kept, under
            its `idx` as the question's name.

    Raises:
        UserError: the source is neither.
    """
    with Store(target) as store:
        before = len(store)
        for line in jsonl.lines(source):
            try:
                record = jsonl.parse(line.text)
                trajectory = _foreign(record) or _ours(record, source.parent / "images")
            except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
                raise UserError(f"line {line.number} is no answer of an evaluation: {error!r}", str(source)) from error
            if not store.holds(str(trajectory.meta["task"])):
                store.append(trajectory)
        return len(store) - before


def _foreign(record: dict[str, Any]) -> Trajectory | None:
    if "results" not in record:
        return None
    result = record["results"]
    answer = result["results"].get("final_answer")
    meta = {"task": str(result["idx"]), ITEM: "", "model": record["model_name"], "stage": record["task_name"]}
    answer = None if answer is None else str(answer).strip().strip("\"'")  # its extractor leaves the quotes on
    return Trajectory(question="", answer=answer, status="answered" if answer is not None else "rounds", meta=meta)


def _ours(record: dict[str, Any], images: Path) -> Trajectory:
    found = {name: Image.from_reference(reference) for name, reference in record["images"].items()}
    found = {
        name: replace(image, data=(images / (image.sha256 + image.suffix)).read_bytes())
        for name, image in found.items()
    }
    return Trajectory.model_validate(record | {"images": found})

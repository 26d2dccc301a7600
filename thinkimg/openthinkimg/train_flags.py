"""OpenThinkIMG's command line: `python -m thinkimg.training.grpo` takes the flags of its `tool_grpo.py`.

The flags become a ToolRLJob with one stage, written to `OUTPUT_DIR/toolrljob.yaml`, and this process becomes
`thinkimg stage` of it: under torchrun every rank does. What each flag means here: `FLAGS`, from which the table in
docs/reference/openthinkimg-flags.md is made.
"""

import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import yaml

from thinkimg.api import parse_manifest, read_value
from thinkimg.api.pod_contract import ExitCode, Variable, stage_arguments
from thinkimg.data.questions import load_questions
from thinkimg.errors import UserError

STAGE = "v-toolrl"
ROUNDS = 6
"""The original's loop has so many, and no flag for it."""
BETA = 0.04
"""The default of TRL 0.14, which the original runs with."""


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise ValueError(f"true or false is needed, not {text!r}")
    return text.lower() in ("true", "1", "yes")


@dataclass(frozen=True)
class Flag:
    """One of the original's flags.

    Attributes:
        field: of the manifest, or what else it becomes; empty: it has no effect, and `note` says why.
        argument: the name in `grpo.args`, for those that are passed on as they are.
    """

    name: str
    read: Callable[[str], Any]
    field: str = ""
    note: str = ""
    argument: str = ""


def _passed(name: str, read: Callable[[str], Any]) -> Flag:
    return Flag(name, read, f"grpo.args.{name}", argument=name)


FLAGS = (
    Flag("model_name_or_path", str, "spec.model.uri", "a folder, or a name of the hub"),
    Flag("dataset_name", str, "spec.data.train.uri", "a JSON or JSONL file, or a name of the hub"),
    Flag("query_key", str, "spec.data.train.uri", "its `?question=`: the column of the question; default `question`"),
    Flag("output_dir", str, "`thinkimg stage --run`", "the model is in `stages/v-toolrl/model` below it"),
    Flag("reward_funcs", str, "grpo.rewards[].name", "`accuracy` and `format`, or ours; default `accuracy`; weight 1"),
    Flag("use_tool", _bool, "grpo.toolUse", "default false: text-only RL"),
    Flag("controller_addr", str, "`THINKIMG_TOOL_ENDPOINTS`", "a gateway or a tool server of ours"),
    Flag("max_pixels", int, "spec.model.maxPixels"),
    Flag("min_pixels", int, "spec.model.minPixels"),
    Flag("num_generations", int, "grpo.numGenerations", "default 8"),
    Flag("per_device_train_batch_size", int, "grpo.promptsPerStep", "× accumulation × processes ÷ generations"),
    Flag("gradient_accumulation_steps", int, "grpo.args.gradient_accumulation_steps"),
    Flag("num_train_epochs", float, "grpo.maxSteps", "computed from the number of questions; default 3"),
    Flag("max_steps", int, "grpo.maxSteps"),
    Flag("learning_rate", float, "grpo.learningRate", "default 1e-6"),
    Flag("temperature", float, "grpo.temperature"),
    Flag("beta", float, "grpo.beta", "default 0.04, as in the TRL that the original runs with"),
    Flag("max_completion_length", int, "grpo.maxTokensPerTurn", "there it cuts all turns together, here each"),
    Flag("max_prompt_length", int, "", "a prompt is never cut, because its pictures would lose their tokens"),
    Flag("seed", int, "spec.seed"),
    Flag("report_to", str, "spec.reportTo", "`none`, `wandb`, `trackio`, `tensorboard`"),
    Flag("run_name", str, "metadata.name", "and `WANDB_NAME`"),
    Flag("save_steps", int, "spec.checkpoint.everySteps"),
    Flag("save_total_limit", int, "spec.checkpoint.keep"),
    Flag("save_only_model", _bool, "", "a checkpoint that training cannot go on from is none"),
    Flag("trust_remote_code", _bool, "spec.model.trustRemoteCode"),
    Flag("model_revision", str, "spec.model.revision"),
    Flag("use_vllm", _bool, "", "vLLM is used where there is one, otherwise transformers; a word says so"),
    Flag("attn_implementation", str, "", "transformers takes the fastest that is installed and fits the device"),
    Flag("torch_dtype", str, "", "bfloat16 on a GPU, float32 on a CPU"),
    Flag("logging_steps", int, "", "every step is logged"),
    Flag("local_rank", int, "", "ranks are read from RANK and WORLD_SIZE"),
    _passed("deepspeed", str),
    _passed("bf16", _bool),
    _passed("gradient_checkpointing", _bool),
    _passed("lr_scheduler_type", str),
    _passed("warmup_steps", int),
    _passed("weight_decay", float),
    _passed("max_grad_norm", float),
    _passed("vllm_gpu_memory_utilization", float),
)


def read_flags(words: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of the flags, by name, and arguments of TRL's GRPOConfig that are none of `FLAGS`.

    Raises:
        UserError: a word that is no flag, or a value that cannot be read.
    """
    known = {flag.name: flag for flag in FLAGS}
    values: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, texts in _pairs(words):
        if name == "reward_funcs":
            values[name] = texts
        elif len(texts) > 1:
            raise UserError(f"one value is needed, not {len(texts)}", f"--{name}")
        elif name in known:
            try:
                values[name] = known[name].read(texts[0] if texts else "true")
            except ValueError as error:
                raise UserError(str(error), f"--{name}") from None
        else:
            others[name] = read_value(texts[0]) if texts else True
    return values, others


def _pairs(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    pairs: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            pairs.append((name.replace("-", "_"), [value] if equals else []))
        elif pairs:
            pairs[-1][1].append(word)
        else:
            raise UserError(f"{word!r} is no flag; flags begin with --", "command line")
    return pairs


def job_of(
    values: Mapping[str, Any], others: Mapping[str, Any], world: tuple[int, int], questions: int
) -> dict[str, Any]:
    """The ToolRLJob of the flags, as it is written.

    Args:
        world: nodes, and processes of each.
        questions: how many there are to train on.

    Raises:
        UserError: groups that would not fit.
    """
    generations = values.get("num_generations", 8)
    passes = values.get("gradient_accumulation_steps", 1)
    rows = values.get("per_device_train_batch_size", 8) * passes
    if rows % generations:
        raise UserError(
            f"per_device_train_batch_size × gradient_accumulation_steps is {rows}, which is no multiple of "
            f"num_generations ({generations}): a group would straddle processes",
            "--per_device_train_batch_size",
        )
    prompts = rows // generations * world[0] * world[1]
    steps = values.get("max_steps", 0)
    if steps < 1:
        steps = math.ceil(questions * values.get("num_train_epochs", 3.0) / prompts)
    args = {flag.argument: values[flag.name] for flag in FLAGS if flag.argument and flag.name in values}
    args |= dict(others) | ({"gradient_accumulation_steps": passes} if passes > 1 else {})
    grpo = {
        "toolUse": "Enabled" if values.get("use_tool") else "Disabled",
        "maxSteps": steps,
        "promptsPerStep": prompts,
        "numGenerations": generations,
        "learningRate": values.get("learning_rate", 1e-6),
        "temperature": values.get("temperature", 1.0),
        "beta": values.get("beta", BETA),
        "lossType": "grpo",
        "maxRounds": ROUNDS,
        "maxTokensPerTurn": values.get("max_completion_length", 256),
        "rewards": [{"name": name, "weight": 1.0} for name in values.get("reward_funcs", ["accuracy"])],
        "args": args,
    }
    report_to = values.get("report_to", "none")
    model = {"uri": _model_uri(values), "minPixels": values.get("min_pixels"), "maxPixels": values.get("max_pixels")}
    model |= {"trustRemoteCode": values.get("trust_remote_code"), "revision": values.get("model_revision")}
    stage = {"name": STAGE, "type": "GRPO", "nodes": world[0], "procsPerNode": world[1], "grpo": grpo}
    spec = {
        "model": {name: value for name, value in model.items() if value is not None},
        "tools": [{"name": "openthinkimg"}] if values.get("use_tool") else [],
        "data": {"train": {"uri": _data_uri(values)}},
        "seed": values.get("seed", 42),
        "reportTo": [] if report_to in ("none", "") else [report_to],
        "checkpoint": {"everySteps": values.get("save_steps", 500), "keep": values.get("save_total_limit", 2)},
        "stages": [stage],
    }
    name = re.sub(r"[^a-z0-9-]+", "-", str(values.get("run_name", "openthinkimg")).lower()).strip("-")[:30].strip("-")
    name = name if name[:1].isalpha() else f"run-{name}"[:30].strip("-")
    return {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "ToolRLJob", "metadata": {"name": name}, "spec": spec}


def _needed(values: Mapping[str, Any], name: str) -> str:
    if not values.get(name):
        raise UserError("it is missing", f"--{name}")
    return str(values[name])


def _model_uri(values: Mapping[str, Any]) -> str:
    given = _needed(values, "model_name_or_path")
    return "pvc://model" if Path(given).is_dir() else f"hf://{given}"


def _data_uri(values: Mapping[str, Any]) -> str:
    """Local folders appear as claims, as they do in a pod; see `_claims`."""
    given = _needed(values, "dataset_name")
    key = values.get("query_key", "question")
    column = "" if key == "question" else f"?question={key}"
    return f"pvc://data/{Path(given).name}{column}" if Path(given).is_file() else f"hf://{given}{column}"


def _claims(values: Mapping[str, Any], folder: Path) -> None:
    """Links to the local folders, which the stage reads as claims."""
    folder.mkdir(parents=True, exist_ok=True)
    model, data = Path(values["model_name_or_path"]), Path(values["dataset_name"])
    targets = {"model": model if model.is_dir() else None, "data": data.parent if data.is_file() else None}
    for name, target in targets.items():
        if target is not None:
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(target.resolve(), target_is_directory=True)


def _count(values: Mapping[str, Any]) -> int:
    """How many questions there are; read for `num_train_epochs` only."""
    if values.get("max_steps", 0) > 0:
        return 0
    given = Path(_needed(values, "dataset_name"))
    key = values.get("query_key", "question")
    uri = str(given) if given.is_file() else f"hf://{given}"
    try:
        return len(load_questions(uri if key == "question" else f"{uri}?question={key}", "train", decode=False))
    except ValueError as error:
        raise UserError(str(error), "--dataset_name") from error


def prepare(words: Sequence[str], environment: Mapping[str, str]) -> tuple[Path, dict[str, str]]:
    """Write the manifest (rank 0) and say which file it is and what the stage's environment is to hold besides.

    Raises:
        UserError: a flag that is wrong, by its name.
    """
    values, others = read_flags(words)
    output = Path(_needed(values, "output_dir")).resolve()
    here = int(environment.get("LOCAL_WORLD_SIZE", "1"))
    world = (int(environment.get("WORLD_SIZE", "1")) // here, here)
    text = yaml.safe_dump(job_of(values, others, world, _count(values)), sort_keys=False)
    parse_manifest(text)
    rank = environment.get("RANK", "0")
    file = output / (f"toolrljob.rank{rank}.yaml" if rank != "0" else "toolrljob.yaml")
    output.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    _claims(values, output / f"claims.rank{rank}")
    added = {Variable.CLAIMS: str(output / f"claims.rank{rank}"), Variable.ATTEMPT: str(_attempt(output) + 1)}
    if values.get("use_tool"):
        added[Variable.TOOL_ENDPOINTS] = _needed(values, "controller_addr")
    if values.get("run_name"):
        added["WANDB_NAME"] = values["run_name"]
    if rank == "0":
        _explain(values, file)
    return file, added


def _attempt(output: Path) -> int:
    """The last attempt's number: started again, training goes on from its newest checkpoint."""
    try:
        return int((output / "stages" / STAGE / "attempt").read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _explain(values: Mapping[str, Any], file: Path) -> None:
    print(json.dumps({"manifest": str(file)}), flush=True)
    for flag in FLAGS:
        if flag.name in values and not flag.field:
            print(f"--{flag.name} has no effect: {flag.note}", file=sys.stderr)
    if values.get("use_vllm") and find_spec("vllm") is None:
        print("--use_vllm: vllm is not installed here, transformers samples", file=sys.stderr)


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Become `thinkimg stage` of the job that the flags describe."""
    try:
        file, added = prepare(sys.argv[1:] if words is None else words, os.environ)
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(ExitCode.USER)
    command = [sys.executable, "-m", "thinkimg.cli", *stage_arguments(str(file), STAGE, str(file.parent))]
    os.execve(sys.executable, command, {**os.environ, **added})

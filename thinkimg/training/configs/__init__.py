"""Configurations for many processes: DeepSpeed's ZeRO stages, and files for `accelerate launch`."""

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, TypeVar

from thinkimg.errors import UserError

C = TypeVar("C")

STAGES = (1, 2, 3)


def zero_config(stage: int) -> dict[str, Any]:
    """DeepSpeed's configuration of a ZeRO stage, for `TrainingArguments.deepspeed`; `auto` is filled in from there."""
    text = files(__package__).joinpath(f"deepspeed-zero{stage}.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def deepspeed_options(stage: int) -> dict[str, Any]:
    """Arguments of TrainingArguments for a ZeRO stage; none for 0, plain data parallelism."""
    return {"deepspeed": zero_config(stage)} if stage else {}


def without_compiled_collectives(options: Mapping[str, Any]) -> None:
    """On a CPU, keep DeepSpeed from compiling its collectives for shared memory at its first start: that needs a
    compiler and two minutes, and gloo does the same. `options` are those of TrainingArguments."""
    if options["use_cpu"] and options.get("deepspeed"):
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def build(kind: Callable[..., C], options: Mapping[str, Any], args: Mapping[str, Any], field: str) -> C:
    """TRL's configuration from its options, among them the user's own `args`.

    Raises:
        UserError: TRL refuses it, or a package that it wants is missing; the argument is named without which it would
            have been taken.
    """
    try:
        return kind(**options)
    except (TypeError, ValueError, ImportError, AssertionError) as error:
        guilty = next((name for name in args if _accepted(kind, options, name)), None)
        named = f"{field}.{guilty}" if guilty else field
        raise UserError(f"TRL refuses the configuration: {error}", named) from error


def _accepted(kind: Callable[..., Any], options: Mapping[str, Any], without: str) -> bool:
    try:
        kind(**{name: value for name, value in options.items() if name != without})
    except Exception:  # whatever is wrong besides
        return False
    return True

"""Configurations for many processes: DeepSpeed's ZeRO stages, and files for `accelerate launch`."""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

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

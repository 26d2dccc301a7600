"""In which types a model is trained: float32 for weights that the optimiser changes, one smaller type to compute in.

A bfloat16 weight of 0.02 can change by 0.0001 or not at all. AdamW at a rate of 1e-6 asks for a hundredth of that, so
nearly every step of a bfloat16 weight is rounded away, while loss, reward and gradient norm look as they should. So the
optimiser changes float32 weights ("masters"), and whoever computes with them casts them at each use: trainer and
generator alike, so that the loss sees the distribution that was sampled from.
"""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import AutocastKwargs

from thinkimg.errors import UserError
from thinkimg.models.pretrained import LoadedModel
from thinkimg.models.transformers_generator import TransformersGenerator

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}
"""What transformers calls mixed precision."""


def precision_options(args: Mapping[str, Any], field: str) -> dict[str, Any]:
    """Arguments of TrainingArguments for the type that is computed in: bfloat16 on a GPU, float32 on a CPU, unless
    `args`, or a DeepSpeed configuration in it, says otherwise.

    Raises:
        UserError: float16 without a GPU.
    """
    gpu = torch.cuda.is_available()
    if args.get("fp16") and not gpu:
        raise UserError("float16 needs a GPU: its gradients are scaled, which torch does there only", f"{field}.fp16")
    said = "bf16" in args or args.get("fp16") or _deepspeed_says(args.get("deepspeed"))
    return {} if said else {"bf16": gpu}


def _deepspeed_says(config: Any) -> bool:
    """Whether a configuration of the user's own says which type it wants."""
    if not config:
        return False
    from transformers.integrations import HfDeepSpeedConfig

    read = HfDeepSpeedConfig(config)
    return any(read.get_value(f"{name}.enabled") not in (None, "auto") for name in ("bf16", "fp16"))


def compute_dtype(args: Any) -> torch.dtype:
    """What a trainer with these TrainingArguments computes in."""
    deepspeed = getattr(args, "hf_deepspeed_config", None)
    for name in ("bf16", "fp16"):
        if deepspeed is not None and deepspeed.is_true(f"{name}.enabled"):
            return _DTYPES[name]
    return _DTYPES[args.mixed_precision]


def hold_masters(model: LoadedModel, args: Any, adapters: bool) -> None:
    """Before a trainer is made: give `model`, in place, float32 weights where the optimiser will change them, and let
    its generator compute as the trainer will.

    DeepSpeed keeps masters itself, spread over the processes as its ZeRO stage says, if it is told to compute in a
    smaller type. A base below adapters is not changed and stays as it is; peft makes the adapters float32.
    """
    computed = compute_dtype(args)
    deepspeed = getattr(args, "hf_deepspeed_config", None) is not None
    if computed == torch.float32 or not (deepspeed or adapters):
        for parameter in model.model.parameters():
            if parameter.is_floating_point() and parameter.dtype != torch.float64:
                parameter.data = parameter.data.float()
    generator = model.chat.generator
    if isinstance(generator, TransformersGenerator):
        generator.compute_dtype = None if deepspeed or computed == torch.float32 else computed


def cast_at_each_use(trainer: Any) -> None:
    """Let autocast keep no casts. Torch's cache of them is one for all threads: a cast that the generator's thread made
    without gradients would be taken for the loss, and one that outlives an optimiser step is of old weights. A weight
    is used once per forward pass, so that nothing is computed twice, and the casts' memory is free at once."""
    trainer.accelerator.autocast_handler = AutocastKwargs(cache_enabled=False)

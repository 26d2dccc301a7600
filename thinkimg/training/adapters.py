"""Low-rank adapters (LoRA, arXiv 2106.09685) in place of training all weights."""

from typing import Any

from peft import LoraConfig, PeftModel
from torch import nn

from thinkimg.api import Lora
from thinkimg.errors import UserError


def lora_config(model: Any, lora: Lora | None) -> LoraConfig | None:
    """peft's configuration for `model`; None without adapters.

    Raises:
        UserError: the model has no layer of a given name.
    """
    if lora is None:
        return None
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if lora.target_modules:
        for wanted in lora.target_modules:
            if not any(name == wanted or name.endswith(f".{wanted}") for name in linear):
                known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
                raise UserError(f"the model has no linear layer {wanted!r}; there are {known}", "lora.targetModules")
        targets = list(lora.target_modules)
    else:
        targets = [name for name in linear if "language_model" in name]
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft divides by the rank, whole or not
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )


def merge_adapters(model: Any) -> None:
    """Write the adapters of a trainer's model into its weights, in place: the model below is a plain one again."""
    if isinstance(model, PeftModel):
        model.merge_and_unload()  # type: ignore[operator]

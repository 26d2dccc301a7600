"""Low-rank adapters (LoRA, arXiv 2106.09685) in place of training all weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peft import LoraConfig, PeftModel
from torch import nn

from thinkimg.errors import UserError


@dataclass(frozen=True)
class LoraSettings:
    """Attributes:
    rank, alpha: of the adapters, whose output is scaled by alpha / rank.
    target_modules: names of layers, or ends of their names; empty: every linear layer of the language model but the
        head.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: Sequence[str] = ()


def lora_config(model: Any, settings: LoraSettings | None) -> LoraConfig | None:
    """peft's configuration for `model`; None without settings.

    Raises:
        UserError: the model has no layer of a given name.
    """
    if settings is None:
        return None
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if settings.target_modules:
        for wanted in settings.target_modules:
            if not any(name == wanted or name.endswith(f".{wanted}") for name in linear):
                known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
                raise UserError(f"the model has no linear layer {wanted!r}; there are {known}", "lora.targetModules")
        targets = list(settings.target_modules)
    else:
        targets = [name for name in linear if "language_model" in name]
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft divides by the rank, whole or not
        lora_dropout=settings.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )


def merge_adapters(model: Any) -> None:
    """Write the adapters of a trainer's model into its weights, in place: the model below is a plain one again."""
    if isinstance(model, PeftModel):
        model.merge_and_unload()  # type: ignore[operator]

"""Low-rank adapters (LoRA, arXiv 2106.09685) in place of training all weights."""

import logging
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import nn

from thinkimg.api import Lora
from thinkimg.errors import UserError

logger = logging.getLogger(__name__)


def lora_config(model: Any, lora: Lora | None) -> LoraConfig | None:
    """peft's configuration for `model`; None without adapters.

    Raises:
        UserError: the model has no layer of a given name, or it is the head, whose logits the trainers change.
    """
    if lora is None:
        return None
    head = model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
    experts = expert_weights(model)
    if lora.target_modules:
        for wanted in lora.target_modules:
            if not any(_is_named(name, wanted) for name in linear + experts):
                known = ", ".join(sorted({name.rpartition(".")[2] for name in linear + experts}))
                raise UserError(
                    f"the model has no linear layer {wanted!r} that can be adapted (the head cannot be); "
                    f"there are {known}",
                    "lora.targetModules",
                )
        targets = [name for name in lora.target_modules if any(_is_named(layer, name) for layer in linear)]
        experts = [name for name in experts if any(_is_named(name, wanted) for wanted in lora.target_modules)]
    else:
        targets = [name for name in linear if "language_model" in name]
    if experts and lora.dropout:
        raise UserError(
            "adapters of experts know no dropout: leave it at 0, or name layers without experts in targetModules",
            "lora.dropout",
        )
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft divides by the rank, whole or not
        lora_dropout=lora.dropout,
        target_modules=targets,
        target_parameters=experts or None,
        task_type="CAUSAL_LM",
    )


def expert_weights(model: nn.Module) -> list[str]:
    """Names of the parameters that hold all experts of a layer, (experts, out, in): no linear layers of their own."""
    return [name for name, parameter in model.named_parameters() if ".experts." in name and parameter.ndim == 3]


def _is_named(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


def spare_frozen_vision(model: Any) -> None:
    """Let a vision tower without adapters compute without gradients, from the next forward pass on.

    Under gradient checkpointing transformers and TRL let the output of every embedding require gradients, the patches'
    too, so that a backward pass would compute the whole frozen tower again and go through it to the pixels.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    tower = base.get_encoder("image")
    if any(parameter.requires_grad for parameter in tower.parameters()):
        return
    tower.forward = torch.no_grad()(tower.forward)


def merge_adapters(model: Any) -> None:
    """Write the adapters of a trainer's model into its weights, in place: the model below is a plain one again.

    Sums are made in float32 and rounded once to the weights' type. A warning says so where that loses more than a tenth
    of what the adapters learned.
    """
    if not isinstance(model, PeftModel):
        return
    kept = kept_by_rounding(model)
    if kept < 0.9:
        logger.warning(
            "the merged weights keep %.0f %% of what the adapters learned: the rest is smaller than their type can "
            "tell. A higher learning rate or more steps change more",
            100 * kept,
        )
    model.merge_and_unload()  # type: ignore[operator]


def kept_by_rounding(model: nn.Module) -> float:
    """Which share of the adapters' change is left when the merged weights are rounded to their type, 0 to 1: the change
    of the rounded weights, projected on that of the adapters. 1 if the adapters change nothing."""
    dot = square = 0.0
    for layer in adapted_layers(model):
        change = change_of(layer)
        weight = weight_of(layer).detach()
        rounded = (weight + change).to(weight.dtype) - weight.float()
        dot += float((rounded * change).sum())
        square += float(change.square().sum())
    return dot / square if square else 1.0


def adapted_layers(model: nn.Module) -> list[Any]:
    """The linear layers and weights of experts that have an adapter."""
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def weight_of(layer: Any) -> nn.Parameter:
    """What the adapter of a layer changes."""
    weight: nn.Parameter = layer.get_param() if isinstance(layer, ParamWrapper) else layer.get_base_layer().weight
    return weight


def change_of(layer: Any) -> torch.Tensor:
    """What the adapters of a layer add to its weight, in float32 and of its shape."""
    with torch.no_grad():
        added: torch.Tensor = sum(layer.get_delta_weight(name).float() for name in layer.active_adapters)
    return added

"""After training: one plain model again, whatever it was trained with."""

from typing import Any

import torch
from torch import nn

from thinkimg.training.adapters import merge_adapters


def make_whole(trainer: Any) -> None:
    """Give the trainer's model, in place, all its parameters back (ZeRO-3 leaves a part of each in every process) and
    merge its adapters. Every rank must call it."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        _gather(model, trainer.model_wrapped)
    merge_adapters(model)


def _gather(model: nn.Module, engine: Any) -> None:
    import deepspeed

    whole: dict[int, nn.Parameter] = {}
    for parameter in model.parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            data = parameter.data.detach().clone()
        whole[id(parameter)] = nn.Parameter(data, requires_grad=parameter.requires_grad)
    engine.destroy()  # its hooks on every layer
    for module in model.modules():
        own = {
            name: None if parameter is None else whole[id(parameter)] for name, parameter in module._parameters.items()
        }
        vars(module)["_parameters"] = own  # deepspeed's dictionary gathers what is read from it
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

"""After training: one plain model again, whatever it was trained with."""

from typing import Any

import torch
from torch import nn

from thinkimg.models.pretrained import LoadedModel
from thinkimg.training.adapters import merge_adapters


def make_whole(trainer: Any, loaded: LoadedModel) -> None:
    """Give the trainer's model, in place, its plain forward pass and all its parameters back, from the masters that the
    optimiser changed (DeepSpeed keeps them beside the model, and ZeRO-3 leaves a part of each parameter in every
    process), and merge its adapters. Every rank must call it."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    if trainer.is_deepspeed_enabled:
        _gather(model, trainer.model_wrapped, loaded)
    vars(model).pop("forward", None)  # accelerate leaves one there that knows nothing of transformers' wrappers
    merge_adapters(model)


def _gather(model: nn.Module, engine: Any, loaded: LoadedModel) -> None:
    """Parameters as they were loaded, adapters in float32: rounded once, from the masters."""
    dtypes = {id(parameter): loaded.dtypes[name] for name, parameter in _own(loaded.model)}
    whole: dict[int, nn.Parameter] = {}
    for parameter in model.parameters():
        data = _master(parameter).to(dtypes.get(id(parameter), torch.float32))
        whole[id(parameter)] = nn.Parameter(data, requires_grad=parameter.requires_grad)
    engine.destroy()  # its hooks on every layer
    for module in model.modules():
        own = {
            name: None if parameter is None else whole[id(parameter)] for name, parameter in module._parameters.items()
        }
        vars(module)["_parameters"] = own  # deepspeed's dictionary gathers what is read from it
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _own(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters of a model that may have got adapters, by their names before."""
    named = ((name.replace(".base_layer.", "."), parameter) for name, parameter in model.named_parameters())
    return [(name, parameter) for name, parameter in named if ".lora_" not in name]


def _master(parameter: nn.Parameter) -> torch.Tensor:
    """The whole of a parameter as the optimiser has it; of one that was not trained, as the model has it."""
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    master = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
    if master is not None:
        return master.detach().clone()
    if not hasattr(parameter, "ds_id"):
        return parameter.data
    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.data.detach().clone()

"""A stage's model to be asked: on vLLM where rollouts are (`chosen_engine`), else on transformers."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from thinkimg.jobs.stages.context import Context
from thinkimg.models.chat import ChatModel
from thinkimg.models.pretrained import LoadedModel
from thinkimg.training.colocated import wants_vllm


@contextmanager
def speaking(context: Context, name: str) -> Iterator[ChatModel]:
    """The model that stage `name` has saved, for as long as the block lasts."""
    if not wants_vllm():
        yield context.load(name).chat
        return
    with _engine(context, name) as model:
        yield model


@contextmanager
def still_speaking(context: Context, name: str, loaded: LoadedModel) -> Iterator[ChatModel]:
    """The same of a model that is in this process, and saved. It makes room for the engine while the block lasts."""
    if not wants_vllm():
        yield loaded.chat
        return
    device = loaded.model.device
    loaded.model.to("cpu")
    try:
        with _engine(context, name) as model:
            yield model
    finally:
        loaded.model.to(device)


@contextmanager
def _engine(context: Context, name: str) -> Iterator[ChatModel]:
    from thinkimg.models.vllm.loading import load_model, shut_down

    _free()
    options: dict[str, Any] = {"longest": context.job.spec.agent.max_tokens}
    if torch.cuda.is_available():
        options["dtype"] = "bfloat16"  # as `load_model` of transformers has it there
    if context.world_size > 1:  # each process its own engine: vLLM finds the processes joined, and joins no others
        options["distributed_executor_backend"] = "external_launcher"
    model = load_model(context.model(name), context.loading, **options)
    try:
        yield model
    finally:
        shut_down(model)
        _free()


def _free() -> None:
    """What is not used any more is another engine's room."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

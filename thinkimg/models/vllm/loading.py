"""A model on a vLLM engine of its own in this process: for evaluation and synthesis, where no weights change."""

import importlib.util
import os
from typing import Any

import torch

from thinkimg.errors import UserError
from thinkimg.models.chat import TokenModel
from thinkimg.models.checkpoint import check_checkpoint
from thinkimg.models.families import family_of
from thinkimg.models.loading import Loading
from thinkimg.models.pretrained import load_processor, with_weights
from thinkimg.models.reference import Adapter, Folder, Hub, Model
from thinkimg.models.vllm.cpu import prepare_cpu
from thinkimg.models.vllm.engine import EngineThread
from thinkimg.models.vllm.generator import VLLMGenerator


def load_model(model: Model, how: Loading = Loading(), longest: int | None = None, **options: Any) -> TokenModel:
    """A model from a folder or the hub; its requests enter the engine as they come, none waits for another.

    Args:
        longest: most tokens of a trajectory, where the model takes as many: room is kept for no more.
        options: further arguments of `vllm.LLM`, such as `max_model_len` or `gpu_memory_utilization`.

    Raises:
        UserError: vLLM is not installed, nothing that it can load is there, or it is an adapter.
    """
    model = with_weights(model, how.field)
    source = model.source
    if isinstance(source, Adapter):
        raise UserError(
            f"{source.path} is an adapter; write its merged weights to a folder, and name that: "
            f"thinkimg export {source.path} FOLDER",
            how.field,
        )
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "vLLM is not installed: pip install 'thinkimg[vllm]', or take --backend transformers", "--backend"
        )
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the engine stays in this process
    prepare_cpu()
    from vllm import LLM

    chosen: dict[str, Any] = {"enable_prefix_caching": True}
    if not torch.cuda.is_available():
        # As in training on a CPU; and there vLLM 0.31 cannot seed a prompt that it cuts into chunks.
        length = int(options.get("max_model_len", 4096))
        chosen |= {"dtype": "float32", "max_model_len": length, "max_num_batched_tokens": max(4096, length)}
        chosen |= {"enable_chunked_prefill": False, "enforce_eager": True}
    config, processor = load_processor(model, how)
    if longest is not None:
        length = min(longest, getattr(config.get_text_config(), "max_position_embeddings", longest))
        chosen["max_model_len"] = length
        if not torch.cuda.is_available():
            chosen["max_num_batched_tokens"] = max(4096, length)
    if how.pixels(model) != (None, None):
        chosen["mm_processor_kwargs"] = {"size": dict(processor.image_processor.size)}
    assert isinstance(source, Folder | Hub)
    if isinstance(source, Folder):
        check_checkpoint(source.path)
    elif source.revision:
        chosen["revision"] = source.revision
    name = str(source.path) if isinstance(source, Folder) else source.name
    try:
        family = family_of(config.model_type, processor, how.field, how.thinks(model))
        chosen |= {"trust_remote_code": how.trust_remote_code, "logprobs_mode": "processed_logprobs"}
        llm = LLM(name, **(chosen | options))
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"vLLM can load no model from {source}: {error}", "--model-args") from error
    engine = llm.llm_engine
    return TokenModel(family, VLLMGenerator(family, EngineThread(engine), engine.model_config.max_model_len))


def shut_down(model: TokenModel) -> None:
    """End the engine of a model that `load_model` gave, and free its memory."""
    generator = model.generator
    assert isinstance(generator, VLLMGenerator)
    generator.close()

"""A model on a vLLM engine of its own in this process: for evaluation and synthesis, where no weights change."""

import importlib.util
import os
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor

from thinkimg.errors import UserError
from thinkimg.models.chat import TokenModel
from thinkimg.models.families import family_of
from thinkimg.models.vllm.cpu import prepare_cpu
from thinkimg.models.vllm.engine import EngineThread
from thinkimg.models.vllm.generator import VLLMGenerator


def load_model(source: str, revision: str | None = None, trust_remote_code: bool = False, **options: Any) -> TokenModel:
    """A model from a folder or the hub; its requests enter the engine as they come, none waits for another.

    Args:
        options: further arguments of `vllm.LLM`, such as `max_model_len` or `gpu_memory_utilization`.

    Raises:
        UserError: vLLM is not installed, or nothing that it can load is there.
    """
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
        longest = int(options.get("max_model_len", 4096))
        chosen |= {"dtype": "float32", "max_model_len": longest, "max_num_batched_tokens": max(4096, longest)}
        chosen |= {"enable_chunked_prefill": False, "enforce_eager": True}
    try:
        known = {"revision": revision, "trust_remote_code": trust_remote_code}
        processor = AutoProcessor.from_pretrained(source, **known)
        family = family_of(AutoConfig.from_pretrained(source, **known).model_type, processor)
        llm = LLM(source, logprobs_mode="processed_logprobs", **known, **(chosen | options))
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"vLLM can load no model from {source}: {error}", "--model-args") from error
    engine = llm.llm_engine
    return TokenModel(family, VLLMGenerator(family, EngineThread(engine), engine.model_config.max_model_len))

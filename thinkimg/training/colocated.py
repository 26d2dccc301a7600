"""vLLM in the trainer's process. TRL owns the engine and the weights' way into it (`use_vllm`); its `generate` is
bypassed: the rollouts' requests go to the thread that owns the engine.

Order of a step, collectives outside the turns: weights, wake, all trajectories, sleep.
"""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from thinkimg.errors import UserError
from thinkimg.models.vllm.cpu import prepare_cpu
from thinkimg.models.vllm.engine import EngineThread
from thinkimg.models.vllm.generator import VLLMGenerator

LONGEST = 32_768
"""Tokens of a trajectory, unless `vllm_max_model_length` says otherwise: the default limit of the agent."""


def chosen_engine(model: Any) -> dict[str, Any]:
    """TRL's options for rollouts on vLLM: where it is installed and there is a GPU, or where the environment variable
    `THINKIMG_ENGINE` says `vllm`. Otherwise, and where it says `transformers`, none: rollouts on transformers.

    Raises:
        UserError: the variable says something else, or vLLM is not installed.
    """
    wish = os.environ.get("THINKIMG_ENGINE", "")
    if wish not in ("", "vllm", "transformers"):
        raise UserError(f"{wish!r} is no engine; there are vllm and transformers", "THINKIMG_ENGINE")
    installed = importlib.util.find_spec("vllm") is not None
    if wish == "vllm" and not installed:
        raise UserError("vLLM is not installed: pip install 'thinkimg[vllm]'", "THINKIMG_ENGINE")
    gpu = torch.cuda.is_available()
    if wish == "transformers" or not installed or not (gpu or wish):
        return {}
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", LONGEST)
    options: dict[str, Any] = {"use_vllm": True, "vllm_mode": "colocate", "vllm_enable_sleep_mode": gpu}
    return options | {"vllm_max_model_length": min(longest, LONGEST)}


def check_vllm(args: Any, vllm: VLLMGenerator | None) -> None:
    """Raises `UserError` for a configuration that this engine cannot serve."""
    if args.use_vllm != (vllm is not None):
        raise UserError("use_vllm and a VLLMGenerator as the agent's generator go together", "grpo.args.use_vllm")
    if vllm is None:
        return
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "vLLM is not installed: pip install 'thinkimg[vllm]', or leave use_vllm out", "grpo.args.use_vllm"
        )
    if args.vllm_mode != "colocate":
        raise UserError(
            f"vllm_mode {args.vllm_mode!r} is TRL's own way to a server; here the engine is in the process (colocate)",
            "grpo.args.vllm_mode",
        )
    if args.vllm_tensor_parallel_size != 1:
        raise UserError(
            "ranks that share an engine would have to take their turns together; each rank has its own (1)",
            "grpo.args.vllm_tensor_parallel_size",
        )
    for name, neutral in (("top_p", 1.0), ("top_k", 0), ("min_p", None), ("repetition_penalty", 1.0)):
        if getattr(args, name) not in (neutral, 0, 0.0):
            raise UserError(
                "the loss computes the unfiltered distribution; sampling must not filter", f"grpo.args.{name}"
            )


@contextmanager
def engine_options(model: Any, **options: Any) -> Iterator[None]:
    """While TRL makes its `vllm.LLM`: options that TRL does not pass on. The engine computes in the model's own type
    (vLLM would take bfloat16 for float32), and long contexts with many pictures fit its batches."""
    prepare_cpu()
    from trl.generation import vllm_generation

    plain = vllm_generation.LLM
    chosen: dict[str, Any] = {"dtype": str(model.dtype).removeprefix("torch."), "enable_prefix_caching": True}
    vllm_generation.LLM = partial(_make, plain, chosen | options)
    try:
        yield
    finally:
        vllm_generation.LLM = plain


def _make(plain: Any, chosen: dict[str, Any], **given: Any) -> Any:
    if not torch.cuda.is_available():
        length = given.get("max_model_len")
        if length is None:
            raise UserError("say how long a trajectory may be, in tokens", "grpo.args.vllm_max_model_length")
        # vLLM 0.31 rewinds the random stream of a prompt that it cuts into chunks, which a CPU's generator cannot.
        chosen = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(4096, length)} | chosen
    return plain(**(given | chosen))


class ColocatedEngine:
    """TRL's engine behind a thread, awake only while trajectories are made.

    Args:
        generation: `trl.generation.vllm_generation.VLLMGeneration` in mode `colocate`.
        generator: of the agent; attached to the engine here.
    """

    def __init__(self, generation: Any, generator: VLLMGenerator) -> None:
        self.generation = generation
        self.generator = generator
        engine = generation.llm.llm_engine
        self.thread = EngineThread(engine, torch.device(generation.accelerator.device))
        self._synced: int | None = None
        generator.attach(self.thread, engine.model_config.max_model_len)

    @contextmanager
    def awake(self, step: int) -> Iterator[None]:
        """Within: the engine generates with the weights of optimiser step `step`. All ranks enter together."""
        self.thread.run(lambda _: self._wake(step))
        try:
            yield
        finally:
            self.thread.run(lambda _: self._sleep())

    def _wake(self, step: int) -> None:
        asleep = self.generation.enable_sleep_mode and self.generation._llm_weights_sleeping
        if step != self._synced or asleep:
            self.generation.sync_weights()
            # TRL resets the prefix cache only; pictures encoded with the old weights must go as well.
            self.generation.llm.llm_engine.reset_encoder_cache()
            self._synced = step
        if self.generation.enable_sleep_mode:
            self.generation.llm.wake_up(tags=["kv_cache"])

    def _sleep(self) -> None:
        self.thread.drop_requests("the rollouts are over")  # of trajectories that were cancelled; else there are none
        if self.generation.enable_sleep_mode:
            self.generation.llm.sleep(level=2)
            self.generation._llm_weights_sleeping = True

    def close(self) -> None:
        self.generator.attach(None)
        self.thread.close()

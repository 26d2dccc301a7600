"""vLLM in the trainer's process. TRL owns the engine and the weights' way into it (`use_vllm`); its `generate` is
bypassed: the rollouts' requests go to the thread that owns the engine.

Order of a step, collectives outside the turns: weights, wake, all trajectories, sleep.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from thinkimg.errors import UserError
from thinkimg.models.vllm.cpu import prepare_cpu
from thinkimg.models.vllm.engine import EngineThread
from thinkimg.models.vllm.generator import VLLMGenerator


def check_vllm(args: Any, vllm: VLLMGenerator | None) -> None:
    """Raises `UserError` for a configuration that this engine cannot serve."""
    if args.use_vllm != (vllm is not None):
        raise UserError("use_vllm and a VLLMGenerator as the agent's generator go together", "trl.use_vllm")
    if vllm is None:
        return
    if args.vllm_mode != "colocate":
        raise UserError(
            f"vllm_mode {args.vllm_mode!r} is TRL's own way to a server; here the engine is in the process (colocate)",
            "trl.vllm_mode",
        )
    if args.vllm_tensor_parallel_size != 1:
        raise UserError(
            "ranks that share an engine would have to take their turns together; each rank has its own (1)",
            "trl.vllm_tensor_parallel_size",
        )
    for name, neutral in (("top_p", 1.0), ("top_k", 0), ("min_p", None), ("repetition_penalty", 1.0)):
        if getattr(args, name) not in (neutral, 0, 0.0):
            raise UserError("the loss computes the unfiltered distribution; sampling must not filter", f"trl.{name}")


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
            raise UserError("say how long a trajectory may be, in tokens", "trl.vllm_max_model_length")
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
        if self.generation.enable_sleep_mode:
            self.generation.llm.sleep(level=2)
            self.generation._llm_weights_sleeping = True

    def close(self) -> None:
        self.generator.attach(None)
        self.thread.close()

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
from peft import PeftModel

from thinkimg.errors import UserError
from thinkimg.models.vllm.cpu import prepare_cpu
from thinkimg.models.vllm.engine import EngineThread
from thinkimg.models.vllm.generator import VLLMGenerator
from thinkimg.training.adapters import adapted_layers, change_of, weight_of

LONGEST = 32_768
"""Tokens of a trajectory, unless `vllm_max_model_length` says otherwise: the default limit of the agent."""


def wants_vllm() -> bool:
    """Whether models are sampled on vLLM: where it is installed and there is a GPU, or where the environment variable
    `THINKIMG_ENGINE` says `vllm`. Otherwise, and where it says `transformers`, on transformers.

    Raises:
        UserError: the variable says something else, or vLLM is not installed.
    """
    wish = os.environ.get("THINKIMG_ENGINE", "")
    if wish not in ("", "vllm", "transformers"):
        raise UserError(f"{wish!r} is no engine; there are vllm and transformers", "THINKIMG_ENGINE")
    installed = importlib.util.find_spec("vllm") is not None
    if wish == "vllm" and not installed:
        raise UserError("vLLM is not installed: pip install 'thinkimg[vllm]'", "THINKIMG_ENGINE")
    return wish != "transformers" and installed and (torch.cuda.is_available() or bool(wish))


def chosen_engine(model: Any) -> dict[str, Any]:
    """TRL's options for rollouts on vLLM, where `wants_vllm` says so; otherwise none: rollouts on transformers.

    Raises:
        UserError: see `wants_vllm`.
    """
    if not wants_vllm():
        return {}
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", LONGEST)
    asleep = torch.cuda.is_available()
    options: dict[str, Any] = {"use_vllm": True, "vllm_mode": "colocate", "vllm_enable_sleep_mode": asleep}
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


@contextmanager
def engine_options(dtype: torch.dtype, **options: Any) -> Iterator[None]:
    """While TRL makes its `vllm.LLM`: options that TRL does not pass on. The engine computes in `dtype`, as the trainer
    does (vLLM would take bfloat16 for float32), and long contexts with many pictures fit its batches."""
    prepare_cpu()
    from trl.generation import vllm_generation

    plain = vllm_generation.LLM
    chosen: dict[str, Any] = {"dtype": str(dtype).removeprefix("torch."), "enable_prefix_caching": True}
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
        if isinstance(generation.model, PeftModel):
            generation._iter_named_params = partial(merged_parameters, generation)
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


def merged_parameters(generation: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters with their adapters merged, one at a time, by the names that the engine knows: in place of TRL's
    own. TRL adds the adapters to the base's weights and takes them off again, which in bfloat16 leaves other weights
    than before, a little further away at each step.

    Args:
        generation: TRL's, of a model with adapters.
    """
    layers = {id(weight_of(layer)): layer for layer in adapted_layers(generation.model)}
    for name, parameter in generation.model.named_parameters():
        if generation.model.prefix in name:
            continue
        layer = layers.get(id(parameter))
        shown = generation._fix_param_name_to_vllm(name.removeprefix("base_model.model.").replace(".base_layer", ""))
        with generation._dist.gather_params([parameter] if layer is None else list(layer.parameters())):
            whole = parameter.data
            yield shown, whole if layer is None else (whole + change_of(layer)).to(whole.dtype)

"""`Generator` on a vLLM engine in this process: token ids and images in, token ids and log-probabilities out.

The engine expands placeholders itself, so each image's run of them is collapsed to one before; what it then reports as
its prompt must equal our expanded tokens, or the request fails. Images are named by their SHA-256, so that the engine
preprocesses and encodes each once however many turns show it.
"""

from typing import Any, Literal

from thinkimg.errors import InfrastructureError
from thinkimg.models.chat import ContextFull, Family
from thinkimg.models.generator import Generation, GenerationRequest
from thinkimg.models.vllm.engine import EngineThread
from thinkimg.trajectory import InvariantError

SUPPRESSED_BIAS = -1e4
"""As in the trainer's LM head (`thinkimg.training.grpo.SUPPRESSED_LOGIT`): probability exactly 0 on both sides."""


class VLLMGenerator:
    """Args:
    family: the model family's adapter.
    thread: of the engine; may be given later by `attach`, as the trainer makes its engine late.
    max_model_len: the engine's context length.
    """

    def __init__(self, family: Family, thread: EngineThread | None = None, max_model_len: int | None = None) -> None:
        self.family = family
        self._thread = thread
        self._max_model_len = max_model_len

    def attach(self, thread: EngineThread | None, max_model_len: int | None = None) -> None:
        """Generate with `thread` from now on; with None, refuse to."""
        self._thread = thread
        self._max_model_len = max_model_len

    def close(self) -> None:
        """End the engine's thread, and the engine with it."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()
            thread.engine.engine_core.shutdown()

    async def generate(self, request: GenerationRequest) -> Generation:
        """See `Generator.generate`.

        Raises:
            InfrastructureError: the engine failed.
            ContextFull: the prompt leaves no room in the engine's context.
            InvariantError: placeholders and images do not agree, here or in the engine.
        """
        if self._thread is None:
            raise InfrastructureError("no engine is attached")
        longest = request.max_tokens
        if self._max_model_len is not None:
            longest = min(longest, self._max_model_len - len(request.tokens))
        if longest < 1:
            raise ContextFull(f"{len(request.tokens)} tokens of the engine's {self._max_model_len} are used")
        prompt = engine_prompt(self.family, request)
        output = await self._thread.generate(prompt, sampling_parameters(self.family, request, longest))
        check_prompt(output.prompt_token_ids, request)
        return read_output(output.outputs[0])


def engine_prompt(family: Family, request: GenerationRequest) -> dict[str, Any]:
    """vLLM's `TokensPrompt`.

    Raises:
        InvariantError: an image has no run of placeholders, or not one of its length.
    """
    prompt: dict[str, Any] = {"prompt_token_ids": family.collapse(request.tokens, request.images)}
    if request.images:
        prompt["multi_modal_data"] = {"image": [image.pixels() for image in request.images]}
        prompt["multi_modal_uuids"] = {"image": [image.sha256 for image in request.images]}
    return prompt


def sampling_options(family: Family, request: GenerationRequest, max_tokens: int) -> dict[str, Any]:
    """Arguments of vLLM's `SamplingParams`, in process and over HTTP alike.

    The recorded log-probability is that of the distribution drawn from (engines are made with `processed_logprobs`):
    suppressed ids masked, temperature and filters applied. Without filters it is the one that the loss computes.
    """
    filters = request.filters
    return {
        "temperature": request.temperature,
        "top_p": filters.top_p,
        "top_k": filters.top_k,
        "min_p": filters.min_p,
        "repetition_penalty": filters.repetition_penalty,
        "frequency_penalty": filters.frequency_penalty,
        "presence_penalty": filters.presence_penalty,
        "seed": request.seed % 2**63,
        "max_tokens": max_tokens,
        "stop_token_ids": list(family.stop_ids),
        "ignore_eos": True,  # the family's stop ids and no others, as in the other generators
        "stop": list(request.stop) or None,
        "detokenize": bool(request.stop),
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
        "logit_bias": dict.fromkeys(family.suppressed_ids, SUPPRESSED_BIAS),
        "logprobs": 0,  # of the sampled token only
    }


def sampling_parameters(family: Family, request: GenerationRequest, max_tokens: int) -> Any:
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        **sampling_options(family, request, max_tokens), output_kind=RequestOutputKind.FINAL_ONLY, skip_clone=True
    )


def check_prompt(used: list[int] | None, request: GenerationRequest) -> None:
    """Raises `InvariantError` if the engine saw other tokens than we recorded."""
    if used is not None and list(used) == request.tokens:
        return
    used = list(used or [])
    first = next((n for n, pair in enumerate(zip(used, request.tokens, strict=False)) if pair[0] != pair[1]), None)
    where = f"they differ at {first}" if first is not None else "one goes on where the other ends"
    raise InvariantError(
        f"the engine saw {len(used)} prompt tokens, we recorded {len(request.tokens)}; {where}. "
        "Has it the same processor (pixels, patches) as the trainer?"
    )


def read_output(output: Any) -> Generation:
    """Of a finished vLLM `CompletionOutput`.

    Raises:
        InfrastructureError: the engine gave up on it.
    """
    tokens = [int(token) for token in output.token_ids]
    finish = finish_of(output.finish_reason)
    if output.logprobs is None or not tokens:
        raise InfrastructureError("the engine returned no tokens or no log-probabilities")
    logprobs = [float(known[token].logprob) for token, known in zip(tokens, output.logprobs, strict=True)]
    return Generation(tokens, logprobs, finish)


def finish_of(reason: str | None) -> Literal["stop", "length"]:
    if reason == "stop":
        return "stop"
    if reason == "length":
        return "length"
    raise InfrastructureError(f"the engine ended a request with {reason!r}")

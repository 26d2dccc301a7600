"""The body of a request for a completion: every field is honoured, or refused by its name. None is ignored."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from thinkimg.gateway.openai.functions import FunctionTool, ToolChoice
from thinkimg.gateway.refusals import refuse

FORWARDED = (
    *("logit_bias", "reasoning_effort", "verbosity", "user", "safety_identifier", "prompt_cache_key"),
    *("prompt_cache_retention", "metadata", "store", "service_tier"),
)
"""Sent on to an endpoint, with each turn; a model that runs in the gateway cannot have them."""

_NOTHING: Mapping[str, tuple[Any, ...]] = {
    "store": (False,),
    "service_tier": ("auto", "default"),
    "metadata": ({},),
    "logit_bias": ({},),
}
"""Values that ask for what is so anyway."""


class Extension(BaseModel):
    """The request's field `thinkimg`.

    Attributes:
        trace: tell what the model said, the tools it called and what came back.
        images: with the trace, the pictures that tools made, as data URLs.
        overlays: with the trace, the boxes, points and masks of each result, to be drawn over the picture that the tool
            looked at.
        tools: offer only these; an empty list makes the model answer without tools.
    """

    model_config = ConfigDict(extra="forbid")

    trace: bool = False
    images: bool = False
    overlays: bool = False
    tools: list[str] | None = None


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Stop = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_as_list), Field(max_length=16)]


class ChatRequest(BaseModel):
    """OpenAI's fields and three of vLLM's (`top_k`, `min_p`, `repetition_penalty`). A null is a field left out.

    Attributes:
        max_tokens, max_completion_tokens: of all that the model writes, in all turns.
        seed: None: another one for each request.
        stop: texts before which the answer ends. A turn with calls may hold them.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Stop | None = None
    tools: list[FunctionTool] | None = Field(default=None, max_length=128)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool = True
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    n: int | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    thinkimg: Extension = Field(default_factory=Extension)

    @property
    def tokens(self) -> int | None:
        """The smaller of the two names of one limit."""
        return min((limit for limit in (self.max_tokens, self.max_completion_tokens) if limit), default=None)

    @property
    def forwarded(self) -> dict[str, Any]:
        """What only the model's own endpoint can honour."""
        return {name: value for name in FORWARDED if (value := getattr(self, name)) is not None}

    def refuse_for_local_models(self) -> None:
        """Raises `Refusal` 400 for a field that a model in this process cannot honour."""
        for name, value in self.forwarded.items():
            if value not in _NOTHING.get(name, ()):
                detail = f"{name}: this model runs in the gateway, where there is no such thing; leave it out"
                raise refuse(400, "unsupported", detail, param=name)

    def refuse_fixed(self, fixed: Mapping[str, Any]) -> None:
        """Raises `Refusal` 400 for a field that the model's configuration holds to another value.

        Args:
            fixed: the configuration's `extra`.
        """
        for name in fixed.keys() & self.model_fields_set:
            if name not in ("max_tokens", "max_completion_tokens") and getattr(self, name) != fixed[name]:
                said = "takes none" if fixed[name] is None else f"is always asked with {fixed[name]!r}"
                raise refuse(400, "unsupported", f"{name}: this model {said}; leave it out", param=name)


def read_request(body: bytes) -> ChatRequest:
    """Raises `Refusal` 400 that names the field."""
    try:
        request = _Body.model_validate_json(body).read()
    except ValidationError as error:
        raise _refused(error) from error
    for name, (asked, remedy) in _unsupported(request).items():
        if asked:
            raise refuse(400, "unsupported", f"{name} is not supported here; {remedy}", param=name)
    return request


class _Body(BaseModel):
    """The body before its nulls are left out."""

    model_config = ConfigDict(extra="allow")

    def read(self) -> ChatRequest:
        given = self.model_extra or {}
        return ChatRequest.model_validate({name: value for name, value in given.items() if value is not None})


def _refused(error: ValidationError) -> Exception:
    first = error.errors(include_url=False)[0]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    message = first["msg"]
    if first["loc"][:1] == ("tool_choice",):  # pydantic names each kind that it might have been
        field, message = "tool_choice", "must be none, auto, required, one function, or allowed_tools"
    if first["type"] == "extra_forbidden":
        message = "there is no such field here; nothing is ignored, so leave it out"
    return refuse(400, "invalid_request", f"{field or 'the body'}: {message}", param=field or None)


def _unsupported(request: ChatRequest) -> dict[str, tuple[bool, str]]:
    """Fields of OpenAI's that a loop of model and tools cannot honour: whether they are asked for, and the remedy."""
    syntax = "the model writes its calls in a syntax of its own, of which you see the answer"
    options = request.stream_options
    return {
        "n": (request.n not in (None, 1), "send several requests: without `seed` each is drawn anew"),
        "functions": (bool(request.functions), "write `tools`"),
        "function_call": (request.function_call not in (None, "none", "auto"), "write `tool_choice`"),
        "response_format": ((request.response_format or {"type": "text"}) != {"type": "text"}, syntax),
        "logprobs": (bool(request.logprobs), syntax),
        "top_logprobs": (bool(request.top_logprobs), syntax),
        "modalities": (request.modalities not in (None, ["text"]), "answers are text"),
        "audio": (request.audio is not None, "answers are text"),
        "prediction": (request.prediction is not None, syntax),
        "web_search_options": (request.web_search_options is not None, "offer a tool that searches"),
        "stream_options": (options is not None and not request.stream, "it is for `stream: true`; leave it out"),
        "stream_options.include_obfuscation": (
            bool(options and options.include_obfuscation),
            "answers come in one piece",
        ),
    }

"""The body of a request for a completion: what is read of it, and what is refused."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from thinkimg.gateway.refusals import refuse


class Extension(BaseModel):
    """The request's field `thinkimg`.

    Attributes:
        trace: tell what the model said, the tools it called and what came back.
        images: with the trace, the pictures that tools made, as data URLs.
        tools: offer only these; an empty list makes the model answer without tools.
    """

    model_config = ConfigDict(extra="forbid")

    trace: bool = False
    images: bool = False
    tools: list[str] | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """What is read of a request; what OpenAI's API has besides (`top_p`, `user`, ...) has no effect here."""

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = None
    n: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    thinkimg: Extension = Field(default_factory=Extension)


def read_request(body: bytes) -> ChatRequest:
    """Raises `Refusal` 400 that names the field."""
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise refuse(400, "invalid_request", f"{field or 'the body'}: {first['msg']}", param=field or None) from error
    unsupported = {
        "n": request.n not in (None, 1),
        "tools": bool(request.tools),
        "functions": bool(request.functions),
        "response_format": (request.response_format or {"type": "text"}).get("type") != "text",
        "logprobs": bool(request.logprobs),
    }
    for name, asked in unsupported.items():
        if asked:
            hint = (
                "; the tools run inside, `thinkimg.tools` chooses among them" if name in ("tools", "functions") else ""
            )
            raise refuse(400, "unsupported", f"{name} is not supported here{hint}", param=name)
    return request

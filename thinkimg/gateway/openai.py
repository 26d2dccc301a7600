"""`POST /v1/chat/completions`: model and tools together, as one model that any OpenAI client can use.

The tool loop runs here (`thinkimg.agent`); the caller sees the answer. With `"thinkimg": {"trace": true}` in the
request it also sees what the model said, which tools it called and what came back.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from thinkimg import wire
from thinkimg.agent.agent import LONGEST_STRIP, Agent, Limits, Outcome
from thinkimg.agent.formats import Format, Parsed, get_format
from thinkimg.agent.prompts import Style
from thinkimg.errors import InfrastructureError
from thinkimg.gateway.config import Upstream
from thinkimg.gateway.core import CallerGone, Core, secret, spend, while_connected
from thinkimg.gateway.keys import Caller
from thinkimg.gateway.refusals import log_cause, openai_error, problem_of, refuse
from thinkimg.image import Image, ImageDecodeError
from thinkimg.message import ImageBlock, TextBlock, ToolResultBlock
from thinkimg.models.api import data_uri
from thinkimg.models.backends import OPENAI, endpoint_model, find_model, make_model
from thinkimg.models.chat import ChatModel, Reply, SamplingParameters
from thinkimg.models.reference import Endpoint
from thinkimg.models.trained import asking
from thinkimg.tools.tool import ToolSchema, normalise_name
from thinkimg.trajectory import Trajectory, Turn

log = logging.getLogger(__name__)
_POLL_SECONDS = 0.1
_KEEP_ALIVE_SECONDS = 15.0


@dataclass(frozen=True)
class ServedModel:
    """A model that callers may name.

    Attributes:
        tools: names of those that it is offered; None: all.
        rounds, tokens_per_turn: as it was trained; the gateway's limits hold as well.
    """

    name: str
    model: ChatModel
    format: Format
    prompt: Style = "full"
    tools: tuple[str, ...] | None = None
    rounds: int | None = None
    tokens_per_turn: int | None = None


def upstream_model(upstream: Upstream, seconds: float) -> ServedModel:
    """Raises `UserError` for a model that is not there, a wrong address, a key's variable that is not set."""
    field = f"models.{upstream.name}"
    options = dict(upstream.model_args)
    if upstream.base_url is not None:
        options["base_url"] = upstream.base_url
    written = upstream.model or upstream.name
    found = find_model(written, OPENAI if upstream.is_endpoint else upstream.backend, options, field)
    log.info("%s: %s", upstream.name, found)
    if isinstance(found.source, Endpoint):
        options = {
            "timeout_seconds": seconds,
            "max_concurrency": 1024,
            **options,
        }  # the gateway bounds what is under way
        options["extra"] = {**options.get("extra", {}), **upstream.extra}
        model: ChatModel = endpoint_model(found.source, secret(upstream.api_key_variable), options)
    else:
        if upstream.api_key_variable is not None:
            options["api_key_variable"] = upstream.api_key_variable
        model = make_model(found, upstream.backend, options, field)
    asked = asking(found.trained, format=upstream.format, prompt=upstream.prompt)
    trained = found.trained
    return ServedModel(
        upstream.name,
        model,
        get_format(asked.format),
        asked.prompt,
        upstream.tools if upstream.tools is not None or trained is None else trained.tool_names,
        trained.max_rounds if trained else None,
        trained.max_tokens if trained else None,
    )


# ---- requests -------------------------------------------------------------------------------------------------------


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


def _read(body: bytes) -> ChatRequest:
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


# ---- the face -------------------------------------------------------------------------------------------------------


class ChatFace:
    """`POST /v1/chat/completions`, `GET /v1/models`."""

    def __init__(self, core: Core, models: Sequence[ServedModel]) -> None:
        self._core = core
        self._models = {model.name: model for model in models}
        self._started = int(time.time())
        self.routes = [
            Route("/v1/chat/completions", self.complete, methods=["POST"]),
            Route("/v1/models", self.list_models, methods=["GET"]),
            Route("/v1/models/{name:path}", self.show_model, methods=["GET"]),
        ]

    async def list_models(self, request: Request) -> Response:
        return _json({"object": "list", "data": [self._described(name) for name in self._models]})

    async def show_model(self, request: Request) -> Response:
        return _json(self._described(self._find(request.path_params["name"]).name))

    def _described(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._started, "owned_by": "thinkimg"}

    def _find(self, name: str) -> ServedModel:
        if name not in self._models:
            known = ", ".join(self._models) or "none"
            raise refuse(404, "model_not_found", f"there is no model {name[:100]!r}; models: {known}", param="model")
        return self._models[name]

    async def complete(self, request: Request) -> Response:
        asked = _read(await request.body())
        served = self._find(asked.model)
        caller: Caller = request.state.caller
        tools = _CallerTools(self._core, caller, self._offered(served, asked.thinkimg.tools))
        completion = _Completion(asked, served, self._agent(asked, served, tools))
        await completion.read(self._core, caller)
        spend(caller)
        if asked.stream:
            return StreamingResponse(self._stream(completion), media_type="text/event-stream", headers=_UNBUFFERED)
        try:
            await while_connected(request, completion.run())
            return _json(completion.document())
        except CallerGone:
            return Response(status_code=499)
        except Exception as error:
            problem = _problem(error, completion)
            return _json({"error": openai_error(problem)}, problem.status)
        finally:
            self._count(completion)

    def _offered(self, served: ServedModel, chosen: list[str] | None) -> dict[str, ToolSchema]:
        """Raises `Refusal` 400 for a tool that the model is not offered."""
        schemas = self._core.schemas
        allowed = served.tools if served.tools is not None else tuple(schemas)
        names = {normalise_name(name) for name in allowed}
        offered = {name: schema for name, schema in schemas.items() if normalise_name(name) in names}
        if chosen is None:
            return offered
        wanted = {normalise_name(name): name for name in chosen}
        if unknown := sorted(wanted.keys() - {normalise_name(name) for name in offered}):
            detail = f"there is no tool {wanted[unknown[0]][:80]!r}; tools: {', '.join(offered) or 'none'}"
            raise refuse(400, "unknown_tool", detail, param="thinkimg.tools")
        return {name: schema for name, schema in offered.items() if normalise_name(name) in wanted}

    def _agent(self, asked: ChatRequest, served: ServedModel, tools: "_CallerTools") -> Agent:
        most = self._core.config.limits
        wanted = asked.max_completion_tokens or asked.max_tokens or served.tokens_per_turn or most.tokens_per_turn
        rounds = min(most.rounds, served.rounds or most.rounds)
        tokens = min(most.tokens_per_turn, wanted)
        limits = Limits(rounds=rounds, tokens_per_turn=tokens, seconds=most.chat_seconds)
        return Agent(_Metered(served.model), tools, limits, served.format, served.prompt)

    async def _stream(self, completion: "_Completion") -> AsyncIterator[str]:
        """Server-sent events: the trace as it grows, if asked for, then the answer. A comment now and then keeps
        proxies from closing a connection on which a model thinks."""
        yield _event(completion.chunk({"role": "assistant", "content": ""}))
        work = asyncio.ensure_future(completion.run())
        quiet = time.monotonic()
        try:
            while not work.done():
                await asyncio.wait((work,), timeout=_POLL_SECONDS)
                for entry in completion.new_trace():
                    quiet = time.monotonic()
                    yield _event(completion.chunk({}, thinkimg={"trace": [entry]}))
                if time.monotonic() - quiet > _KEEP_ALIVE_SECONDS:
                    quiet = time.monotonic()
                    yield ": still working\n\n"
            for event in _last_events(completion, work):
                yield event
        finally:
            work.cancel()
            self._count(completion)

    def _count(self, completion: "_Completion") -> None:
        prompt, generated = completion.meter.prompt_tokens, completion.meter.completion_tokens
        self._core.metrics.tokens.labels(completion.served.name, "prompt").inc(prompt)
        self._core.metrics.tokens.labels(completion.served.name, "completion").inc(generated)


_UNBUFFERED = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def _last_events(completion: "_Completion", work: "asyncio.Future[None]") -> list[str]:
    """The answer, or what went wrong: by then the status has been sent."""
    error = work.exception()
    if error is not None:
        if not isinstance(error, Exception):
            raise error
        return [_event({"error": openai_error(_problem(error, completion))})]
    last = completion.chunk({}, finish=completion.finish)
    if completion.asked.thinkimg.trace:
        last["thinkimg"] = completion.extension(trace=False)
    events = [_event(completion.chunk({"content": completion.answer})), _event(last)]
    if completion.asked.stream_options and completion.asked.stream_options.include_usage:
        events.append(_event({**completion.chunk({}), "choices": [], "usage": completion.usage}))
    return [*events, "data: [DONE]\n\n"]


def _problem(error: Exception, completion: "_Completion") -> wire.Problem:
    log_cause(f"model {completion.served.name!r}", error)
    return problem_of(error)


def _json(document: Mapping[str, Any], status: int = 200) -> Response:
    """Starlette's own fails at half a character, and a model may have written one."""
    return Response(json.dumps(document), status, media_type=wire.JSON)


def _event(document: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(document)}\n\n"


# ---- one completion -------------------------------------------------------------------------------------------------


class _Metered:
    """A model whose tokens are counted for one completion."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model
        self.prompt_tokens = 0
        self.completion_tokens = 0

    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        reply = await self._model.reply(trajectory, sampling, seed)
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        return reply


class _CallerTools:
    """The tools as the agent loop wants them, paid for by a caller."""

    def __init__(self, core: Core, caller: Caller, schemas: dict[str, ToolSchema]) -> None:
        self.schemas: Mapping[str, ToolSchema] = schemas
        self._core = core
        self._caller = caller
        self._spellings = {normalise_name(name) for s in schemas.values() for name in (s.name, *s.aliases)}

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Outcome:
        if normalise_name(name) not in self._spellings:  # one that exists, but is not offered, does not exist
            name = f"{name}?" if self._core.find(name) else name
        return await self._core.call("chat", self._caller, name, arguments, images)


class _Completion:
    """A request being answered."""

    def __init__(self, asked: ChatRequest, served: ServedModel, agent: Agent) -> None:
        assert isinstance(agent.model, _Metered)
        self.asked = asked
        self.served = served
        self.meter = agent.model
        self.trajectory = Trajectory(question="")
        self._agent = agent
        self._created = int(time.time())
        self._told = 0

    async def read(self, core: Core, caller: Caller) -> None:
        """Make the conversation of the request's messages. Raises `Refusal` 400 naming the message."""
        reader = _Conversation(core, caller, self.served.format)
        self.trajectory = await reader.read(self.asked.messages, self._agent.system)
        self._told = len(self.trajectory.turns)

    async def run(self) -> None:
        """Raises `InfrastructureError`, `UserError`, `Refusal`."""
        temperature = 1.0 if self.asked.temperature is None else self.asked.temperature
        await self._agent.resume(self.trajectory, self.asked.seed or 0, temperature)
        if self.trajectory.status == "infrastructure":
            raise InfrastructureError(self.trajectory.meta["error"])

    @property
    def answer(self) -> str:
        return self.trajectory.answer or ""

    @property
    def finish(self) -> str:
        """`length` for every limit: of rounds, tokens or time."""
        return "stop" if self.trajectory.status == "answered" else "length"

    @property
    def usage(self) -> dict[str, int]:
        prompt, completion = self.meter.prompt_tokens, self.meter.completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def document(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.answer, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": self.finish, "logprobs": None}
        document = {**self._head("chat.completion"), "choices": [choice], "usage": self.usage}
        if self.asked.thinkimg.trace:
            document["thinkimg"] = self.extension()
        return document

    def chunk(self, delta: Mapping[str, Any], finish: str | None = None, **extra: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **extra}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.trajectory.id}",
            "object": kind,
            "created": self._created,
            "model": self.served.name,
        }

    def extension(self, trace: bool = True) -> dict[str, Any]:
        """The reply's field `thinkimg`."""
        document: dict[str, Any] = {"status": self.trajectory.status, "seconds": round(self.trajectory.seconds, 3)}
        if trace:
            document["trace"] = self.new_trace()
        if self.asked.thinkimg.images:
            document["images"] = {handle: data_uri(image) for handle, image in self.trajectory.images.items()}
        return document

    def new_trace(self) -> list[dict[str, Any]]:
        """What was added to the trajectory since this was last asked for; nothing if no trace is wanted."""
        if not self.asked.thinkimg.trace:
            return []
        new = self.trajectory.turns[self._told :]
        self._told += len(new)
        return [_traced(turn) for turn in new]


def _traced(turn: Turn) -> dict[str, Any]:
    """A turn of the model with its calls, or one of the tools with their results."""
    message = turn.message
    entry: dict[str, Any] = {"role": message.role, "text": message.text, "seconds": round(turn.seconds, 3)}
    if message.tool_calls:
        entry["calls"] = [call.model_dump(exclude={"type"}) for call in message.tool_calls]
    results: list[dict[str, Any]] = []
    for block in message.content:
        if isinstance(block, ToolResultBlock):
            results.append({**block.model_dump(exclude={"type"}), "images": []})
        elif isinstance(block, ImageBlock) and results:
            results[-1]["images"].append(block.handle)
    return {**entry, "results": results} if results else entry


# ---- messages -------------------------------------------------------------------------------------------------------


class _Conversation:
    """Reads OpenAI's messages into a trajectory."""

    def __init__(self, core: Core, caller: Caller, format: Format) -> None:
        self._core = core
        self._caller = caller
        self._format = format

    async def read(self, messages: list[dict[str, Any]], system: str) -> Trajectory:
        trajectory = Trajectory(question="")
        turn = trajectory.add("system", TextBlock(text=system))
        instructions = [system]
        for number, message in enumerate(messages):
            where, role = f"messages[{number}]", message.get("role")
            if role in ("system", "developer"):
                instructions.append(_text(message.get("content"), where))
            elif role == "assistant":  # as this model would have said it
                answer = _text(message.get("content") or "", where)
                trajectory.add("assistant", TextBlock(text=self._format.write(Parsed(answer=answer))))
            elif role == "user":
                trajectory.add("user", *await self._user(message.get("content"), where, trajectory))
            else:
                raise _wrong(f"{where}.role", f"must be system, user or assistant, not {str(role)[:50]!r}")
        if trajectory.turns[-1].role != "user":
            raise _wrong("messages", "the last one must be the user's")
        turn.message.content = [TextBlock(text="\n\n".join(instructions))]
        trajectory.question = trajectory.turns[-1].message.text
        return trajectory

    async def _user(self, content: Any, where: str, trajectory: Trajectory) -> list[TextBlock | ImageBlock]:
        if isinstance(content, str):
            return [TextBlock(text=content)]
        blocks: list[TextBlock | ImageBlock] = []
        for number, part in enumerate(_parts(content, where)):
            place = f"{where}.content[{number}]"
            if part.get("type") == "text" and isinstance(part.get("text"), str):
                blocks.append(TextBlock(text=part["text"]))
            elif part.get("type") == "image_url":
                image = await self._picture(part.get("image_url"), place, trajectory)
                blocks.append(ImageBlock(handle=trajectory.add_image(image)))
            else:
                raise _wrong(place, "must be a part of type text or image_url")
        return blocks

    async def _picture(self, given: Any, where: str, trajectory: Trajectory) -> Image:
        url = given.get("url") if isinstance(given, dict) else given
        most = self._core.config.limits.images
        if not isinstance(url, str):
            raise _wrong(f"{where}.image_url", "must be an object with a string `url`")
        if len(trajectory.images) >= most:
            raise _wrong(where, f"at most {most} pictures are taken")
        image = await self._core.pictures.read(self._caller.id, url)
        if max(image.width, image.height) > LONGEST_STRIP * min(image.width, image.height):
            raise _wrong(where, f"the picture is too thin to be shown to a model: {image.width}x{image.height} pixels")
        try:  # broken data behind a good header
            await asyncio.to_thread(image.pixels)
        except ImageDecodeError as error:
            raise _wrong(where, str(error)) from error
        return image


def _parts(content: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise _wrong(f"{where}.content", "must be a text or a list of parts")
    return content


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    parts = _parts(content, where)
    if not all(part.get("type") == "text" and isinstance(part.get("text"), str) for part in parts):
        raise _wrong(f"{where}.content", "may hold text only in this role")
    return "".join(part["text"] for part in parts)


def _wrong(field: str, problem: str) -> Exception:
    return refuse(400, "invalid_request", f"{field}: {problem}", param=field)

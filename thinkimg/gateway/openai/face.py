"""Chat completions over HTTP: who asks, what they are offered, and the answer, whole or as a stream."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from thinkimg import wire
from thinkimg.agent.agent import Agent, Limits
from thinkimg.agent.tools import OfferedTools, Outcome
from thinkimg.errors import UserError
from thinkimg.gateway.callers import Caller
from thinkimg.gateway.core import CallerGone, Core, check_tokens, json_body, spend, while_connected
from thinkimg.gateway.openai.completion import Completion
from thinkimg.gateway.openai.functions import Functions, WithFunctions
from thinkimg.gateway.openai.models import Asked, ServedModel
from thinkimg.gateway.openai.request import ChatRequest, read_request
from thinkimg.gateway.pictures import LARGE_BYTES
from thinkimg.gateway.refusals import log_cause, openai_error, problem_of, problem_response, refuse
from thinkimg.image import Image
from thinkimg.models.generator import Filters
from thinkimg.tools.tool import ToolSchema, normalise_name

_POLL_SECONDS = 0.1
_KEEP_ALIVE_SECONDS = 15.0


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
        body = await json_body(request)
        asked = await asyncio.to_thread(read_request, body) if len(body) > LARGE_BYTES else read_request(body)
        served = self._find(asked.model)
        caller: Caller = request.state.caller
        offered = self._offered(served, asked.thinkimg.tools)
        functions = Functions(asked.tools or [], asked.tool_choice, asked.parallel_tool_calls, offered)
        tools = WithFunctions(OfferedTools(_PaidCalls(self._core, caller), offered), functions)
        completion = Completion(asked, served, self._agent(asked, served, tools, functions), functions)
        await completion.read(self._core, caller)
        check_tokens(caller)
        spend(caller)
        if asked.stream:
            events = self._stream(completion, caller)
            return StreamingResponse(events, media_type="text/event-stream", headers=_UNBUFFERED)
        try:
            await while_connected(request, completion.run())
            return _json(await asyncio.to_thread(completion.document))  # it may have masks to draw
        except CallerGone:
            return Response(status_code=499)
        except Exception as error:
            return problem_response(_problem(error, completion), "chat")
        finally:
            self._count(completion, caller)

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

    def _agent(self, asked: ChatRequest, served: ServedModel, tools: WithFunctions, functions: Functions) -> Agent:
        most = self._core.config.limits
        rounds = min(most.rounds, served.rounds or most.rounds)
        tokens = min(most.tokens_per_turn, served.tokens_per_turn or most.tokens_per_turn)
        limits = Limits(rounds=rounds, tokens_per_turn=tokens, seconds=most.chat_seconds)
        filters = Filters.of(vars(asked), "request")
        model = Asked.of(asked, served)
        return Agent(model, tools, limits, served.format, served.prompt, served.words, filters, functions.check)

    async def _stream(self, completion: Completion, caller: Caller) -> AsyncIterator[str]:
        """Server-sent events: the trace as it grows, if asked for, then the answer. A comment now and then keeps
        proxies from closing a connection on which a model thinks."""
        yield _event(completion.chunk({"role": "assistant", "content": ""}))
        work = asyncio.ensure_future(completion.run())
        quiet = time.monotonic()
        try:
            while not work.done():
                await asyncio.wait((work,), timeout=_POLL_SECONDS)
                for entry in await asyncio.to_thread(completion.new_trace) if completion.has_news else ():
                    quiet = time.monotonic()
                    yield _event(completion.chunk({}, thinkimg={"trace": [entry]}))
                if time.monotonic() - quiet > _KEEP_ALIVE_SECONDS:
                    quiet = time.monotonic()
                    yield ": still working\n\n"
            for event in _last_events(completion, work):
                yield event
        finally:
            work.cancel()
            self._count(completion, caller)

    def _count(self, completion: Completion, caller: Caller) -> None:
        caller.spend_tokens(completion.spent_tokens)
        for kind in ("prompt", "completion"):
            self._core.metrics.tokens.labels(completion.served.name, kind).inc(completion.usage[f"{kind}_tokens"])


class _PaidCalls:
    """Calls of tools that a caller pays for."""

    def __init__(self, core: Core, caller: Caller) -> None:
        self._core = core
        self._caller = caller

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Outcome:
        return await self._core.call("chat", self._caller, name, arguments, images)


_UNBUFFERED = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def _last_events(completion: Completion, work: "asyncio.Future[None]") -> list[str]:
    """The answer, or what went wrong: by then the status has been sent."""
    error = work.exception()
    if error is not None:
        if not isinstance(error, Exception):
            raise error
        return [_event({"error": openai_error(_problem(error, completion))})]
    handed = [{"index": number, **call} for number, call in enumerate(completion.handed)]
    last = completion.chunk({}, finish=completion.finish)
    if completion.asked.thinkimg.trace:
        last["thinkimg"] = completion.extension(trace=False)
    said = {"tool_calls": handed} if handed else {"content": completion.answer}
    events = [_event(completion.chunk(said)), _event(last)]
    if completion.asked.stream_options and completion.asked.stream_options.include_usage:
        events.append(_event({**completion.chunk({}), "choices": [], "usage": completion.told_usage}))
    return [*events, "data: [DONE]\n\n"]


def _problem(error: Exception, completion: Completion) -> wire.Problem:
    log_cause(f"model {completion.served.name!r}", error)
    name = (getattr(error, "field", None) or "").removeprefix("extra.")
    if isinstance(error, UserError) and name in completion.asked.model_fields_set:  # the endpoint's refusal names it
        return refuse(400, "unsupported", f"{name}: the model's endpoint refuses it", param=name).problem
    return problem_of(error)


def _json(document: Mapping[str, Any], status: int = 200) -> Response:
    """Starlette's own fails at half a character, and a model may have written one."""
    return Response(json.dumps(document), status, media_type=wire.JSON)


def _event(document: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(document)}\n\n"

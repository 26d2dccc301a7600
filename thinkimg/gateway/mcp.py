"""MCP over streamable HTTP: the tools for any host that speaks the Model Context Protocol, through the official SDK.

A picture is an argument as a data URL, as base64, or as the handle that an earlier result said. What a tool makes comes
back as `thinkimg.gateway.mcp_results` has it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from thinkimg import __version__
from thinkimg.cache import BoundedCache
from thinkimg.gateway.callers import Caller
from thinkimg.gateway.core import CallerGone, Core, json_body, while_connected
from thinkimg.gateway.mcp_results import JSON, NUMBERS, PICTURES, content_of, picture_contents
from thinkimg.gateway.refusals import Refusal, problem_of
from thinkimg.image import Image
from thinkimg.tools.tool import ToolSchema

_IDLE_SECONDS = 1800.0
_INSTRUCTIONS = (
    "Tools that look at pictures. An argument that is a picture takes a data URL, base64, or the handle (img_...) of a "
    "picture that an earlier result gave. Coordinates are percent of width and height, from the top left corner."
)
_RUN_LENGTHS = "run_lengths"
"""An argument of every tool that reads a picture, unless it has one of that name itself: it is ours, not the tool's."""
_RUN_LENGTHS_SCHEMA = {"type": "boolean", "default": False, "description": "give the run lengths of masks, too: long"}
_HELD_NUMBERS = 32 * 1024 * 1024
_PICTURE = "a picture: its handle from an earlier result (img_...), or a data URL (data:image/png;base64,...)"
log = logging.getLogger(__name__)


class McpFace:
    """`POST` and `DELETE /mcp`. There is no stream from the server (`GET`): it has nothing to say unasked."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._server: Server[Any] = Server(
            "thinkimg",
            version=__version__,
            instructions=_INSTRUCTIONS,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
        )
        self._numbers: BoundedCache[tuple[str, str], str] = BoundedCache(_HELD_NUMBERS, fair=True)
        self._sessions = _Sessions(self._manager)
        self.routes = [Route("/mcp", _Endpoint(self), methods=["POST", "DELETE"])]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While sessions may be had. Answers are JSON, not event streams: clients bound the size of an event, and a
        picture may be larger."""
        try:
            yield
        finally:
            await self._sessions.close()

    def _manager(self) -> StreamableHTTPSessionManager:
        return StreamableHTTPSessionManager(
            self._server,
            json_response=True,
            session_idle_timeout=_IDLE_SECONDS,
            max_sessions=self._core.config.limits.sessions,
            max_request_body_size=self._core.config.limits.body_bytes,
        )

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. The protocol's newer revision cancels a call by closing its connection."""
        request = Request(scope, receive)
        scope["user"] = _user(request.state.caller)  # a session belongs to the key that opened it
        body = await json_body(request)
        try:
            sessions = await self._sessions.of(request.state.caller)
            await while_connected(request, sessions.handle_request(scope, _again(body), send))
        except CallerGone:
            await Response(status_code=499)(scope, receive, send)

    async def _list_tools(
        self, context: ServerRequestContext[Any, Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_tool(schema) for schema in self._schemas().values()])

    def _schemas(self) -> Mapping[str, ToolSchema]:
        try:
            return self._core.schemas
        except Refusal as refusal:
            raise MCPError(types.INTERNAL_ERROR, str(refusal)) from refusal

    async def _call_tool(
        self, context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        schema = self._schemas() and self._core.find(params.name)
        if not schema:
            raise MCPError(types.INVALID_PARAMS, f"There is no tool {params.name[:80]!r}.")
        assert context.request is not None  # there is no transport here but HTTP
        caller: Caller = context.request.state.caller
        given = dict(params.arguments or {})
        run_lengths = given.pop(_RUN_LENGTHS, None) is True if _takes_run_lengths(schema) else False
        try:
            arguments, images = await self._with_pictures(caller, schema, given)
            result = (await self._core.call("mcp", caller, schema.name, arguments, images)).result
        except Exception as error:
            problem = problem_of(error)
            return types.CallToolResult(content=[types.TextContent(text=problem.detail)], is_error=True)
        content, numbers = await asyncio.to_thread(content_of, result, run_lengths)
        if numbers is not None:
            self._numbers.put((caller.id, numbers.uri), numbers.text, len(numbers.text), caller.id)
        return types.CallToolResult(content=content)

    async def _list_resources(
        self, context: ServerRequestContext[Any, Any], params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        """None: what there is to read, results link to."""
        return types.ListResourcesResult(resources=[])

    async def _list_templates(
        self, context: ServerRequestContext[Any, Any], params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        templates = [
            types.ResourceTemplate(uri_template=PICTURES + "{handle}", name="picture", description="a picture, whole"),
            types.ResourceTemplate(uri_template=NUMBERS + "{name}", name="numbers", mime_type=JSON),
        ]
        return types.ListResourceTemplatesResult(resource_templates=templates)

    async def _read_resource(
        self, context: ServerRequestContext[Any, Any], params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        assert context.request is not None  # there is no transport here but HTTP
        owner, uri = context.request.state.caller.id, str(params.uri)
        if (text := self._numbers.get((owner, uri))) is not None:
            contents: Any = types.TextResourceContents(uri=uri, mime_type=JSON, text=text)
        elif uri.startswith(PICTURES) and (image := self._core.pictures.by_handle(owner, uri.removeprefix(PICTURES))):
            contents = await asyncio.to_thread(picture_contents, image, uri)
        else:
            said = f"There is no {uri[:120]}; it never was, or was dropped since."
            raise MCPError(types.INVALID_PARAMS, said)
        return types.ReadResourceResult(contents=[contents])

    async def _with_pictures(
        self, caller: Caller, schema: ToolSchema, arguments: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Image]]:
        """The arguments with pictures by handle, and the pictures."""
        images: dict[str, Image] = {}
        for name in schema.image_parameters:
            if isinstance(given := arguments.get(name), str):
                image = await self._core.pictures.read(caller.id, given)
                arguments[name] = self._core.pictures.hold(caller.id, image)
                images[arguments[name]] = image
        return arguments, images


class _Sessions:
    """A manager of sessions for each caller: nobody's sessions take another's places, or are known to another."""

    def __init__(self, make: Callable[[], StreamableHTTPSessionManager]) -> None:
        self._make = make
        self._started: dict[str, asyncio.Future[StreamableHTTPSessionManager]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def of(self, caller: Caller) -> StreamableHTTPSessionManager:
        """The caller's, which runs from its first request on."""
        started = self._started.get(caller.id)
        if started is None:
            started = self._started[caller.id] = asyncio.get_running_loop().create_future()
            self._tasks.add(asyncio.create_task(self._run(started)))
        return await asyncio.shield(started)

    async def _run(self, started: "asyncio.Future[StreamableHTTPSessionManager]") -> None:
        manager = self._make()
        async with manager.run():  # entered and left in one task, as its cancel scopes want it
            started.set_result(manager)
            await asyncio.Event().wait()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks, self._started = set(), {}


class _Endpoint:
    """An ASGI app, as Starlette recognises one: it answers through `send` itself."""

    def __init__(self, face: McpFace) -> None:
        self._face = face

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._face.handle(scope, receive, send)


def _user(caller: Caller) -> AuthenticatedUser:
    return AuthenticatedUser(AccessToken(token="", client_id=caller.id, scopes=[]))


def _again(body: bytes) -> Receive:
    """The body once more; after it, nothing ever comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError("an event that nobody sets")

    return receive


def _tool(schema: ToolSchema) -> types.Tool:
    properties = dict(schema.parameters.get("properties", {}))
    for name in schema.image_parameters:
        properties[name] = {"type": "string", "description": _PICTURE}
    if _takes_run_lengths(schema):
        properties[_RUN_LENGTHS] = _RUN_LENGTHS_SCHEMA
    return types.Tool(
        name=schema.name,
        description=schema.description,
        input_schema={**schema.parameters, "properties": properties},
        annotations=types.ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )


def _takes_run_lengths(schema: ToolSchema) -> bool:
    return bool(schema.image_parameters) and _RUN_LENGTHS not in schema.parameters.get("properties", {})

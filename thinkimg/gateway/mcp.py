"""MCP over streamable HTTP: the tools for any host that speaks the Model Context Protocol, through the official SDK.

A picture is an argument as a data URL, as base64, or as the handle that an earlier result said. What a tool makes comes
back as image content, with its handle in the text.
"""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Mapping
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
from thinkimg.gateway.core import CallerGone, Core, while_connected
from thinkimg.gateway.keys import Caller
from thinkimg.gateway.pictures import handle_of
from thinkimg.gateway.refusals import Refusal, problem_of
from thinkimg.image import Image
from thinkimg.tools.tool import ToolResult, ToolSchema

_SESSIONS = 1000
_IDLE_SECONDS = 1800.0
_INSTRUCTIONS = (
    "Tools that look at pictures. An argument that is a picture takes a data URL, base64, or the handle (img_...) of a "
    "picture that an earlier result gave. Coordinates are percent of width and height, from the top left corner."
)
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
        )
        self._sessions: StreamableHTTPSessionManager | None = None
        self.routes = [Route("/mcp", _Endpoint(self), methods=["POST", "DELETE"])]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While sessions may be had. Answers are JSON, not event streams: clients bound the size of an event, and a
        picture may be larger."""
        self._sessions = StreamableHTTPSessionManager(
            self._server,
            json_response=True,
            session_idle_timeout=_IDLE_SECONDS,
            max_sessions=_SESSIONS,
            max_request_body_size=self._core.config.limits.body_bytes,
        )
        async with self._sessions.run():
            yield
        self._sessions = None

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. The protocol's newer revision cancels a call by closing its connection."""
        assert self._sessions is not None
        request = Request(scope, receive)
        scope["user"] = _user(request.state.caller)  # a session belongs to the key that opened it
        body = await request.body()
        try:
            await while_connected(request, self._sessions.handle_request(scope, _again(body), send))
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
        try:
            arguments, images = await self._with_pictures(caller, schema, dict(params.arguments or {}))
            result = (await self._core.call("mcp", caller, schema.name, arguments, images)).result
        except Exception as error:
            problem = problem_of(error)
            return types.CallToolResult(content=[types.TextContent(text=problem.detail)], is_error=True)
        return await asyncio.to_thread(_result, result)

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
    return types.Tool(
        name=schema.name,
        description=schema.description,
        input_schema={**schema.parameters, "properties": properties},
        annotations=types.ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )


def _result(result: ToolResult) -> types.CallToolResult:
    handles = [handle_of(image) for image in result.images]
    text = (
        f"{result.text}\n{'Picture' if len(handles) == 1 else 'Pictures'}: {', '.join(handles)}"
        if handles
        else result.text
    )
    content: list[Any] = [types.TextContent(text=text)]
    for image in result.images:
        data = base64.b64encode(image.data).decode()
        content.append(types.ImageContent(data=data, mime_type=image.media_type))
    return types.CallToolResult(content=content, structured_content={"data": result.data, "images": handles})

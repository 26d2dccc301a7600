"""OpenThinkIMG's controller and workers, so that its unmodified client lists, finds and calls our tools.

The controller's address is `http://host:port`, or the same with `/openthinkimg`; with keys, `http://any:KEY@host:port`,
of which its client (`requests`) makes Basic authentication. A worker call carries no tool's name, so each tool has an
address of its own. What the original lets callers do and we do not: register a worker, name a file of the server's,
name a URL.
"""

import asyncio
import base64
import json
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from thinkimg import wire
from thinkimg.gateway.core import CallerGone, Core, json_body, while_connected
from thinkimg.gateway.gate import CONTROLLER_PATHS
from thinkimg.gateway.openthinkimg_calls import arguments_of, names_of, original_name, reply
from thinkimg.gateway.refusals import Refusal, error_code, problem_of, refuse
from thinkimg.image import Image
from thinkimg.tools.tool import ToolSchema


class OpenThinkIMGFace:
    """All paths answer POST. The original's answers are 200 with an `error_code`, and its client looks at that only;
    with a status of its own come 401 (no key), 429 (too much) and 503 (too slow)."""

    def __init__(self, core: Core) -> None:
        self._core = core
        handlers = (
            *(self.refresh, self.list_models, self.address, self.register, self.heart_beat),
            *(self.status, self.generate_stream),
        )
        controller = dict(zip(CONTROLLER_PATHS, handlers, strict=True))
        worker = {
            "worker_generate": self.generate,
            "worker_generate_stream": self.generate_stream,
            "worker_get_status": self.status,
            "model_details": self.details,
            "tool_instruction": self.instruction,
        }
        self.routes = [
            *(
                Route(f"{root}/{name}", handler, methods=["POST"])
                for root in ("", "/openthinkimg")
                for name, handler in controller.items()
            ),
            *(
                Route(f"/openthinkimg/workers/{{tool}}/{name}", handler, methods=["POST"])
                for name, handler in worker.items()
            ),
        ]

    # ---- the controller ---------------------------------------------------------------------------------------------

    async def refresh(self, request: Request) -> Response:
        """Nothing to do: who serves a tool is always known here, and nobody is dropped for being busy."""
        return JSONResponse(None)

    async def list_models(self, request: Request) -> Response:
        return JSONResponse({"models": [name for schema in self._core.schemas.values() for name in names_of(schema)]})

    async def address(self, request: Request) -> Response:
        """Where the worker of a tool is; empty for one that does not exist, as the original has it."""
        asked = str((await _document(request)).get("model", ""))
        schema = self._core.find(asked)
        if schema is None:
            return JSONResponse({"address": ""})
        name = asked if asked in names_of(schema) else original_name(schema)
        return JSONResponse({"address": f"{self._base(request)}/openthinkimg/workers/{quote(name)}"})

    def _base(self, request: Request) -> str:
        """This gateway as the caller reaches it, with the key that it came with: its next request has no other way to
        carry one."""
        base = self._core.config.public_url or f"{request.url.scheme}://{request.headers.get('host', '')}"
        scheme, credentials = (request.headers.get("authorization", "") + " ").split(" ", 1)
        parts = urlsplit(base.rstrip("/"))
        if scheme.lower() != "basic" or self._core.callers.open:
            return urlunsplit(parts)
        user, _, key = base64.b64decode(credentials).decode().partition(":")
        return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(key, safe='')}@{parts.netloc}"))

    async def register(self, request: Request) -> Response:
        """Whoever may register a worker gets other people's pictures: tool servers are named in the configuration."""
        raise refuse(403, "no_registration", "workers cannot register here; name tool servers in the configuration")

    async def heart_beat(self, request: Request) -> Response:
        return JSONResponse({"exist": False})

    async def status(self, request: Request) -> Response:
        chosen = request.path_params.get("tool")
        schemas = self._core.schemas.values() if chosen is None else [self._schema(chosen)]
        names = [name for schema in schemas for name in names_of(schema)] if chosen is None else [chosen]
        return JSONResponse({"model_names": names, "speed": len(names), "queue_length": 0})

    # ---- a worker ---------------------------------------------------------------------------------------------------

    def _schema(self, name: str) -> ToolSchema:
        schema = self._core.find(name)
        if schema is None:
            raise refuse(404, "unknown_tool", f"there is no tool {name[:80]!r}")
        return schema

    async def details(self, request: Request) -> Response:
        return JSONResponse(None)

    async def instruction(self, request: Request) -> Response:
        schema = self._schema(request.path_params["tool"])
        return JSONResponse({"tool_instruction": schema.as_function(), "error_code": 0})

    async def generate(self, request: Request) -> Response:
        try:
            return JSONResponse(await self._generate(request))
        except CallerGone:
            return Response(status_code=499)

    async def generate_stream(self, request: Request) -> Response:
        """One chunk, ended by NUL: our tools answer whole."""
        try:
            return Response(json.dumps(await self._generate(request)).encode() + b"\0")
        except CallerGone:
            return Response(status_code=499)

    async def _generate(self, request: Request) -> dict[str, Any]:
        """Raises `Refusal` for what the original answers with a status of its own, and `CallerGone`."""
        document = await _document(request)
        schema = self._schema(str(request.path_params.get("tool") or document.get("model", "")))
        try:
            arguments, images = await self._arguments(request, schema, document)
            work = self._core.call("openthinkimg", request.state.caller, schema.name, arguments, images)
            called = await while_connected(request, work)
        except CallerGone:
            raise
        except Exception as error:
            problem = problem_of(error)
            if problem.status in (429, 504):
                raise Refusal(problem if problem.status == 429 else _too_slow(problem)) from error
            return {"text": problem.detail, "error_code": error_code(problem), "edited_image": None}
        return await asyncio.to_thread(reply, schema, called.result, next(iter(images.values()), None))

    async def _arguments(
        self, request: Request, schema: ToolSchema, document: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Image]]:
        given = document.get("image")
        if not isinstance(given, str) or not given:
            raise refuse(400, "invalid_request", "`image` must be a picture in base64")
        if given[:8].lower().startswith(("http://", "https://")):
            raise refuse(400, "invalid_request", "`image` must be a picture in base64, not an address")
        image = await self._core.pictures.read(request.state.caller.id, given)
        named = dict.fromkeys(schema.image_parameters[:1], "img_1")
        return {**named, **arguments_of(schema, document, image)}, {"img_1": image}


def _too_slow(problem: wire.Problem) -> wire.Problem:
    """The original says 503 here."""
    return wire.Problem(503, problem.family, problem.kind, problem.detail)


async def _document(request: Request) -> dict[str, Any]:
    try:
        document = wire.decode(await json_body(request), wire.JSON)
    except wire.WireError as error:
        raise refuse(400, "invalid_request", "the body must be JSON") from error
    if not isinstance(document, dict):
        raise refuse(400, "invalid_request", "the body must be a JSON object")
    return document

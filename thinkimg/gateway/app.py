"""The gateway as one ASGI app: all faces behind one gate."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from thinkimg.errors import UserError
from thinkimg.gateway import openapi
from thinkimg.gateway.config import GatewayConfig
from thinkimg.gateway.core import Core
from thinkimg.gateway.gate import Gate, face_of
from thinkimg.gateway.mcp import McpFace
from thinkimg.gateway.openai import ChatFace, ServedModel, upstream_model
from thinkimg.gateway.openthinkimg import OpenThinkIMGFace
from thinkimg.gateway.pages import PagesFace
from thinkimg.gateway.refusals import Refusal, problem_response, refuse
from thinkimg.gateway.tools import ToolsFace


def create_app(config: GatewayConfig, models: Sequence[ServedModel] = ()) -> Starlette:
    """The app; `app.state.core` must be connected before it is ready.

    Args:
        models: served beside those of the configuration.

    Raises:
        UserError: the file of keys, or a key's variable, is missing; two models of one name.
    """
    core = Core(config)
    upstreams = [upstream_model(upstream, config.limits.chat_seconds) for upstream in config.models]
    served = [*upstreams, *models]
    if len({model.name for model in served}) < len(served):
        raise UserError(f"names must be unique, not {[model.name for model in served]}", "models")
    mcp = McpFace(core)
    faces = (_Pages(core), ToolsFace(core), ChatFace(core, served), mcp, OpenThinkIMGFace(core), PagesFace())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with mcp.running():
            yield

    app = Starlette(
        routes=[route for face in faces for route in face.routes],
        lifespan=lifespan,
        middleware=_middleware(config, core),
        exception_handlers={Refusal: _refused, HTTPException: _refused_by_router},
    )
    app.state.core = core
    return app


def _middleware(config: GatewayConfig, core: Core) -> list[Middleware]:
    gate = Middleware(
        Gate,
        config=config,
        callers=core.callers,
        slots=core.slots,
        metrics=core.metrics,
        is_draining=lambda: core.draining,
    )
    if not config.cors_origins:
        return [gate]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=config.cors_origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "mcp-session-id"],
    )
    return [cors, gate]


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return problem_response(error.problem, face_of(request.url.path))


async def _refused_by_router(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
    response = problem_response(refuse(error.status_code, kind, error.detail).problem, face_of(request.url.path))
    response.headers.update(error.headers or {})
    return response


_FRONT = """This is a ThinkIMG gateway: vision tools and models at one address.

/play                  try the tools and models on a picture
/v1/tools              the tools, to be called with POST /v1/tools/NAME
/v1/chat/completions   models that use the tools, as OpenAI's API has them
/mcp                   the tools for MCP clients
/openapi.json, /docs   all of it described
"""
_WITH_KEYS = """
Calls need a key, sent as "Authorization: Bearer KEY"; /play takes it behind "#key=" in its address. Who runs this
gateway makes one with: thinkimg gateway keys add NAME --file FILE
"""


class _Pages:
    """What this is, probes, metrics, and the description of the API."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.routes = [
            Route("/", self.front),
            Route("/livez", self.livez),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.description),
        ]

    async def front(self, request: Request) -> Response:
        return PlainTextResponse(_FRONT if self._core.callers.open else _FRONT + _WITH_KEYS)

    async def livez(self, request: Request) -> Response:
        return self._core.health.livez()

    async def readyz(self, request: Request) -> Response:
        return self._core.health.readyz()

    async def metrics(self, request: Request) -> Response:
        if not request.state.caller.may_read_metrics:
            hint = "`thinkimg gateway keys add NAME --metrics` makes one that may"
            raise refuse(403, "not_allowed", f"this key may not read the metrics, which tell what others do; {hint}")
        return Response(self._core.metrics.render(), media_type="text/plain; version=0.0.4")

    async def description(self, request: Request) -> Response:
        return JSONResponse(openapi.document(self._core.schemas.values(), secured=not self._core.callers.open))

"""The tools API: wire version 1, as a tool server speaks it, so that `ToolClient` and curl see one server that
has every tool.

Pictures pass through as the bytes that they are; nothing is decoded but their headers.
"""

import asyncio
import math
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from thinkimg import wire
from thinkimg.gateway.callers import Caller
from thinkimg.gateway.core import CallerGone, Core, while_connected
from thinkimg.gateway.pictures import LARGE_BYTES
from thinkimg.gateway.refusals import problem_of, problem_response, refuse
from thinkimg.image import Image, is_sha256
from thinkimg.tools.tool import ToolResult
from thinkimg.viewer.record import drawn

MOST_CALLS = 64
"""Calls in one batch."""
_A_PICTURE = {
    "cache-control": "private, max-age=31536000, immutable",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
}


class ToolsFace:
    """`GET /v1/tools`, `POST /v1/tools/{name}`, `POST /v1/batch`, `PUT`, `GET` and `HEAD /v1/images/{sha256}`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.routes = [
            Route("/v1/tools", self.list_tools, methods=["GET"]),
            Route("/v1/tools/{name}", self.call, methods=["POST"]),
            Route("/v1/batch", self.batch, methods=["POST"]),
            Route("/v1/images/{sha256}", self.put_image, methods=["PUT"]),
            Route("/v1/images/{sha256}", self.has_image, methods=["HEAD"]),
            Route("/v1/images/{sha256}", self.get_image, methods=["GET"]),
        ]

    async def list_tools(self, request: Request) -> Response:
        tools = [schema.model_dump(mode="json") for schema in self._core.schemas.values()]
        return Response(wire.encode({"version": wire.VERSION, "tools": tools}, wire.JSON), media_type=wire.JSON)

    async def call(self, request: Request) -> Response:
        try:
            body = await request.body()
            return await while_connected(request, self._answer(request, body))
        except CallerGone:
            return Response(status_code=499)

    async def _answer(self, request: Request, body: bytes) -> Response:
        try:
            call = await _decoded(wire.decode_request, body, _body_type(request))
            result = await self._run(request.state.caller, request.path_params["name"], call, _seconds(request))
            document = wire.result_document(result)
            if request.query_params.get("overlay") == "true":
                document["overlay"] = await asyncio.to_thread(drawn, result.data)
            return await _reply(document, _reply_type(request))
        except Exception as error:
            return problem_response(problem_of(error))

    async def batch(self, request: Request) -> Response:
        """Calls run side by side, as many as the caller has places for. Each counts as a request, and has its own
        result or problem, in the order asked."""
        try:
            body = await request.body()
            return await while_connected(request, self._answer_batch(request, body))
        except CallerGone:
            return Response(status_code=499)

    async def _answer_batch(self, request: Request, body: bytes) -> Response:
        calls = await _decoded(wire.decode_batch, body, _body_type(request))
        if len(calls) > MOST_CALLS:
            raise refuse(422, "malformed_request", f"`calls` has {len(calls)} members; at most {MOST_CALLS} are run")
        caller: Caller = request.state.caller
        further = max(0, len(calls) - 1)
        caller.charge(further)
        with self._core.slots.more(caller, further) as further:
            results = await self._side_by_side(caller, calls, _seconds(request), 1 + further)
        return await _reply({"results": results}, _reply_type(request))

    async def _side_by_side(
        self, caller: Caller, calls: list[wire.CallRequest], seconds: float | None, places: int
    ) -> list[dict[str, Any]]:
        """Each call takes a place; those that wait for one have the less time left."""
        free, began = asyncio.Semaphore(places), time.monotonic()

        async def one(call: wire.CallRequest) -> dict[str, Any]:
            async with free:
                left = None if seconds is None else max(seconds - (time.monotonic() - began), 0.001)
                return await self._one_of_batch(caller, call, left)

        return await asyncio.gather(*(one(call) for call in calls))

    async def _one_of_batch(self, caller: Caller, call: wire.CallRequest, seconds: float | None) -> dict[str, Any]:
        try:
            return {"result": wire.result_document(await self._run(caller, call.tool, call, seconds))}
        except Exception as error:
            return {"problem": problem_of(error).as_document()}

    async def _run(self, caller: Caller, name: str, call: wire.CallRequest, seconds: float | None) -> ToolResult:
        images = await self._gather(caller, call.images)
        return (await self._core.call("tools", caller, name, call.arguments, images, seconds)).result

    async def _gather(self, caller: Caller, refs: dict[str, wire.ImageRef]) -> dict[str, Image]:
        if len(refs) > self._core.config.limits.images:
            raise refuse(422, "malformed_request", f"at most {self._core.config.limits.images} pictures are taken")
        found = {name: await self._picture(caller, ref) for name, ref in refs.items()}
        missing = sorted({refs[name].sha256 for name, image in found.items() if image is None})
        if missing:
            detail = "pictures that the gateway does not hold; send the request again with their data"
            raise refuse(409, wire.MISSING_IMAGES, detail, sha256=missing)
        return {name: image for name, image in found.items() if image is not None}

    async def _picture(self, caller: Caller, ref: wire.ImageRef) -> Image | None:
        if ref.data is None:
            return self._core.pictures.held(caller.id, ref.sha256)
        return await self._keep(caller, ref.sha256, ref.data)

    async def _keep(self, caller: Caller, sha256: str, data: bytes) -> Image:
        image = await self._core.pictures.checked(data)
        if image.sha256 != sha256:
            raise refuse(422, "wrong_hash", f"the data has sha256 {image.sha256}, not {sha256}")
        self._core.pictures.hold(caller.id, image)
        return image

    async def put_image(self, request: Request) -> Response:
        sha256 = str(request.path_params["sha256"])
        if not is_sha256(sha256):
            detail = "an image's address ends with its sha256, 64 hex digits in lower case"
            raise refuse(422, "malformed_request", detail)
        await self._keep(request.state.caller, sha256, await request.body())
        return Response(status_code=204)

    async def get_image(self, request: Request) -> Response:
        """A picture that the caller sent, or that a tool made for it, while it is held."""
        image = self._core.pictures.held(request.state.caller.id, request.path_params["sha256"])
        if image is None:
            return problem_response(refuse(404, "not_found", "the gateway holds no such picture of yours").problem)
        return Response(image.data, media_type=image.media_type, headers=_A_PICTURE)

    async def has_image(self, request: Request) -> Response:
        held = self._core.pictures.held(request.state.caller.id, request.path_params["sha256"])
        return Response(status_code=404 if held is None else 200)


async def _decoded(decode: Any, body: bytes, media_type: str) -> Any:
    try:
        if len(body) > LARGE_BYTES:
            return await asyncio.to_thread(decode, body, media_type)
        return decode(body, media_type)
    except wire.WireError as error:
        raise refuse(422, "malformed_request", str(error)) from error


async def _reply(document: dict[str, Any], media_type: str) -> Response:
    """JSON makes base64 of pictures, which takes its time; msgpack copies them."""
    if media_type == wire.JSON:
        return Response(await asyncio.to_thread(wire.encode, document, media_type), media_type=media_type)
    return Response(wire.encode(document, media_type), media_type=media_type)


def _seconds(request: Request) -> float | None:
    """That the caller still waits, if it says."""
    text = request.headers.get(wire.TIMEOUT_HEADER)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise refuse(422, "malformed_request", f"{wire.TIMEOUT_HEADER} must be a positive number of seconds")
    return seconds


def _body_type(request: Request) -> str:
    return wire.media_type_of(request.headers.get("content-type"))


def _reply_type(request: Request) -> str:
    """As the caller accepts; without a wish, as it wrote."""
    accept = request.headers.get("accept", "*/*")
    return wire.media_type_of(accept) if accept != "*/*" else _body_type(request)

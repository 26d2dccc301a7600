"""OpenThinkIMG's controller and workers, so that its unmodified client lists, finds and calls our tools.

The controller's address is `http://host:port`, or the same with `/openthinkimg`; with keys, `http://any:KEY@host:port`,
of which its client (`requests`) makes Basic authentication. A worker call carries no tool's name, so each tool has an
address of its own. What the original lets callers do and we do not: register a worker, name a file of the server's,
name a URL.
"""

import asyncio
import base64
import io
import json
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from thinkimg import wire
from thinkimg.errors import ModelError
from thinkimg.gateway.core import CallerGone, Core, json_body, while_connected
from thinkimg.gateway.gate import CONTROLLER_PATHS
from thinkimg.gateway.refusals import Refusal, error_code, problem_of, refuse
from thinkimg.image import Image, ImageDecodeError
from thinkimg.tools import markup
from thinkimg.tools.coordinates import within_one
from thinkimg.tools.tool import ToolResult, ToolSchema

_NAMES = {
    "ZoominSubplot": "ZoomInSubfigure",
    "GroundingDINO": "grounding_dino",
    "SAM": "sam",
    "GroundedSAM": "grounded_sam",
    "Crop": "crop",
}
"""Ours to the original's spelling, which its client compares exactly."""

_OWN_MEMBERS = ("image", "param", "model", "box_threshold", "text_threshold", "caption")
_JPEG_QUALITY = 95


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
        return JSONResponse({"models": [original_name(schema) for schema in self._core.schemas.values()]})

    async def address(self, request: Request) -> Response:
        """Where the worker of a tool is; empty for one that does not exist, as the original has it."""
        schema = self._core.find(str((await _document(request)).get("model", "")))
        if schema is None:
            return JSONResponse({"address": ""})
        return JSONResponse({"address": f"{self._base(request)}/openthinkimg/workers/{quote(original_name(schema))}"})

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
        names = [original_name(schema) for schema in schemas]
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


# ---- translation ----------------------------------------------------------------------------------------------------


def original_name(schema: ToolSchema) -> str:
    return _NAMES.get(schema.name, schema.name)


def arguments_of(schema: ToolSchema, document: dict[str, Any], image: Image) -> dict[str, Any]:
    """The tool's own arguments, from the flat object of a worker call. Members that the tool does not know are dropped:
    the original's client sends both thresholds with every call."""
    known = schema.parameters.get("properties", {})
    arguments = {name: value for name, value in document.items() if name in known and name not in _OWN_MEMBERS}
    param = document.get("param", document.get("caption"))
    if schema.name == "GroundingDINO":
        return {**arguments, **_thresholds(document), "query": str(param or "")}
    if schema.name in ("SAM", "GroundedSAM"):
        return _for_masks(schema, arguments, document, param)
    if schema.name == "Crop":
        return {"box": _percent_box(str(param or ""), image)}
    if param is not None and schema.name != "OCR":  # OCR is sent the picture's label, which it has no use for
        arguments["param"] = param if isinstance(param, str) else json.dumps(param)
    return arguments


def _thresholds(document: dict[str, Any]) -> dict[str, Any]:
    return {name: document[name] for name in ("box_threshold", "text_threshold") if name in document}


def _for_masks(schema: ToolSchema, arguments: dict[str, Any], document: dict[str, Any], param: Any) -> dict[str, Any]:
    """Boxes and points of the original are shares of width and height, 0 to 1."""
    for name in ("boxes", "points"):
        if isinstance(value := document.get(name), list):
            arguments[name] = _hundredfold(value)
    if schema.name == "GroundedSAM" and param is not None:
        arguments = {**arguments, **_thresholds(document), "query": str(param)}
    return arguments


def _hundredfold(value: Any) -> Any:
    if isinstance(value, list):
        return [_hundredfold(item) for item in value]
    return 100 * value if isinstance(value, int | float) and not isinstance(value, bool) else value


def _percent_box(param: str, image: Image) -> Any:
    """The original's crop takes pixels. Raises `ModelError` for what is no box of pixels of this picture."""
    numbers = markup.bare_numbers(param)
    if len(numbers) != 4:
        return param
    size = f"this {image.width}x{image.height} picture"
    if within_one(numbers) and not all(number.is_integer() for number in numbers):
        raise ModelError(f"crop takes pixels [x1, y1, x2, y2] of {size}; {param} looks like shares of 1")
    if not all(0 <= value <= (image.height if index % 2 else image.width) for index, value in enumerate(numbers)):
        raise ModelError(f"crop takes pixels [x1, y1, x2, y2] of {size}; {param} leaves it")
    return [100 * value / (image.height if index % 2 else image.width) for index, value in enumerate(numbers)]


def reply(schema: ToolSchema, result: ToolResult, image: Image | None) -> dict[str, Any]:
    """A worker's flat object: `text`, `error_code` 0, and for tools that make pictures `edited_image` (JPEG, base64).

    The original's sub-plot tool answers with a list, which its own loops cannot read; here the first one is the
    `edited_image`, and all are `edited_images`.
    """
    document: dict[str, Any] = {"text": _text(schema, result), "error_code": 0}
    if schema.name in ("SAM", "GroundedSAM"):
        document |= {"masks_rle": result.data.get("masks", []), "boxes": _hundredth(result.data.get("boxes", []))}
    if result.images:
        pictures = [_jpeg(picture) for picture in result.images]
        document["edited_image"] = pictures[0]
        if len(pictures) > 1:
            document["edited_images"] = pictures
    return document


def _text(schema: ToolSchema, result: ToolResult) -> Any:
    if schema.name == "OCR" and "strings" in result.data:
        return str(list(result.data["strings"]))
    if schema.name == "Point" and "points" in result.data:
        return _molmo(result.data["points"])
    if schema.name == "GroundingDINO":
        return _detections(result)
    if schema.name == "Crop":  # its box came in pixels: what was said of percent is not for this caller
        return result.text.removesuffix(f"\n{result.data.get('hint', '')}")
    return result.text


def _molmo(points: list[dict[str, Any]]) -> str:
    """Molmo's markup, which the original's Point answers with; numbered if there are several."""
    label = str(points[0].get("label", "")).replace('"', "'") if points else ""
    if len(points) == 1:
        return f'<point x="{points[0]["x"]}" y="{points[0]["y"]}" alt="{label}">{label}</point>'
    numbered = " ".join(f'x{n}="{point["x"]}" y{n}="{point["y"]}"' for n, point in enumerate(points, start=1))
    return f'<points {numbered} alt="{label}">{label}</points>'


def _detections(result: ToolResult) -> dict[str, Any]:
    boxes, labels = result.data.get("boxes", []), result.data.get("labels", [])
    scores = result.data.get("scores", result.data.get("confidences", []))
    detections = [
        {
            "label": label,
            "confidence": round(float(score), 2),
            "normalized_bbox": dict(zip(("x_min", "y_min", "x_max", "y_max"), _hundredth(box), strict=True)),
        }
        for box, label, score in zip(boxes, labels, scores, strict=False)
    ]
    return {"tool_response_from": "grounding_dino_detector", "status": "success", "detections": detections}


def _hundredth(value: Any) -> Any:
    """Percent to a share, rounded to 2 decimals as the original does. What is nowhere (None) stays so."""
    if isinstance(value, list | tuple):
        return [_hundredth(item) for item in value]
    return None if value is None else round(value / 100, 2)


def _jpeg(image: Image) -> str:
    try:
        pixels = image.pixels()
    except ImageDecodeError as error:
        raise refuse(502, "foreign_answer", f"a tool's picture is broken: {error}") from error
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


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

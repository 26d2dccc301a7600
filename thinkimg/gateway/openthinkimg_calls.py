"""Between OpenThinkIMG's flat objects and our calls: names, units, texts, pictures."""

import base64
import io
import json
import re
from typing import Any

from thinkimg.errors import ModelError
from thinkimg.gateway.refusals import refuse
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
    "DrawLine": "line",
}
"""Ours to the original's spelling, which its client compares exactly."""

_FURTHER_NAMES = {"DrawLine": ("drawline",)}
"""Under which the original has the same tool once more."""
_CORNERS = re.compile(r"\s*(\[[^\[\]]*\])\s*,\s*([1-4])\s*,\s*([1-4])\s*")

_OWN_MEMBERS = ("image", "param", "model", "box_threshold", "text_threshold", "caption")
_JPEG_QUALITY = 95


def original_name(schema: ToolSchema) -> str:
    return _NAMES.get(schema.name, schema.name)


def names_of(schema: ToolSchema) -> tuple[str, ...]:
    """All names of a tool, `original_name` first."""
    return original_name(schema), *_FURTHER_NAMES.get(schema.name, ())


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
        return {"box": _percent_box("crop", str(param or ""), image)}
    if schema.name == "DrawLine" and param is not None:
        return {"points": _percent_ends(str(param), image)}
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


def _percent_box(tool: str, param: str, image: Image) -> Any:
    """The original's crop and line take pixels. Raises `ModelError` for what is no box of pixels of this picture."""
    numbers = markup.bare_numbers(param)
    if len(numbers) != 4:
        return param
    size = f"this {image.width}x{image.height} picture"
    if within_one(numbers) and not all(number.is_integer() for number in numbers):
        raise ModelError(f"{tool} takes pixels [x1, y1, x2, y2] of {size}; {param} looks like shares of 1")
    if not all(0 <= value <= (image.height if index % 2 else image.width) for index, value in enumerate(numbers)):
        raise ModelError(f"{tool} takes pixels [x1, y1, x2, y2] of {size}; {param} leaves it")
    return [100 * value / (image.height if index % 2 else image.width) for index, value in enumerate(numbers)]


def _percent_ends(param: str, image: Image) -> Any:
    """The original's line goes from one corner of a box to another: `[x1, y1, x2, y2], a, b`. Our own notations of two
    points are percent."""
    if len(markup.points(param)) == 2:
        return param
    found = _CORNERS.fullmatch(param)
    box = _percent_box("line", found[1], image) if found else None
    if found is None or not isinstance(box, list):
        raise ModelError(
            "line takes a box in pixels and two of its corners, [x1, y1, x2, y2], a, b: "
            "1 is top left, 2 top right, 3 bottom right, 4 bottom left"
        )
    left, top, right, bottom = box
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return [list(corners[int(number) - 1]) for number in found.groups()[1:]]


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
    if schema.name in ("Crop", "DrawLine"):  # they were asked in pixels: what is said of percent is not for this caller
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

"""What an MCP host is given of a tool's result: text, numbers and pictures, each small enough for a model's context.

There is no structured content: hosts that find some show the model only that, and drop the pictures. What is large is a
link to a resource, which the caller's own session can read for as long as the gateway holds it.
"""

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mcp_types as types

from thinkimg.gateway.pictures import handle_of
from thinkimg.image import Image
from thinkimg.tools.tool import ToolResult

MOST_NUMBERS = 4_000
"""Characters of numbers that stand in a result; more become a link."""
MOST_PICTURE_BYTES = 700_000
"""Of a result's pictures together: hosts bound a result at about a megabyte, and base64 adds a third."""
PREVIEW_SIDE, LEAST_SIDE = 1568, 256
"""Pixels of the longer side of a larger picture's preview, at first and at least."""

PICTURES, NUMBERS = "thinkimg://pictures/", "thinkimg://numbers/"
JSON = "application/json"


@dataclass(frozen=True)
class Numbers:
    """A tool's data as JSON, and the name under which it is held."""

    text: str

    @property
    def uri(self) -> str:
        return NUMBERS + hashlib.sha256(self.text.encode()).hexdigest()[:16]


def content_of(result: ToolResult, run_lengths: bool) -> tuple[list[types.ContentBlock], Numbers | None]:
    """The blocks of a result, and the numbers that one of them links to.

    Args:
        run_lengths: give those of masks too.
    """
    handles = [handle_of(image) for image in result.images]
    said = "Picture" if len(handles) == 1 else "Pictures"
    text = f"{result.text}\n{said}: {', '.join(handles)}" if handles else result.text
    blocks: list[types.ContentBlock] = [types.TextContent(text=text)]
    held = None
    if result.data:
        numbers = Numbers(json.dumps(result.data if run_lengths else without_run_lengths(result.data)))
        if run_lengths or len(numbers.text) <= MOST_NUMBERS:
            blocks.append(types.TextContent(text=numbers.text))
        else:
            held = numbers
            blocks.append(_link(numbers.uri, "numbers", JSON, len(numbers.text), "the numbers of this result"))
    for image in result.images:
        blocks += _picture(image, MOST_PICTURE_BYTES // len(result.images))
    return blocks, held


def without_run_lengths(value: Any) -> Any:
    """`value` with `counts` left out of masks (`{"size": [height, width], "counts": [...]}`)."""
    if isinstance(value, dict):
        mask = value.keys() == {"size", "counts"} and isinstance(value["counts"], Sequence)
        return {name: without_run_lengths(part) for name, part in value.items() if not (mask and name == "counts")}
    return [without_run_lengths(part) for part in value] if isinstance(value, list) else value


def picture_contents(image: Image, uri: str) -> types.BlobResourceContents:
    return types.BlobResourceContents(uri=uri, mime_type=image.media_type, blob=base64.b64encode(image.data).decode())


def _picture(image: Image, room: int) -> list[types.ContentBlock]:
    if len(image.data) <= room:
        return [_image(image.data, image.media_type)]
    uri, size = PICTURES + handle_of(image), f"{image.width}x{image.height} pixels"
    what = f"the whole picture, {size}; the one shown is reduced"
    return [
        _image(_preview(image, room), "image/jpeg"),
        _link(uri, handle_of(image), image.media_type, len(image.data), what),
    ]


def _image(data: bytes, media_type: str) -> types.ImageContent:
    return types.ImageContent(data=base64.b64encode(data).decode(), mime_type=media_type)


def _preview(image: Image, room: int) -> bytes:
    """As large as fits into so many bytes."""
    side = PREVIEW_SIDE
    while True:
        pixels = image.pixels().copy()
        pixels.thumbnail((side, side))
        buffer = io.BytesIO()
        pixels.save(buffer, "JPEG", quality=85)
        if buffer.tell() <= room or side <= LEAST_SIDE:
            return buffer.getvalue()
        side = side * 3 // 4


def _link(uri: str, name: str, media_type: str, size: int, description: str) -> types.ResourceLink:
    return types.ResourceLink(uri=uri, name=name, mime_type=media_type, size=size, description=description)

"""One trajectory as the page shows it: `sample.as_record`, with its masks as pictures and the text of its tokens."""

import base64
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from thinkimg.errors import UserError
from thinkimg.image import Image
from thinkimg.tools.vision.masks import COLORS, decode_rle
from thinkimg.trajectory import Trajectory
from thinkimg.trajectory.files import own_file
from thinkimg.viewer.sample import as_record, overlay

_MOST_MASKS = 64  # of one result
_MOST_PIXELS = 64_000_000  # of one mask: what images may have
_OPACITY = 120  # of 255

Decode = Callable[[int], str]


def page_record(record: dict[str, Any], file: int, folder: Path, decode: Decode | None = None) -> dict[str, Any]:
    """A line of a trajectory file, parsed, for the page.

    Args:
        file: number of the file in the index; pictures are asked for under it.
        folder: of its pictures; the `src` of one that is not there is None.
        decode: text of a token id.

    Raises:
        UserError: the record is not a trajectory of this version; the field is named.
    """
    try:
        images = {name: Image.from_reference(reference) for name, reference in record["images"].items()}
        trajectory = Trajectory.model_validate(record | {"images": images})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"this version cannot show it: {error}", f"trajectory {record.get('id')}") from error
    shown = as_record(trajectory)
    for name, image in trajectory.images.items():
        picture = image.sha256 + image.suffix
        shown["images"][name]["src"] = f"images/{file}/{picture}" if own_file(folder, picture) else None
    for turn, original in zip(shown["turns"], trajectory.turns, strict=True):
        for block, content in zip(turn["blocks"], original.message.content, strict=True):
            if content.type == "tool_result":
                block["overlay"]["masks"] = mask_pictures(content.data)
    if decode:
        used = {token for turn in trajectory.turns for token in turn.tokens or ()}
        shown["pieces"] = {token: decode(token) for token in sorted(used)}
    return shown


def drawn(data: dict[str, Any]) -> dict[str, list[Any]]:
    """What the page draws over the picture that a tool looked at: `sample.overlay`, and `masks`."""
    return {**overlay(data), "masks": mask_pictures(data)}


def mask_pictures(data: dict[str, Any]) -> list[str]:
    """Masks of a result (`mask` or `masks`, COCO's run lengths) as PNG data URIs, transparent but for the mask, each as
    large in pixels as the picture it lies on. What is no such mask is left out."""
    masks = data.get("masks", [data["mask"]] if "mask" in data else [])
    found = []
    for number, rle in enumerate(masks[:_MOST_MASKS] if isinstance(masks, list) else []):
        if _is_rle(rle):
            found.append(_mask_uri(decode_rle(rle), COLORS[number % len(COLORS)]))
    return found


def _is_rle(rle: Any) -> bool:
    if not isinstance(rle, dict) or not isinstance(rle.get("counts"), list) or not isinstance(rle.get("size"), list):
        return False
    size, counts = rle["size"], rle["counts"]
    numbers = [*size, *counts]
    return (
        len(size) == 2
        and all(isinstance(number, int) and number >= 0 for number in numbers)
        and 0 < math.prod(size) <= _MOST_PIXELS
        and sum(counts) == math.prod(size)
    )


def _mask_uri(mask: np.ndarray, color: tuple[int, int, int]) -> str:
    picture = Pillow.fromarray(mask.astype(np.uint8), "P")
    picture.putpalette((0, 0, 0, *color))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", bits=1, transparency=bytes((0, _OPACITY)))
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def token_decoder(folder: Path) -> Decode | None:
    """Text of token ids, from the first tokenizer of a run: its base's, else a stage's. None if there is none, or if
    the library that reads it is not installed."""
    paths = [folder / "base" / "tokenizer.json", *sorted(folder.glob("stages/*/model/tokenizer.json"))]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        return None
    tokenizer = Tokenizer.from_file(str(path))
    return lambda token: str(tokenizer.decode([token], skip_special_tokens=False))

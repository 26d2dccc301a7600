"""AdjustImage: turn a picture, make it larger, brighter, sharper or richer in contrast, so that it can be read."""

import math
import re
from typing import Annotated, Any

from PIL import Image as Pillow
from PIL import ImageEnhance, ImageFilter
from pydantic import BeforeValidator, Field, WithJsonSchema

from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools.arguments import read_number
from thinkimg.tools.tool import ToolResult, tool
from thinkimg.tools.vision.colors import border_color

MAX_PIXELS = 16_000_000
"""Of a result: about 48 MB of memory while it is worked on, and what a tool server sends without ado."""

_QUARTERS = {
    90: Pillow.Transpose.ROTATE_270,  # Pillow counts against the clock
    180: Pillow.Transpose.ROTATE_180,
    270: Pillow.Transpose.ROTATE_90,
}


def _schema(low: float, high: float, unit: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "number", "minimum": low, "maximum": high, "description": unit})


Degrees = Annotated[
    float,
    BeforeValidator(read_number),
    Field(ge=-360, le=360, allow_inf_nan=False),
    _schema(-360, 360, "degrees clockwise"),
]
Strength = Annotated[
    float,
    BeforeValidator(read_number),
    Field(ge=0, le=4, allow_inf_nan=False),
    _schema(0, 4, "factor from 0 to 4; 1 changes nothing"),
]
Sharpness = Annotated[
    float, BeforeValidator(read_number), Field(ge=0, le=4, allow_inf_nan=False), _schema(0, 4, "0 (not) to 4 (most)")
]
Enlargement = Annotated[
    float, BeforeValidator(read_number), Field(ge=1, le=8, allow_inf_nan=False), _schema(1, 8, "factor from 1 to 8")
]


def _read_param(param: str) -> dict[str, Any]:
    """`rotate=90, contrast=1.5`"""
    return dict(re.findall(r"(\w+)\s*[=:]\s*([-+]?[\d.]+)", param))


@tool(name="AdjustImage", version="1", read_param=_read_param)
def adjust_image(
    image: Image,
    rotate: Degrees = 0,
    upscale: Enlargement = 1,
    brightness: Strength = 1,
    contrast: Strength = 1,
    sharpen: Sharpness = 0,
) -> ToolResult:
    """Rotate, enlarge, brighten or sharpen an image, or raise its contrast. Returns the adjusted image.

    Coordinates of the result are percent of the result. Only a rotation moves things: in percent, everything else
    leaves them where they were.

    Args:
        image: The image to adjust.
        rotate: Turn; other angles than quarter turns enlarge the canvas.
        upscale: Make wider and higher.
        brightness: Lightness; 0 is black.
        contrast: Distance from the mean grey; 0 is plain grey.
        sharpen: How much edges are sharpened.
    """
    done = _describe(rotate % 360, upscale, brightness, contrast, sharpen)
    if not done:
        raise ModelError("AdjustImage: nothing to do: give rotate, upscale, brightness, contrast or sharpen.")
    _refuse_large(image.width, image.height, upscale)
    picture = _rotate(image.pixels(), rotate % 360)
    if upscale > 1:
        size = round(picture.width * upscale), round(picture.height * upscale)
        _refuse_large(*size, 1)
        picture = picture.resize(size, Pillow.Resampling.LANCZOS)
    picture = ImageEnhance.Brightness(picture).enhance(brightness)
    picture = ImageEnhance.Contrast(picture).enhance(contrast)
    if sharpen:
        picture = picture.filter(ImageFilter.UnsharpMask(radius=2, percent=round(100 * sharpen), threshold=2))
    result = Image.from_pixels(picture)
    text = f"Adjusted: {', '.join(done)}. The new image has {result.width}x{result.height} pixels."
    return ToolResult(text, {"size": [result.width, result.height], "moved": rotate % 360 != 0}, (result,))


def _describe(rotate: float, upscale: float, brightness: float, contrast: float, sharpen: float) -> list[str]:
    parts = (
        (rotate, 0, f"rotated {rotate:g} degrees clockwise"),
        (upscale, 1, f"{upscale:g} times larger"),
        (brightness, 1, f"brightness {brightness:g}"),
        (contrast, 1, f"contrast {contrast:g}"),
        (sharpen, 0, f"sharpened by {sharpen:g}"),
    )
    return [said for value, neutral, said in parts if value != neutral]


def _rotate(picture: Pillow.Image, clockwise: float) -> Pillow.Image:
    if clockwise == 0:
        return picture
    if clockwise in _QUARTERS:
        return picture.transpose(_QUARTERS[int(clockwise)])
    turn = math.radians(clockwise)
    across, along = abs(math.cos(turn)), abs(math.sin(turn))
    width, height = picture.size
    _refuse_large(round(width * across + height * along), round(width * along + height * across), 1)
    return picture.rotate(-clockwise, Pillow.Resampling.BICUBIC, expand=True, fillcolor=border_color(picture))


def _refuse_large(width: int, height: int, factor: float) -> None:
    pixels = round(width * height * factor**2)
    if pixels > MAX_PIXELS:
        said = f"the result would have {pixels:,} pixels; at most {MAX_PIXELS:,} are made"
        raise ModelError(f"AdjustImage: {said}. Crop the part you need first, or enlarge it less.", kind="refused")

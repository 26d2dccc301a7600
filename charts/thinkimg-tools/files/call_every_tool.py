"""`helm test`: draws a chart, calls every tool behind the gateway with it; calls without a key must be refused."""

import asyncio
import os
import sys

import httpx
from PIL import Image as Pillow
from PIL import ImageDraw

from thinkimg.client.tool_client import ToolClient
from thinkimg.image import Image

ARGUMENTS = {
    "OCR": {},
    "Crop": {"box": [0, 0, 50, 50]},
    "DrawHorizontalLineByY": {"y": 50},
    "DrawVerticalLineByX": {"x": 50},
    "DrawLine": {"points": [[10, 10], [90, 50]]},
    "ZoominSubplot": {"description": "North"},
    "Point": {"description": "Apples"},
    "SegmentRegionAroundPoint": {"points": [[13, 60]]},
    "AdjustImage": {"rotate": 90},
}
"""What is asked of each tool; tools that are not here are called by nobody but listed."""


def chart() -> Image:
    """Two panels with a title and two labelled bars each."""
    picture = Pillow.new("RGB", (1000, 500), "white")
    draw = ImageDraw.Draw(picture)
    for left, title in ((20, "North"), (520, "South")):
        draw.text((left + 180, 10), title, fill="black", font_size=30)
        draw.rectangle((left, 60, left + 440, 430), outline="black", width=2)
        for offset, top, name, colour in ((60, 160, "Apples", "#3b6fb6"), (260, 260, "Pears", "#d1495b")):
            draw.rectangle((left + offset, top, left + offset + 110, 429), fill=colour)
            draw.text((left + offset, 440), name, fill="black", font_size=28)
    return Image.from_pixels(picture)


async def main(url: str, key: str) -> int:
    refusal = httpx.get(f"{url}/v1/tools", timeout=30).status_code if key else 401
    if refusal != 401:
        print(f"FAILED: a call without a key was answered with {refusal}, not 401")
        return 1
    failed = False
    client = ToolClient([url], {url: key} if key else {}, timeout_seconds=120)
    try:
        await client.connect()
        for name in client.schemas:
            if name not in ARGUMENTS:
                print(f"{name:28} listed, not called")
                continue
            try:
                result = (await client.call(name, {"image": "img_1", **ARGUMENTS[name]}, {"img_1": chart()})).result
                print(f"{name:28} ok: {result.text[:70]!r}, {len(result.images)} pictures")
            except Exception as error:
                failed = True
                print(f"{name:28} FAILED: {error}")
    finally:
        await client.close()
    return int(failed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], os.environ.get("KEY", ""))))

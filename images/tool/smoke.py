"""Runs in the image (`make images-test`): text is really read, without a network."""

import os

from PIL import Image as Pillow
from PIL import ImageDraw

from thinkimg.image import Image
from thinkimg.tools.registry import find_tool


def main() -> None:
    picture = Pillow.new("RGB", (640, 160), "white")
    ImageDraw.Draw(picture).text((40, 40), "Total 4711", fill="black", font_size=64)
    tool = find_tool("OCR").load()
    result = tool.run({"image": "img_1"}, {"img_1": Image.from_pixels(picture)})
    assert "4711" in result.text, result.text
    assert os.getuid() != 0
    print(f"ok: OCR read {result.text!r}")


main()

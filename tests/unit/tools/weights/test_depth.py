"""EstimateDepth on a tiny Depth Anything with random weights."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.tools.pictures import picture
from thinkimg.tools.registry import load_tool
from thinkimg.tools.tool import Tool


@pytest.fixture(scope="module")
def depth(saved: Path) -> Tool:
    return load_tool("EstimateDepth", options={"weights": str(saved / "depth")})


def test_the_map_has_the_size_of_the_picture_and_points_read_from_it(depth):
    image = picture(90, 70)
    result = depth.run({"image": "img_1", "points": [[0, 0], [50, 50], [100, 100]]}, {"img_1": image})
    (shown,) = result.images
    assert (shown.width, shown.height) == (90, 70)
    pixels = np.asarray(shown.pixels())[:, :, 0]
    assert (pixels.min(), pixels.max()) == (0, 255)
    read = [pixels[0, 0], pixels[35, 45], pixels[69, 89]]
    assert result.data["nearness"] == pytest.approx([value / 2.55 for value in read], abs=0.3)
    assert result.text.splitlines()[1:] == [
        "Nearness, 0 (far) to 100 (near):",
        *(f"[{x}, {x}]: {value:g}" for x, value in zip((0, 50, 100), result.data["nearness"], strict=True)),
    ]


def test_points_may_be_left_out(depth):
    result = depth.run({"image": "img_1"}, {"img_1": picture(30, 40)})
    assert result.text == "Depth map: bright is near, dark is far."
    assert result.data == {"points": [], "nearness": []}


def test_a_batch_equals_single_calls(depth):
    images = [picture(90, 70), picture(90, 70, seed=1), picture(20, 300, seed=2)]
    calls = [depth.bind({"image": "img_1", "points": [[30, 40]]}, {"img_1": image}) for image in images]
    for call, together in zip(calls, depth.run_batch(calls), strict=True):
        (alone,) = depth.run_batch([call])
        one, other = (np.asarray(each.images[0].pixels(), np.int16) for each in (alone, together))
        assert np.abs(one - other).max() <= 2

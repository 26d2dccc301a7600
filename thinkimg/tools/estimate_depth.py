"""EstimateDepth: what is near and what is far, from one picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image as Pillow

from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools import markup
from thinkimg.tools.arguments import Points
from thinkimg.tools.backends.loading import weights_at_hand
from thinkimg.tools.backends.options import WeightsOptions
from thinkimg.tools.draw_line import percent_to_pixel
from thinkimg.tools.tool import ToolResult, only_result, tool


class EstimateDepth:
    """Monocular depth. Relative: how pixels of one picture compare, no metres."""

    def __init__(self, backend: str, options: WeightsOptions) -> None:
        self.backend = backend
        self.options = options
        self.details: Mapping[str, str] = {}

    def load(self) -> None:
        with weights_at_hand("EstimateDepth", self.backend, self.options):
            from thinkimg.tools.backends.neural.depth import DepthEstimator

            self.estimator = DepthEstimator(self.options)
        self.details = self.estimator.details

    def run(self, image: Image, points: Points | None = None) -> ToolResult:
        """Estimate how near everything in an image is. Returns a depth map as an image of the same size (bright is
        near) and the nearness at points, from 0 (the farthest of the image) to 100 (the nearest).

        Args:
            image: The image to look at.
            points: Where to tell the nearness, e.g. on objects to compare.
        """
        return only_result(self.run_batch([{"image": image, "points": points}]))

    def run_batch(self, calls: Sequence[Mapping[str, Any]]) -> list[ToolResult | ModelError]:
        maps = self.estimator.nearness([call["image"] for call in calls])
        return [_result(near, call["points"] or []) for near, call in zip(maps, calls, strict=True)]


estimate_depth = tool(
    name="EstimateDepth",
    version="2",
    backends=("transformers",),
    options=WeightsOptions,
    read_param=lambda param: {"points": found} if (found := markup.points(param)) else {},
)(EstimateDepth)


def _result(near: np.ndarray, points: Sequence[tuple[float, float]]) -> ToolResult:
    height, width = near.shape
    values = [round(100 * float(near[percent_to_pixel(y, height), percent_to_pixel(x, width)]), 1) for x, y in points]
    lines = [f"[{x:g}, {y:g}]: {value:g}" for (x, y), value in zip(points, values, strict=True)]
    text = "Depth map: bright is near, dark is far."
    if lines:
        text += "\n" + "\n".join(["Nearness, 0 (far) to 100 (near):", *lines])
    picture = Image.from_pixels(Pillow.fromarray((near * 255).round().astype(np.uint8), "L"))
    return ToolResult(text, {"points": [list(point) for point in points], "nearness": values}, (picture,))

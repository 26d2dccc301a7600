"""GroundingDINO: boxes around everything that a text names."""

from collections.abc import Mapping, Sequence
from typing import Any

from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools.arguments import Score, Text
from thinkimg.tools.backends.detection import Detection, Detector, Query, read_phrases
from thinkimg.tools.backends.loading import load_detector
from thinkimg.tools.backends.options import DetectorOptions
from thinkimg.tools.crop import box_to_percent
from thinkimg.tools.tool import ToolResult, only_result, tool

BOX_THRESHOLD, TEXT_THRESHOLD = 0.35, 0.25  # the authors' own


class GroundingDINO:
    """Open-vocabulary detection (Liu et al., https://arxiv.org/abs/2303.05499)."""

    def __init__(self, backend: str, options: DetectorOptions) -> None:
        self.backend = backend
        self.options = options
        self.details: Mapping[str, str] = {}

    def load(self) -> None:
        self.detector = load_detector(self.backend, self.options)
        self.details = self.detector.details

    def run(
        self, image: Image, query: Text, box_threshold: Score = BOX_THRESHOLD, text_threshold: Score = TEXT_THRESHOLD
    ) -> ToolResult:
        """Find objects by a description. Returns labelled boxes with scores, best first.

        Args:
            image: The image to search.
            query: What to find; several things are separated by full stops, e.g. "blue bar. legend".
            box_threshold: Least score of a box, 0 to 1.
            text_threshold: Least score of a word in a box's label, 0 to 1.
        """
        call = {"image": image, "query": query, "box_threshold": box_threshold, "text_threshold": text_threshold}
        return only_result(self.run_batch([call]))

    def run_batch(self, calls: Sequence[Mapping[str, Any]]) -> list[ToolResult | ModelError]:
        return [
            found if isinstance(found, ModelError) else ToolResult(describe(found, image, query), as_data(found, image))
            for image, query, found in detect(self.detector, calls)
        ]


grounding_dino = tool(
    name="GroundingDINO",
    version="1",
    backends=("transformers", "groundingdino"),
    options=DetectorOptions,
    read_param=lambda param: {"query": param},
)(GroundingDINO)


def detect(
    detector: Detector, calls: Sequence[Mapping[str, Any]]
) -> list[tuple[Image, Query, list[Detection] | ModelError]]:
    """What each call searches, for what, and what was found there."""
    queries = [Query(read_phrases(call["query"]), call["box_threshold"], call["text_threshold"]) for call in calls]
    images: list[Image] = [call["image"] for call in calls]
    found = detector.detect(list(zip(images, queries, strict=True)))
    return list(zip(images, queries, found, strict=True))


def as_data(found: Sequence[Detection], image: Image) -> dict[str, Any]:
    """Labels, boxes in percent, scores."""
    return {
        "labels": [each.label for each in found],
        "boxes": [box_to_percent(each.box, image.width, image.height) for each in found],
        "scores": [each.score for each in found],
    }


def describe(found: Sequence[Detection], image: Image, query: Query) -> str:
    """A line per box."""
    if not found:
        named = ", ".join(query.phrases)
        return f'Found no "{named}" with a score above {query.box_threshold:g}.'
    lines = [line(each, image) for each in found]
    return "\n".join([f"Found {len(found)}:", *lines])


def line(each: Detection, image: Image) -> str:
    """`blue bar [1.0, 2.0, 3.0, 4.0] 0.87`"""
    numbers = ", ".join(f"{value:.1f}" for value in box_to_percent(each.box, image.width, image.height))
    return f"{each.label} [{numbers}] {each.score:.2f}"

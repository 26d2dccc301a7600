"""GroundedSAM: from a text to masks in one call. GroundingDINO finds boxes, SAM outlines what is in them."""

from collections.abc import Mapping, Sequence
from typing import Any

from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools.arguments import Score, Text
from thinkimg.tools.backends.detection import Detection
from thinkimg.tools.backends.loading import detector_at_hand, load_detector, load_segmenter, segmenter_at_hand
from thinkimg.tools.backends.options import DetectorOptions, SegmenterOptions
from thinkimg.tools.backends.segmentation import Mask, Prompt
from thinkimg.tools.grounding_dino import BOX_THRESHOLD, TEXT_THRESHOLD, as_data, describe, detect, line
from thinkimg.tools.sam import masks_data
from thinkimg.tools.tool import ToolOptions, ToolResult, only_result, tool
from thinkimg.tools.vision.masks import overlay


class GroundedSAMOptions(ToolOptions):
    """Options of GroundedSAM.

    Attributes:
        detector: as of GroundingDINO, backend `transformers`.
        segmenter: as of SAM, backend `transformers`.
    """

    detector: DetectorOptions = DetectorOptions()
    segmenter: SegmenterOptions = SegmenterOptions()


class GroundedSAM:
    """Grounded SAM (Ren et al., https://arxiv.org/abs/2401.14159)."""

    def __init__(self, backend: str, options: GroundedSAMOptions) -> None:
        self.backend = backend
        self.options = options
        self.details: Mapping[str, str] = {}

    def load(self) -> None:
        # The weights of both, before either is read.
        with (
            detector_at_hand(self.backend, self.options.detector),
            segmenter_at_hand(self.backend, self.options.segmenter),
        ):
            self.detector = load_detector(self.backend, self.options.detector)
        self.segmenter = load_segmenter(self.backend, self.options.segmenter)
        parts = {"detector": self.detector.details, "segmenter": self.segmenter.model.details}
        self.details = {f"{part} {name}": value for part, known in parts.items() for name, value in known.items()}

    def run(
        self, image: Image, query: Text, box_threshold: Score = BOX_THRESHOLD, text_threshold: Score = TEXT_THRESHOLD
    ) -> ToolResult:
        """Find objects by a description and segment them. Returns labels, boxes and masks, and the image with the
        masks in colour.

        Args:
            image: The image to search.
            query: What to find; several things are separated by full stops, e.g. "blue bar. legend".
            box_threshold: Least score of a box, 0 to 1.
            text_threshold: Least score of a word in a box's label, 0 to 1.
        """
        call = {"image": image, "query": query, "box_threshold": box_threshold, "text_threshold": text_threshold}
        return only_result(self.run_batch([call]))

    def run_batch(self, calls: Sequence[Mapping[str, Any]]) -> list[ToolResult | ModelError]:
        found = detect(self.detector, calls)
        # A picture in which nothing was found is not encoded.
        asked = [
            (image, [Prompt(box=each.box) for each in boxes])
            for image, _, boxes in found
            if isinstance(boxes, list) and boxes
        ]
        masks = iter(self.segmenter.segment(asked))
        results: list[ToolResult | ModelError] = []
        for image, query, boxes in found:
            if isinstance(boxes, ModelError):
                results.append(boxes)
            elif not boxes:
                results.append(ToolResult(describe(boxes, image, query), as_data(boxes, image) | masks_data([], image)))
            else:
                results.append(_result(image, boxes, next(masks)))
        return results


grounded_sam = tool(
    name="GroundedSAM",
    version="1",
    backends=("transformers",),
    options=GroundedSAMOptions,
    read_param=lambda param: {"query": param},
    image_affinity=True,
)(GroundedSAM)


def _result(image: Image, found: Sequence[Detection], masks: Sequence[Mask]) -> ToolResult:
    segmented = masks_data(masks, image)
    lines = [
        f"{number}: {line(each, image)}, {area:g}% of the image"
        for number, (each, area) in enumerate(zip(found, segmented["areas"], strict=True), 1)
    ]
    data = as_data(found, image) | {"masks": segmented["masks"], "areas": segmented["areas"]}
    text = "\n".join([f"Found and segmented {len(found)}:", *lines])
    return ToolResult(text, data, (overlay(image.pixels(), [mask.pixels for mask in masks]),))

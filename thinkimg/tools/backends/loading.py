"""Backends with weights, loaded by their names. What they are is in `detection` and `segmentation`, so that a backend
knows its kind and not who loads it."""

from thinkimg.tools.backends.detection import Detector
from thinkimg.tools.backends.extras import needs_extra
from thinkimg.tools.backends.options import DetectorOptions, SegmenterOptions
from thinkimg.tools.backends.segmentation import SegmentationModel, Segmenter


def load_detector(backend: str, options: DetectorOptions) -> Detector:
    """Import the backend and read its weights.

    Raises:
        UserError: the weights are not there or not whole, or the device is not there.
        InfrastructureError: the hub does not answer.
    """
    with needs_extra(backend):
        from thinkimg.tools.backends.neural.grounding import TokenDetector

        if backend == "groundingdino":
            from thinkimg.tools.backends.neural.groundingdino import GroundingDINOModel

            return TokenDetector(GroundingDINOModel(options), options.most)
        from thinkimg.tools.backends.neural.transformers_grounding import TransformersGrounding

        return TokenDetector(TransformersGrounding(options), options.most)


def load_segmenter(backend: str, options: SegmenterOptions) -> Segmenter:
    """Import the backend and read its weights.

    Raises:
        UserError: the weights are not there or not whole, or the device is not there.
        InfrastructureError: the hub does not answer.
    """
    model: SegmentationModel
    with needs_extra(backend):
        if backend == "segment-anything":
            from thinkimg.tools.backends.neural.segment_anything import SegmentAnything

            model = SegmentAnything(options)
        else:
            from thinkimg.tools.backends.neural.transformers_sam import TransformersSAM

            model = TransformersSAM(options)
    return Segmenter(model, options.embedding_cache_bytes)

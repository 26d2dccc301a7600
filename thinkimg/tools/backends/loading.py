"""Backends with weights, loaded by their names. What they are is in `detection` and `segmentation`, so that a backend
knows its kind and not who loads it.

Packages and weights are looked for before anything is imported: what is missing is said at once, and not after torch.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from thinkimg.errors import UserError
from thinkimg.tools.backends.detection import Detector
from thinkimg.tools.backends.extras import needs_extra
from thinkimg.tools.backends.options import DetectorOptions, SegmenterOptions, WeightsOptions
from thinkimg.tools.backends.segmentation import SegmentationModel, Segmenter
from thinkimg.tools.weights.catalogue import DEFAULTS
from thinkimg.tools.weights.exported import find_exported
from thinkimg.tools.weights.locate import locate


def load_detector(backend: str, options: DetectorOptions) -> Detector:
    """Import the backend and read its weights.

    Raises:
        UserError: a package or weights are missing, the weights are not whole, or the device is not there.
    """
    with detector_at_hand(backend, options):
        from thinkimg.tools.backends.neural.grounding import TokenDetector

        if backend == "groundingdino":
            from thinkimg.tools.backends.neural.groundingdino import GroundingDINOModel

            return TokenDetector(GroundingDINOModel(options), options.most)
        from thinkimg.tools.backends.neural.transformers_grounding import TransformersGrounding

        return TokenDetector(TransformersGrounding(options), options.most)


def load_segmenter(backend: str, options: SegmenterOptions) -> Segmenter:
    """Import the backend and read its weights.

    Raises:
        UserError: a package or weights are missing, the weights are not whole, or the device is not there.
    """
    model: SegmentationModel
    with segmenter_at_hand(backend, options):
        if backend == "segment-anything":
            from thinkimg.tools.backends.neural.segment_anything import SegmentAnything

            model = SegmentAnything(options)
        elif backend == "onnx":
            from thinkimg.tools.backends.onnx_sam import OnnxSAM

            model = OnnxSAM(options)
        else:
            from thinkimg.tools.backends.neural.transformers_sam import TransformersSAM

            model = TransformersSAM(options)
    return Segmenter(model, options.embedding_cache_bytes)


@contextmanager
def detector_at_hand(backend: str, options: DetectorOptions) -> Iterator[None]:
    """See `weights_at_hand`."""
    with weights_at_hand("GroundingDINO", backend, options):
        if backend == "groundingdino":
            locate(options.text_encoder, field="options.textEncoder")
        yield


@contextmanager
def segmenter_at_hand(backend: str, options: SegmenterOptions) -> Iterator[None]:
    """See `weights_at_hand`; of the backend `onnx`, a folder that was exported."""
    if backend != "onnx":
        with weights_at_hand("SAM", backend, options):
            yield
        return
    for name, wanted, fits in (
        ("revision", "reads a folder, which has none", options.revision is None),
        ("trustRemoteCode", "runs no code of anybody's", not options.trust_remote_code),
        ("device", "computes on the CPU only", options.device in ("auto", "cpu")),
        ("dtype", "computes in float32 only", options.dtype == "float32"),
    ):
        if not fits:
            raise UserError(f"the backend onnx {wanted}; leave it out", f"options.{name}")
    with needs_extra(backend):
        find_exported(options.weights)
        yield


@contextmanager
def weights_at_hand(tool: str, backend: str, options: WeightsOptions) -> Iterator[None]:
    """Around the import of a backend: its packages and its weights are here.

    Args:
        tool: whose default weights the backend takes.

    Raises:
        UserError: they are not, and how to bring them.
    """
    with needs_extra(backend):
        locate(options.weights or DEFAULTS[tool, backend], options.revision, options.trust_remote_code)
        yield

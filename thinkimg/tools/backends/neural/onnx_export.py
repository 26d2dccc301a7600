"""Models of transformers as files of ONNX: the first SAM, its encoder and its decoder apart.

The decoder gives the mask of one meaning first and those of several after it, so that one file serves both; onnxruntime
computes what the two have in common once. A box comes as two points with labels of their own, as in Meta's
`segment_anything/utils/onnx.py`.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.onnx._internal.torchscript_exporter import onnx_proto_utils
from transformers import AutoConfig, AutoImageProcessor, SamModel

from thinkimg import jsonfile
from thinkimg.errors import UserError
from thinkimg.results import ExportedSAM, WeightsFile
from thinkimg.tools.backends.neural import weights
from thinkimg.tools.backends.options import SegmenterOptions
from thinkimg.tools.weights.download import digest_of
from thinkimg.tools.weights.exported import CORNERS, DECODER, ENCODER, NO_POINT, ON_OBJECT, RECORD

TOLERANCE = 1e-3
"""Of `ExportedSAM.differs`; more is refused."""
_OPERATORS = 17
_MOST_BYTES = 2**31 - 2**26
"""A file of ONNX ends below 2 GiB."""
_BILINEAR = 2


class _Encoder(nn.Module):
    """Pixels (n, 3, side, side) -> features (n, channels, h, w)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision = model.vision_encoder

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.vision(pixels)[0]
        return features


class _Decoder(nn.Module):
    """Features (1, channels, h, w), points (1, n, p, 2) in pixels of the square, labels (1, n, p) -> logits
    (n, 1 + several, 4h, 4w), scores (n, 1 + several)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.prompts, self.masks = model.prompt_encoder, model.mask_decoder
        self.register_buffer("places", model.get_image_wide_positional_embeddings())

    def forward(
        self, features: torch.Tensor, points: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shown = self.prompts._embed_points(points, labels, pad=False)
        for corner in CORNERS:
            shown = shown + (labels == corner)[..., None] * self.prompts.point_embed[corner].weight
        nothing = self.prompts.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(1, -1, *features.shape[-2:])
        found = [
            self.masks(
                image_embeddings=features,
                image_positional_embeddings=self.places,
                sparse_prompt_embeddings=shown,
                dense_prompt_embeddings=nothing,
                multimask_output=several,
            )
            for several in (False, True)
        ]
        return torch.cat([logits for logits, _ in found], 2)[0], torch.cat([scores for _, scores in found], 2)[0]


def export_sam(source: str, revision: str | None, target: Path) -> ExportedSAM:
    """Write a model of transformers' SamModel to a folder, and compare it with what torch computes.

    Args:
        source: as `options.weights` of the backend `transformers`.
        target: a folder that is not there yet, or empty.

    Raises:
        UserError: it is another kind of model, or not on this machine, or the folder holds something.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there and not empty", "FOLDER")
    options = SegmenterOptions(weights=source, revision=revision, device="cpu")
    folder = weights.locate_pretrained(options, source)
    kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    if kind != "sam":
        raise UserError(
            f"{source} is a model of the kind {kind}; what can be exported is sam, the first SAM", "WEIGHTS"
        )
    model = weights.load_pretrained(SamModel, folder, options, torch.device("cpu"))
    model.set_attn_implementation("eager")
    size = sum(parameter.nbytes for parameter in model.parameters())
    if size > _MOST_BYTES:
        raise UserError(f"{source} takes {size:,} bytes; a file of ONNX holds at most 2 GiB", "WEIGHTS")
    side, mean, std = _preparation(folder, options, model)
    target.mkdir(parents=True, exist_ok=True)
    differs = _write(model, side, target)
    if differs > TOLERANCE:
        raise UserError(f"what was exported differs from torch by {differs:.1e}; it has no {RECORD}", str(target))
    files = {
        name: WeightsFile(sha256=found.sha256, size=found.size, said_by="the export")
        for name in (ENCODER, DECODER)
        for found in [digest_of(target / name)]
    }
    record = ExportedSAM(source=source, side=side, mean=mean, std=std, differs=differs, files=files)
    jsonfile.write(target / RECORD, record)
    return record


def _preparation(folder: Path, options: SegmenterOptions, model: Any) -> tuple[int, Any, Any]:
    """Side, mean and deviation. Raises `UserError` for pictures that are prepared otherwise than SAM's are."""
    processor = weights.load_processor(AutoImageProcessor, folder, options)
    side = model.config.vision_config.image_size
    known = {
        "longest side": (processor.size["longest_edge"], side),
        "padded height": (processor.pad_size["height"], side),
        "padded width": (processor.pad_size["width"], side),
        "resampling": (int(processor.resample), _BILINEAR),
        "scale of a pixel": (round(1 / processor.rescale_factor), 255),
    }
    wrong = [f"{name} {found}, not {wanted}" for name, (found, wanted) in known.items() if found != wanted]
    if wrong:
        raise UserError(f"{folder} prepares pictures otherwise than SAM does: {', '.join(wrong)}", "WEIGHTS")
    return side, tuple(processor.image_mean), tuple(processor.image_std)


@torch.no_grad()
def _write(model: Any, side: int, target: Path) -> float:
    """Both files; how much they differ from torch on noise."""
    noise = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 3, side, side, generator=noise)
    encoder, decoder = _Encoder(model).eval(), _Decoder(model).eval()
    features = encoder(pixels)
    points = side * torch.rand(1, 3, 2, 2, generator=noise)
    labels = torch.tensor([[[ON_OBJECT, NO_POINT], [ON_OBJECT, ON_OBJECT], list(CORNERS)]])
    one = features[:1].clone()
    with _exporter():
        _export(encoder, (pixels[:1],), target / ENCODER, {"pixels": {0: "pictures"}}, {"features": {0: "pictures"}})
        given = {"features": {}, "points": {1: "prompts", 2: "points"}, "labels": {1: "prompts", 2: "points"}}
        made = {"logits": {0: "prompts"}, "scores": {0: "prompts"}}
        _export(decoder, (one, points[:, :1], labels[:, :1]), target / DECODER, given, made)
    theirs = [features, *decoder(one, points, labels)]
    ours = _run(target / ENCODER, {"pixels": pixels})
    ours += _run(target / DECODER, {"features": one, "points": points, "labels": labels})
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(mine - other.numpy()).max() / other.abs().max()) for mine, other in pairs)


def _export(
    module: nn.Module, given: tuple[torch.Tensor, ...], path: Path, takes: dict[str, Any], gives: dict[str, Any]
) -> None:
    torch.onnx.export(
        module,
        given,
        str(path),
        dynamo=False,
        opset_version=_OPERATORS,
        input_names=list(takes),
        output_names=list(gives),
        dynamic_axes={name: axes for name, axes in (takes | gives).items() if axes},
    )


@contextmanager
def _exporter() -> Iterator[None]:
    """torch's exporter that needs no further package, without its warnings.

    Its last step opens the file with the package onnx, to put functions of onnxscript in; there are none here.
    """
    last = onnx_proto_utils._add_onnxscript_fn
    onnx_proto_utils._add_onnxscript_fn = lambda model_bytes, custom_opsets: model_bytes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        onnx_proto_utils._add_onnxscript_fn = last


def _run(path: Path, given: dict[str, torch.Tensor]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
    return found

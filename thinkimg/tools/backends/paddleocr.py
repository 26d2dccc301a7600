"""Reading text with PaddleOCR 3.7: any of its detectors and recognisers, so any of its languages.

A model is a folder as Paddle exports it (`inference.yml`, and the network in the form that the engine takes), or the
name of a model of PaddleOCR's, which its own loader fetches.
"""

import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image as Pillow

from thinkimg.errors import InfrastructureError, UserError
from thinkimg.tools.backends.text_reader import TextReader, kept_pictures
from thinkimg.tools.vision.geometry import clip
from thinkimg.tools.vision.text import TextItem

DEFAULT_DETECTION, DEFAULT_RECOGNITION = "PP-OCRv6_small_det", "PP-OCRv6_small_rec"
_DESCRIPTION = "inference.yml"
_NETWORKS = {
    "onnxruntime": (("inference.onnx",),),
    "paddle": (("inference.pdiparams",), ("inference.json", "inference.pdmodel")),
    "transformers": (("model.safetensors",), ("config.json",)),
}
"""Per engine the files of a model; of each tuple one must be there."""


class PaddleReader(TextReader):
    """PaddleOCR's pipeline without its document straightening: charts are upright.

    Args:
        detection, recognition: folder or name of a model.
        engine: `onnxruntime`, `paddle` (needs paddlepaddle) or `transformers` (needs transformers and torch).
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: of onnxruntime and paddle on a CPU.

    Raises:
        ImportError: a package is not installed.
        UserError: a folder is not such a model, or is half there.
        InfrastructureError: a model that has to be fetched cannot be.
    """

    def __init__(self, detection: str, recognition: str, engine: str, device: str, threads: int) -> None:
        super().__init__(kept_pictures())
        models = {
            **_model("text_detection", detection or DEFAULT_DETECTION, engine, "options.detection"),
            **_model("text_recognition", recognition or DEFAULT_RECOGNITION, engine, "options.recognition"),
        }
        # It asks three hubs whether they answer, even where nothing is fetched.
        os.environ.setdefault("PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK", "True")
        # A server's standard output is for its events.
        with contextlib.redirect_stdout(sys.stderr), _headless_opencv_will_do():
            from paddleocr import PaddleOCR

            try:
                self._pipeline = PaddleOCR(
                    **models,
                    **_runtime(engine, threads),
                    device=_device(device),
                    use_doc_orientation_classify=False,
                    use_doc_unwarping=False,
                    use_textline_orientation=False,
                )
            except ImportError:
                raise
            except Exception as error:  # whatever its loaders and three hubs raise
                if "dependency error" in str(error):  # what PaddleX makes of a package that is not installed
                    raise ImportError(str(error.__cause__ or error)) from error
                raise _failure(models, error) from error
        self.details = {
            "detection": detection or DEFAULT_DETECTION,
            "recognition": recognition or DEFAULT_RECOGNITION,
            "engine": engine,
            "device": _device(device) or "chosen by PaddleOCR",
        }

    def _recognise(self, picture: Pillow.Image) -> tuple[TextItem, ...]:
        (found,) = self._pipeline.predict(np.asarray(picture)[:, :, ::-1].copy())
        items = []
        for text, score, corners in zip(found["rec_texts"], found["rec_scores"], found["rec_polys"], strict=True):
            xs, ys = np.asarray(corners, float).T
            box = clip((xs.min(), ys.min(), xs.max(), ys.max()), picture.size)
            if text and box[0] < box[2] and box[1] < box[3]:
                items.append(TextItem(text, box, round(float(score), 4)))
        return tuple(items)


@contextlib.contextmanager
def _headless_opencv_will_do() -> Iterator[None]:
    """PaddleX looks for the distribution opencv-contrib-python by its name and refuses to work without it. All that is
    used of it here is in opencv-python-headless, which needs no libraries of a display and is there already."""
    version = importlib.metadata.version

    def version_of_either(distribution_name: str) -> str:
        try:
            return version(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "opencv-contrib-python":
                raise
            return version("opencv-python-headless")

    importlib.metadata.version = version_of_either
    try:
        yield
    finally:
        importlib.metadata.version = version


def _model(part: str, source: str, engine: str, field: str) -> dict[str, str]:
    """PaddleOCR's arguments for one model. A folder says itself what it is called."""
    folder = Path(source).expanduser()
    if not folder.exists():
        if "/" in source:
            raise UserError(f"there is no folder {source}", field)
        return {f"{part}_model_name": source}
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; a model of PaddleOCR is a folder", field)
    for alternatives in ((_DESCRIPTION,), *_NETWORKS[engine]):
        if not any((folder / name).is_file() for name in alternatives):
            there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
            raise UserError(
                f"{folder} is no model for the engine {engine}: {' or '.join(alternatives)} is missing; found: {there}",
                field,
            )
    return {f"{part}_model_dir": str(folder), f"{part}_model_name": _name(folder / _DESCRIPTION, field)}


def _name(description: Path, field: str) -> str:
    try:
        return str(yaml.safe_load(description.read_text(encoding="utf-8"))["Global"]["model_name"])
    except (yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError) as error:
        raise UserError(f"{description} names no Global.model_name: {error}", field) from error


def _runtime(engine: str, threads: int) -> dict[str, Any]:
    if engine == "onnxruntime":
        return {"engine": engine, "engine_config": {"intra_op_num_threads": threads, "inter_op_num_threads": 1}}
    return {"engine": engine, "cpu_threads": threads}


def _device(wanted: str) -> str | None:
    """Paddle's name; None lets it choose."""
    return None if wanted == "auto" else wanted.replace("cuda", "gpu")


def _failure(models: dict[str, str], error: Exception) -> Exception:
    said = f"{type(error).__name__}: {error}"
    folders = [path for name, path in models.items() if name.endswith("_dir")]
    if len(folders) == 2:
        return UserError(f"PaddleOCR does not load {' and '.join(folders)}: {said}", "options")
    names = [name for key, name in models.items() if key.endswith("_name")]
    return InfrastructureError(f"PaddleOCR does not get {' and '.join(names)}: {said}")

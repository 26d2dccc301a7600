"""Packages that checks need, in tiers: a machine with torch and transformers alone can already say much."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TIERS: dict[str, tuple[str, ...]] = {
    "plain": ("torch", "transformers", "pydantic", "numpy", "PIL"),
    "training": ("trl", "peft", "accelerate", "datasets"),
    "serving": ("fastapi", "uvicorn", "prometheus_client", "httpx", "msgpack"),
    "tools": ("onnxruntime", "rapidocr", "cv2", "psutil"),
    "deepspeed": ("deepspeed",),
    "vllm": ("vllm",),
}
"""Tier to the modules that it consists of."""


@dataclass(frozen=True)
class Check:
    """Attributes:
    work: from an empty folder and a size of model to figures; `ok` among them says whether all is well.
    seconds: most of them.
    tiers: without which it cannot run.
    gpu: whether it means nothing on a CPU.
    asked: whether it runs only when it is asked for.
    """

    work: Callable[[Path, str], dict[str, Any]]
    seconds: float
    tiers: tuple[str, ...] = ("plain",)
    gpu: bool = False
    asked: bool = False


def missing(tier: str) -> list[str]:
    """Modules of a tier that are not installed here."""
    return [module for module in TIERS[tier] if find_spec(module) is None]


def left_out(check: Check, device: str, absent: dict[str, list[str]], without: Sequence[str]) -> str | None:
    """Why a check cannot run here, or is not to; None where it runs.

    Args:
        absent: tier to the modules that it lacks here.
        without: tiers that are left out on purpose.
    """
    if check.gpu and device == "cpu":
        return "it needs a GPU"
    for tier in check.tiers:
        if tier in without:
            return f"without {tier}, as asked"
        if absent[tier]:
            return f"{', '.join(absent[tier])} not installed (tier {tier})"
    return None

"""How a model is loaded, as the options of a command or a manifest say it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thinkimg.errors import UserError
from thinkimg.models.reference import Model

NAMES = ("revision", "base", "trust_remote_code", "min_pixels", "max_pixels", "thinking")
"""Of the options; the first two say which model it is, and `thinkimg.models.reference` reads them."""


@dataclass(frozen=True)
class Loading:
    """How a model is loaded.

    Attributes:
        trust_remote_code: run code that comes with the model.
        min_pixels, max_pixels: pictures are resized to at least and at most so many; None: as the model was trained,
            else as its image processor has it.
        thinking: whether turns begin with a thought (see `family_of`); None: as the model was trained.
        dtype: of the weights; None: float32 on a CPU and bfloat16 on a GPU; `auto`: as they are stored.
        field: what messages call the place where the model is named.
    """

    trust_remote_code: bool = False
    min_pixels: int | None = None
    max_pixels: int | None = None
    thinking: bool | None = None
    dtype: Any = None
    field: str = "--model"

    def pixels(self, model: Model) -> tuple[int | None, int | None]:
        """What was given goes before what the model was trained with, both limits together."""
        if self.min_pixels is not None or self.max_pixels is not None or model.trained is None:
            return self.min_pixels, self.max_pixels
        return model.trained.min_pixels, model.trained.max_pixels

    def thinks(self, model: Model) -> bool | None:
        """What was given goes before how the model was trained."""
        return self.thinking if self.thinking is not None or model.trained is None else model.trained.thinking


def loading_of(options: Mapping[str, Any], field: str = "--model", dtype: Any = None) -> Loading:
    """From `--model-args`; what else there is in them is passed over.

    Raises:
        UserError: limits that are no numbers of pixels.
    """
    pixels = {}
    for name in ("min_pixels", "max_pixels"):
        given = options.get(name)
        if given is None:
            continue
        if not isinstance(given, int) or isinstance(given, bool) or given < 1:
            raise UserError(f"{given!r} is no number of pixels", f"--model-args {name}")
        pixels[name] = given
    trusted = options.get("trust_remote_code", False)
    if not isinstance(trusted, bool):
        raise UserError(f"{trusted!r} is neither yes nor no", "--model-args trust_remote_code")
    thinking = options.get("thinking")
    if thinking is not None and not isinstance(thinking, bool):
        raise UserError(f"{thinking!r} is neither yes nor no", "--model-args thinking")
    return Loading(trusted, **pixels, thinking=thinking, dtype=dtype, field=field)

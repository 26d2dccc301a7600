"""How a trained model is written: its weights first and safely, whatever fails after them.

A folder of weights appears whole or not at all: they are written beside it, reach the disk, and get its name. What a
base brings that transformers would refuse to write back is mended when the model is loaded (`mend_settings`), or
refused before it is trained (`check_can_be_saved`).
"""

import logging
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from thinkimg.errors import UserError

_AT_FAULT = re.compile(r"^- `(\w+)`:", re.MULTILINE)
"""How transformers lists the settings that it refuses to save."""

logger = logging.getLogger(__name__)


def mend_settings(model: Any) -> None:
    """Let generation settings be as transformers saves them, which is stricter than it loads: those that have no
    effect, as `temperature` without `do_sample`, are left out."""
    settings, defaults = model.generation_config, GenerationConfig()
    for name in _refused(settings):
        logger.warning("generation_config.json: %s has no effect beside the other settings, and is left out", name)
        setattr(settings, name, getattr(defaults, name, None))


def _refused(settings: GenerationConfig) -> list[str]:
    try:
        settings.validate(strict=True)
    except ValueError as error:
        return _AT_FAULT.findall(str(error))
    return []


def check_can_be_saved(model: Any, processor: Any, field: str) -> None:
    """Write all but the weights of a model that is to be trained, to see that it can be done after the training too.

    Raises:
        UserError: it cannot.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            model.config.save_pretrained(folder)
            if model.can_generate():
                model.generation_config.save_pretrained(folder)
            processor.save_pretrained(folder)
        except OSError:
            raise
        except Exception as error:
            raise UserError(
                f"what is trained from this model could not be saved: {error}. Correct its files in a copy of its "
                "folder, and name that",
                field,
            ) from error


def save_model(model: Any, processor: Any, folder: Path) -> None:
    """Weights (safetensors) and configuration, then generation settings and processor: what plain transformers loads.
    An earlier model in `folder` is replaced once the new weights are on the disk."""
    aside = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    settings = model.generation_config
    model.generation_config = GenerationConfig()  # transformers writes them before the weights: they must not fail
    try:
        model.save_pretrained(aside)
    finally:
        model.generation_config = settings
    sync_folder(aside)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    mend_settings(model)
    settings.save_pretrained(folder)
    processor.save_pretrained(folder)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Wait until everything in it is on the disk."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""Models of a run: load one for a stage, wrap it as an agent's model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from thinkimg.errors import UserError
from thinkimg.models.chat import Family, TokenModel
from thinkimg.models.families import family_of
from thinkimg.models.image_features import ImageFeatures
from thinkimg.models.transformers_generator import TransformersGenerator


@dataclass(frozen=True)
class LoadedModel:
    """A model with all that works on it. Training changes `model` in place; `chat` always speaks with its newest
    weights."""

    model: Any
    processor: Any
    family: Family
    features: ImageFeatures
    chat: TokenModel

    def save(self, folder: Path) -> None:
        """Weights (safetensors), configuration, processor: what plain transformers loads."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def load_model(source: str | Path, revision: str | None = None, trust_remote_code: bool = False) -> LoadedModel:
    """A model from a folder or the hub, in float32 on a CPU and bfloat16 on a GPU.

    Raises:
        UserError: nothing loadable is there, or its family is not one of `FAMILIES`.
    """
    gpu = torch.cuda.is_available()
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if revision:
        options["revision"] = revision
    try:
        processor = AutoProcessor.from_pretrained(source, **options)
        model = AutoModelForImageTextToText.from_pretrained(
            source, dtype=torch.bfloat16 if gpu else torch.float32, **options
        )
    except (OSError, ValueError) as error:
        raise UserError(f"no model can be loaded from {source}: {error}", "spec.model.uri") from error
    family, features = family_of(model.config.model_type, processor), ImageFeatures(processor.image_processor)
    model.to("cuda" if gpu else "cpu")
    return LoadedModel(
        model, processor, family, features, TokenModel(family, TransformersGenerator(model, family, features))
    )

"""Model families: which adapter speaks for a model, by the `model_type` of its configuration.

Another package adds families by entry points of the group `thinkimg.models.families`, named by the model type.
"""

from importlib.metadata import entry_points
from typing import Any

from thinkimg.errors import UserError
from thinkimg.models.chat import Family
from thinkimg.models.families.internvl import InternVL
from thinkimg.models.families.llava_onevision import LlavaOnevision
from thinkimg.models.families.qwen_vl import QwenVL

FAMILIES: dict[str, Any] = {
    "internvl": InternVL,
    "llava_onevision": LlavaOnevision,
    "qwen2_5_vl": QwenVL,
    "qwen2_vl": QwenVL,
    "qwen3_vl": QwenVL,
}


def family_of(model_type: str, processor: Any, field: str = "spec.model.uri") -> Family:
    """The adapter of a model.

    Raises:
        UserError: no family has this type, or the processor is not of it.
    """
    family = refuse_unknown(model_type, field)
    try:
        return (family if isinstance(family, type) else family.load())(processor)
    except ValueError as error:
        raise UserError(str(error), field) from error


def refuse_unknown(model_type: str, field: str) -> Any:
    """The family of a type, or its entry point. Raises `UserError` if no family has it."""
    families = FAMILIES | {point.name: point for point in entry_points(group="thinkimg.models.families")}
    if model_type not in families:
        known = ", ".join(sorted(families))
        raise UserError(f"{model_type} is not supported; there are {known}. docs/guides/add-a-model.md adds one", field)
    return families[model_type]

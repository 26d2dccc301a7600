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
    "qwen3_5": QwenVL,
    "qwen3_5_moe": QwenVL,
    "qwen3_vl": QwenVL,
    "qwen3_vl_moe": QwenVL,
}


def family_of(model_type: str, processor: Any, field: str = "spec.model.uri", thinking: bool | None = None) -> Family:
    """The adapter of a model.

    Args:
        thinking: whether turns begin with a thought, where the model's chat template lets one choose; None: as the
            template does by itself.

    Raises:
        UserError: no family has this type, the processor is not of it, or its template has no such choice.
    """
    family = refuse_unknown(model_type, field)
    try:
        made: Family = (family if isinstance(family, type) else family.load())(processor)
        if thinking is not None:
            made.choose_thinking(thinking)
        return made
    except ValueError as error:
        raise UserError(str(error), field) from error


def refuse_unknown(model_type: str, field: str) -> Any:
    """The family of a type, or its entry point. Raises `UserError` if no family has it."""
    families = FAMILIES | {point.name: point for point in entry_points(group="thinkimg.models.families")}
    if model_type not in families:
        known = ", ".join(sorted(families))
        raise UserError(f"{model_type} is not supported; there are {known}. docs/guides/add-a-model.md adds one", field)
    return families[model_type]

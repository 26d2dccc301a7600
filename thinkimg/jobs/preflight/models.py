"""The model that every stage starts from: what can be seen without its weights, and the layers that adapters name."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from thinkimg.errors import InfrastructureError, UserError
from thinkimg.jobs.environment import claims_folder
from thinkimg.jobs.preflight.findings import Finding, Plan, block_of
from thinkimg.jobs.stages.context import TINY
from thinkimg.models import tiny
from thinkimg.models.chat import Family
from thinkimg.models.families import family_of
from thinkimg.models.loading import Loading
from thinkimg.models.pretrained import examine
from thinkimg.models.reference import Reader
from thinkimg.training.adapters import lora_config

_MODEL = ("spec", "model", "uri")
_NAME = "Check the name and the network; a folder with the model's files needs none."


@dataclass(frozen=True)
class Known:
    """Of the model.

    Attributes:
        skeleton: its layers, without weights.
        family: how it is asked.
    """

    skeleton: Any
    family: Family


def loads_model(plan: Plan) -> bool:
    """Whether a stage that will run needs the model: a synthesis asks its planner only."""
    return any(stage.synthesize is None for _, stage in plan.stages())


def known_model(plan: Plan) -> tuple[Known | None, list[Finding]]:
    """The model without its weights, or why it cannot be loaded."""
    spec = plan.job.spec.model
    if spec.uri == TINY:
        tokenizer = tiny.build_tokenizer(())
        model = tiny.build_model(tokenizer, 0)
        return Known(
            model,
            family_of(model.config.model_type, tiny.build_processor(tokenizer), "spec.model.thinking", spec.thinks),
        ), []
    how = Loading(spec.trust_remote_code, spec.min_pixels, spec.max_pixels, spec.thinks, field="spec.model.uri")
    try:
        reader = Reader(how.field, plan.folder, claims_folder(), None if "://" not in spec.uri else spec.revision)
        examined = examine(reader.read(spec.uri), how)
    except (UserError, InfrastructureError) as error:
        return None, [plan.refused(_MODEL, error, _NAME)]
    with torch.device("meta"):
        skeleton = AutoModelForImageTextToText.from_config(examined.config, trust_remote_code=spec.trust_remote_code)
    return Known(skeleton, examined.family), []


def check_model(plan: Plan, known: Known) -> Iterator[Finding]:
    """Whether it can be trained as the stages want it."""
    for index, stage in plan.stages():
        if stage.grpo and known.family.grpo_refused is not None:
            message = f"stage {stage.name} cannot train this model: {known.family.grpo_refused}"
            yield plan.found(("spec", "stages", index, "type"), message, "Use type: SFT, or another model.")
        block = stage.sft or stage.grpo
        if block is None or block.lora is None:
            continue
        try:
            lora_config(known.skeleton, block.lora)
        except UserError as error:
            loc = block_of(index, stage, "lora", "targetModules")
            yield plan.refused(loc, error, "Name some of these, or remove targetModules for the default.")

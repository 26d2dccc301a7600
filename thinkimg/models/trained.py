"""What a model was trained to be asked with: its call syntax, system prompt, limits and tools.

A run says it in its manifest, an exported model in `thinkimg_config.json` beside its weights. Whoever asks the model
takes it from there unless told otherwise: a model that is asked in another way than it was trained in looks weaker than
it is.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from thinkimg.api import BASE, CUSTOM, Manifest, ToolRLJob, VisionTool
from thinkimg.errors import UserError

FILE = "thinkimg_config.json"


class Trained(BaseModel):
    """Of one model.

    Attributes:
        version: of this shape; a file of a later one is still read, without what is new in it.
        job, stage: that made the model; `base` is the model before any stage.
        format: the syntax of calls.
        prompt: how the system prompt explains tools.
        system_prompt: the user's own words of it; None: ours.
        max_rounds: how often the model speaks, at most.
        max_tokens: new tokens of a turn; max_context: tokens of a whole trajectory.
        max_seconds: without any sign of life, after which a question counts as hung.
        min_pixels, max_pixels: to which pictures are resized; None: as the image processor has it.
        thinking: whether turns begin with a thought; None: as the model's template has it.
        tools: as they were declared, in the order of the prompt; none for a model that was trained without tools.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = 1
    job: str
    stage: str
    format: str
    prompt: Literal["full", "compact"]
    system_prompt: str | None = None
    max_rounds: int
    max_tokens: int
    max_context: int = 32_768
    max_seconds: float
    min_pixels: int | None = None
    max_pixels: int | None = None
    thinking: bool | None = None
    tools: tuple[VisionTool, ...] = ()

    @property
    def tool_names(self) -> tuple[str, ...] | None:
        """Names by which the model knows its tools; None if only their servers know them."""
        names = tuple(tool.spec.tool for tool in self.tools)
        return None if CUSTOM in names else names

    @property
    def call_seconds(self) -> float:
        """Until a call of any of the tools is given up."""
        return max((tool.spec.call_timeout_seconds for tool in self.tools), default=30)

    def __str__(self) -> str:
        names = [tool.spec.tool if tool.spec.tool != CUSTOM else tool.name for tool in self.tools]
        tools = f"tools {', '.join(names)}" if names else "no tools"
        own = " with a system prompt of its own" if self.system_prompt is not None else ""
        return (
            f"format {self.format}, prompt {self.prompt}{own}, {tools}, "
            f"at most {self.max_rounds} rounds of {self.max_tokens} tokens"
        )


@dataclass(frozen=True)
class Asking:
    """How a model is asked where nothing else is known; each attribute is one of `Trained`."""

    format: str = "openthinkimg"
    prompt: Literal["full", "compact"] = "full"
    system_prompt: str | None = None
    max_rounds: int = 6
    max_tokens: int = 512
    max_context: int = 32_768
    max_seconds: float = 600.0


def asking(trained: Trained | None, **given: Any) -> Asking:
    """How to ask a model: as was `given`, where that is None as it was trained, else as `Asking` says."""
    known = trained or Asking()
    chosen = {name: given.get(name) for name in Asking.__dataclass_fields__}
    return Asking(**{name: getattr(known, name) if value is None else value for name, value in chosen.items()})


def trained_with_tools(job: ToolRLJob, stage: str) -> bool:
    """Whether a job's model has learned to call tools; its base is offered them."""
    return bool(job.spec.tools) if stage == BASE else job.spec.stage(stage).trains_with_tools


def trained_by(manifest: Manifest, job: ToolRLJob, stage: str) -> Trained:
    """What a stage of a job trains a model for."""
    agent, model = job.spec.agent, job.spec.model
    return Trained(
        job=job.name,
        stage=stage,
        format=agent.format,
        prompt=agent.prompt,
        system_prompt=agent.system_prompt,
        max_rounds=agent.max_rounds,
        max_tokens=agent.max_tokens_per_turn,
        max_context=agent.max_tokens,
        max_seconds=agent.max_seconds_per_trajectory,
        min_pixels=model.min_pixels,
        max_pixels=model.max_pixels,
        thinking=model.thinks,
        tools=tuple(manifest.tools_of(job)) if trained_with_tools(job, stage) else (),
    )


def read_trained(folder: Path) -> Trained | None:
    """From a model's folder; None if there is no such file.

    Raises:
        UserError: the file is broken.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Trained.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", str(path)) from error


def write_trained(folder: Path, trained: Trained) -> None:
    document = trained.model_dump(mode="json", by_alias=True, exclude_none=True)
    (folder / FILE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

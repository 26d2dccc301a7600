"""The log of a training, `log.jsonl`: one JSON object per step."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from thinkimg import jsonl
from thinkimg.errors import UserError
from thinkimg.jsonfile import Figure, reasons


class LogLine(BaseModel):
    """A step of a training, a line of `log.jsonl`. Numbers that only a later version logs are kept."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    step: int
    loss: Figure = None
    seconds: Figure = None


class SFTLine(LogLine):
    """A logged step of SFT (every tenth)."""

    total_steps: int | None = None
    token_accuracy: Figure = None
    """Share of learned tokens that the model ranks first."""
    seconds: Figure = None
    """Since the training began, pauses between attempts left out."""


class GRPOLine(LogLine):
    """A step of GRPO. Shares and means are over the step's trajectories without the masked ones, on rank 0."""

    reward: Figure
    """Mean of the total reward."""
    accuracy: Figure = None
    """Share of judged answers that are right."""
    tool_calls: Figure = None
    """Per trajectory."""
    tools: dict[str, Figure] = Field(default_factory=dict)
    """Tool to calls per trajectory."""
    chains: dict[str, Figure] = Field(default_factory=dict)
    """Sequence of tools (`OCR>Point`, `none`) to its share of trajectories."""
    errors: dict[str, int] = Field(default_factory=dict)
    """Mistakes of the model by kind."""
    masked: int = 0
    """Trajectories without loss."""
    masked_by: dict[str, int] = Field(default_factory=dict)
    """The reasons."""
    resampled: int = 0
    """Further attempts at trajectories that the infrastructure failed."""
    unrewarded: int = 0
    """Trajectories to which no reward applied."""
    groups: int | None = None
    """Groups of rollouts of one question; None in logs of earlier versions."""
    lost: int = 0
    """Trajectories that it failed to the last, or that a judge could not score: among the masked."""
    flat: int = 0
    """Groups without two different rewards, before any are replaced: nothing is learnt from them."""
    refilled: int = 0
    """How many of them were replaced."""
    fork_attempts: int = 0
    """Groups whose tool calls were sampled again."""
    forked: int = 0
    """How many of these replaced the first."""
    tokens_generated: int = 0
    """By the model, in all rollouts of the step that were not lost."""
    tokens_trained: int = 0
    """Read by the passes of the loss."""
    entropy: Figure = None
    grad_norm: Figure = None
    seconds: Figure = None
    """Wall time of the step."""
    seconds_rollout: Figure = None
    time_shares: dict[str, Figure] = Field(default_factory=dict)
    """Of the step's time, where it went: `generation`, `tools`, `sync`, `training`."""
    collapse: bool = False
    """Whether this step raised the alarm that tool use collapses."""


AnyLine = SFTLine | GRPOLine


def read_log(path: Path, live: bool = False) -> list[AnyLine]:
    """One line per step, in order. Of a step that was logged twice (after a resume) the later line stayed.

    Args:
        live: pass over what cannot be read, as in a log that is being written.

    Raises:
        UserError: a line that is no step.
    """
    steps: dict[int, AnyLine] = {}
    with path.open("rb") as file:  # ends lines at line feeds only
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                line = _line_of(jsonl.parse(text))
                steps[line.step] = line
            except ValueError as error:
                if not live:
                    said = f"line {number} is not a step's JSON object: {reasons(error)}"
                    raise UserError(said, str(path)) from error
    return [steps[step] for step in sorted(steps)]


def _line_of(record: Any) -> AnyLine:
    return (GRPOLine if isinstance(record, dict) and "reward" in record else SFTLine).model_validate(record)

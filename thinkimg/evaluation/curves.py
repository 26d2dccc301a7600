"""A training's log as columns, which learning curves are drawn from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thinkimg.evaluation.origins import display_name
from thinkimg.training_log import AnyLine, GRPOLine, read_log

Column = list[float | None]
"""A value per step; None where the step did not log it."""


@dataclass(frozen=True)
class Curve:
    """What a stage logged. All columns are as long as `steps`.

    Attributes:
        tools: tool to calls per trajectory, the most used one first.
        chains: sequence of tools to its share of trajectories, the most common one first.
    """

    stage: str
    label: str
    steps: list[int]
    reward: Column
    accuracy: Column
    tool_calls: Column
    loss: Column
    tools: dict[str, list[float]]
    chains: dict[str, list[float]]

    @property
    def learns_by_reward(self) -> bool:
        return any(value is not None for value in self.reward)


def read_curve(log: Path) -> Curve:
    """Of `stages/NAME/log.jsonl`. Raises `UserError`: a line that is no step."""
    lines = read_log(log)
    steps = [line if isinstance(line, GRPOLine) else None for line in lines]
    return Curve(
        stage=log.parent.name,
        label=display_name(log.parent.name),
        steps=[line.step for line in lines],
        reward=[step.reward if step else None for step in steps],
        accuracy=[step.accuracy if step else None for step in steps],
        tool_calls=[step.tool_calls if step else None for step in steps],
        loss=[line.loss for line in lines],
        tools=_columns(lines, "tools"),
        chains=_columns(lines, "chains"),
    )


def _columns(lines: Sequence[AnyLine], field: str) -> dict[str, list[float]]:
    """Names that a step does not mention did not happen in it."""
    values = [getattr(line, field) if isinstance(line, GRPOLine) else {} for line in lines]
    totals: Counter[str] = Counter()
    for step in values:
        totals.update({name: value or 0.0 for name, value in step.items()})
    return {name: [float(step.get(name) or 0.0) for step in values] for name, _ in totals.most_common()}

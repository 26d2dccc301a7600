"""The log of a reinforcement run: one JSON line per optimiser step, whole trajectories of every k-th, and an alarm when
the model stops using its tools."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from thinkimg import jsonl
from thinkimg.errors import InfrastructureError
from thinkimg.trajectory import Trajectory, write_trajectories

TRAJECTORIES_EVERY = 20
"""Whole trajectories of the first and of every so many-th step are kept."""
ALARM_FRACTION = 0.3
"""A warning when the tool rate falls below this share of its start."""

logger = logging.getLogger(__name__)


@dataclass
class StepRecord:
    """What one rank's rollouts of one step gave; `merge` adds another rank's.

    Attributes:
        trajectories: scored ones, that is without the masked.
        rewards: sum of total rewards of these; `correct`: how many of `judged` answers were right.
        tools: calls by tool; chains: trajectories by their sequence of tools, `none` without.
        errors: mistakes of the model by kind; masked: rows without loss, by reason.
        resampled: further attempts at trajectories that the infrastructure failed; those that failed to the last are
            among the masked, as `infrastructure`, and those that a judge could not score as `reward`: both are `lost`.
        groups: of rollouts of one question; flat: those without two different rewards, before any are replaced;
            refilled: how many of them were.
        unrewarded: trajectories to which no reward applied.
        fork_attempts, forked: groups whose tool calls were sampled again, and how many of these replaced the first.
        tokens_generated: by the model, in discarded rollouts too; tokens_trained: read by the passes of the loss.
        seconds_generation, seconds_tools: of the rollouts, with at least one turn being generated, and the rest.
    """

    trajectories: int = 0
    rewards: float = 0.0
    judged: int = 0
    correct: int = 0
    tools: Counter[str] = field(default_factory=Counter)
    chains: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    resampled: int = 0
    unrewarded: int = 0
    groups: int = 0
    flat: int = 0
    refilled: int = 0
    fork_attempts: int = 0
    forked: int = 0
    tokens_generated: int = 0
    tokens_trained: int = 0
    seconds_generation: float = 0.0
    seconds_tools: float = 0.0

    def add(self, trajectory: Trajectory, reward: float | None, masked: str | None) -> None:
        self.resampled += trajectory.meta.get("attempt", 0)
        if masked is not None:
            self.masked[masked] += 1
            return
        names = [result.name for result in trajectory.tool_results]
        self.trajectories += 1
        self.rewards += reward or 0.0
        self.unrewarded += reward is None
        self.judged += trajectory.correct is not None
        self.correct += bool(trajectory.correct)
        self.tools.update(names)
        self.chains[">".join(names) or "none"] += 1
        self.errors.update(result.error for result in trajectory.tool_results if result.error)
        if trajectory.meta.get("malformed"):
            self.errors["malformed_call"] += trajectory.meta["malformed"]

    def merge(self, other: "StepRecord") -> None:
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(mine, Counter):
                mine.update(value)
            else:
                setattr(self, name, mine + value)

    @property
    def lost(self) -> int:
        """Trajectories that the infrastructure failed to the last."""
        return self.masked["infrastructure"] + self.masked["reward"]

    def refuse_remnants(self, step: int) -> None:
        """Raises:
        InfrastructureError: most trajectories of the step were lost. The few that are left are no sample of what the
            model does, and whatever loses so many is not getting better by itself.
        """
        made = self.trajectories + self.masked.total()
        if 2 * self.lost > made:
            raise InfrastructureError(
                f"{self.lost} of {made} trajectories of step {step} were lost to the infrastructure: such a step is "
                "not trained on; look at the tool servers and the engine, and run again to go on"
            )

    @property
    def tool_calls(self) -> float:
        """Calls per trajectory."""
        return self.tools.total() / self.trajectories if self.trajectories else 0.0

    def without_gradient(self) -> str:
        """Why there may be nothing to learn from, in words."""
        rollouts = self.trajectories + self.masked.total()
        reasons = ", ".join(f"{number} {reason}" for reason, number in self.masked.most_common())
        return (
            f"of {rollouts} rollouts {self.masked.total()} were left out{f' ({reasons})' if reasons else ''} and "
            f"{self.unrewarded} had no reward; of {self.groups} groups {self.flat} had no two different rewards"
        )

    def as_json(self) -> dict[str, Any]:
        count = max(self.trajectories, 1)
        return {
            "reward": round(self.rewards / count, 5),
            "accuracy": round(self.correct / self.judged, 5) if self.judged else None,
            "tool_calls": round(self.tool_calls, 4),
            "tools": {name: round(calls / count, 4) for name, calls in sorted(self.tools.items())},
            "chains": {name: round(number / count, 4) for name, number in self.chains.most_common()},
            "errors": dict(sorted(self.errors.items())),
            "masked": self.masked.total(),
            "masked_by": dict(sorted(self.masked.items())),
            "resampled": self.resampled,
            "unrewarded": self.unrewarded,
            "groups": self.groups,
            "lost": self.lost,
            "flat": self.flat,
            "refilled": self.refilled,
            "fork_attempts": self.fork_attempts,
            "forked": self.forked,
            "tokens_generated": self.tokens_generated,
            "tokens_trained": self.tokens_trained,
        }


def busy_seconds(trajectories: Sequence[Trajectory]) -> float:
    """How long at least one of them was being generated: the union of the times of the model's turns. Of a trajectory
    that was tried again only the last attempt is known."""
    spans = []
    for trajectory in trajectories:
        now = float(trajectory.meta.get("start", 0.0))
        for turn in trajectory.turns:
            if turn.role == "assistant":
                spans.append((now, now + turn.seconds))
            now += turn.seconds
    busy, end = 0.0, 0.0
    for begin, finish in sorted(spans):
        busy += max(0.0, finish - max(begin, end))
        end = max(end, finish)
    return busy


class CollapseAlarm:
    """Warns once when the tool rate falls below `fraction` of its start (the mean of the first `steps` steps)."""

    def __init__(self, fraction: float, steps: int = 5) -> None:
        self.fraction = fraction
        self.steps = steps
        self.rates: list[float] = []
        self.raised = False

    def observe(self, step: int, rate: float) -> bool:
        """True when the alarm is raised by this step."""
        self.rates.append(rate)
        if self.raised or len(self.rates) <= self.steps:
            return False
        start = sum(self.rates[: self.steps]) / self.steps
        recent = sum(self.rates[-self.steps :]) / self.steps
        self.raised = start > 0 and recent < self.fraction * start
        if self.raised:
            logger.warning(
                "tool use collapses: %.2f calls per trajectory at step %d, %.2f at the start; "
                "a stronger cold start is the usual remedy",
                recent,
                step,
                start,
            )
        return self.raised


class StepLog(TrainerCallback):
    """Writes `path`, and trajectories under `folder` every `TRAJECTORIES_EVERY`-th step.

    The trainer sets `record` and `trajectories` before the step's update; times are wall seconds.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.alarm = CollapseAlarm(ALARM_FRACTION)
        self.record = StepRecord()
        self.total = StepRecord()
        self.trajectories: Sequence[Trajectory] = ()
        self.seconds_rollout = self.seconds_sync = 0.0
        self._began = 0.0
        self._seconds = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After a resume, steps behind the checkpoint are done again: forget their lines."""
        if state.is_world_process_zero and self.path.exists():
            done = [jsonl.parse(line.text) for line in jsonl.lines(self.path) if line.whole]
            jsonl.write((record for record in done if record["step"] <= state.global_step), self.path)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.monotonic()
        self.seconds_rollout = self.seconds_sync = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._seconds = time.monotonic() - self._began
        if state.global_step % TRAJECTORIES_EVERY == 0 or state.global_step == 1:
            rank = f".rank{args.process_index}" if args.process_index else ""
            write_trajectories(self.trajectories, self.folder / f"step-{state.global_step:06d}{rank}.jsonl")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        line = {
            "step": state.global_step,
            **self.record.as_json(),
            "loss": logs["loss"],
            "entropy": logs.get("entropy"),
            "grad_norm": logs.get("grad_norm"),
            "seconds": round(self._seconds, 4),
            "seconds_rollout": round(self.seconds_rollout, 4),
            "time_shares": self._shares(),
            "collapse": self.alarm.observe(state.global_step, self.record.tool_calls),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        jsonl.append(line, self.path)
        self.record.tokens_generated = 0  # further steps on the same rollouts train, and generate nothing

    def _shares(self) -> dict[str, float]:
        """Of the step's time: where it went. Scoring and refused attempts are the rest of 1."""
        whole = self._seconds or 1.0
        parts = {
            "generation": self.record.seconds_generation,
            "tools": self.record.seconds_tools,
            "sync": self.seconds_sync,
            "training": max(0.0, self._seconds - self.seconds_rollout - self.seconds_sync),
        }
        return {name: round(seconds / whole, 4) for name, seconds in parts.items()}

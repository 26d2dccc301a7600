"""What a run says while it works: bars on a terminal; elsewhere plain lines with the time of day, at least one a
minute, for a log that is read as it grows."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from thinkimg.api import BASE, ToolRLJob
from thinkimg.api.pod_contract import ProgressLine
from thinkimg.figures import duration, percent
from thinkimg.jobs.runner.describe import describe
from thinkimg.jobs.runner.forecast import Forecast, Left, rounded
from thinkimg.results import AnyDone

LONGEST_SILENCE = 50.0
"""Seconds between two lines of a log, at most."""
SHORTEST_PAUSE = 15.0
"""Seconds between two lines that tell no more than further steps."""


@dataclass
class Stage:
    """The stage that runs.

    Attributes:
        began: by the screen's clock.
        first: the step that it begins with: 0, or that of a checkpoint; None until an interrupted one has said how far
            it was.
    """

    name: str
    began: float
    first: int | None = 0
    step: int | None = None
    total: int | None = None
    message: str = ""
    figures: str = ""

    def hear(self, said: ProgressLine) -> None:
        self.message = said.message
        self.figures = figures_in_words(said)
        if said.step is not None:
            self.first = said.step if self.first is None else self.first
            self.step, self.total = said.step, said.total_steps

    @property
    def share(self) -> float | None:
        """Of the steps that this process does."""
        if self.step is None or self.first is None or not self.total or self.total <= self.first:
            return None
        return (self.step - self.first) / (self.total - self.first)

    @property
    def steps(self) -> str:
        return "" if self.step is None else f"{self.step:,} of {self.total:,}" if self.total else f"{self.step:,}"


@dataclass
class Course:
    """Where the run is.

    Attributes:
        to_do: stages that wait, in order.
        count: of all stages, those included that were finished before.
    """

    job: ToolRLJob
    forecast: Forecast
    to_do: list[str]
    count: int
    clock: Callable[[], float] = time.monotonic
    stage: Stage | None = field(default=None)

    def begin(self, name: str, first: int | None) -> None:
        self.stage = Stage(name, self.clock(), first)

    def end(self, done: AnyDone) -> None:
        """Of a stage that went on, and of a base that the cache had, the time says nothing."""
        stage = self.stage
        assert stage is not None
        whole = stage.first == 0 and (stage.name != BASE or stage.step is not None)
        self.forecast.finished(stage.name, done, self.elapsed if whole else None)
        self.to_do.remove(stage.name)
        self.stage = None

    @property
    def number(self) -> int:
        """Of the stage that runs, counted from one."""
        return self.count - len(self.to_do) + 1

    @property
    def elapsed(self) -> float:
        return 0.0 if self.stage is None else self.clock() - self.stage.began

    @property
    def left(self) -> Left:
        return self.forecast.left(self.to_do, self.elapsed, self.stage.share if self.stage else None)


class Screen(Protocol):
    """For one run."""

    def begin(self, name: str, first: int | None) -> None:
        """A stage, from so many steps (see `Stage`)."""

    def hear(self, said: ProgressLine) -> None:
        """What the stage says of its progress."""

    def note(self, text: str) -> None:
        """What is done before the stage's processes start."""

    def end(self, done: AnyDone, outcome: str) -> None:
        """The stage is done, with this in words."""


def screen(console: Console, course: Course) -> AbstractContextManager[Screen]:
    """For this console: bars if it is a terminal, else lines."""
    return Bars(console, course) if console.is_terminal else Lines(console, course)


def announce(console: Console, course: Course) -> None:
    """What will happen, and about how long it takes."""
    names, left = course.to_do, course.left
    told = "" if left.unknown else f", about {rounded(left.seconds)}"
    if told and not course.forecast.took:
        told += " on two quiet cores (the first stages tell how fast this machine is)"
    console.print(f"{len(names)} stage{'s' if len(names) > 1 else ''} to run{told}:", highlight=False, soft_wrap=True)
    width = max(map(len, names))
    for name in names:
        seconds = course.forecast.seconds(name)
        about = "" if seconds is None else f" (about {rounded(seconds)})"
        does = escape(describe(course.job, name))
        console.print(f"  {name:<{width}}  {does}{about}", highlight=False, soft_wrap=True)


_WORDS = {"reward": "reward {:.2f}", "tool_calls": "{:.1f} tool calls", "lost": "{:.0f} lost", "loss": "loss {:.3g}"}


def figures_in_words(said: ProgressLine) -> str:
    """`reward 0.71, 64.0 % right, 1.8 tool calls, loss 0.02`: as names of figures are read by people."""
    words = []
    for name, value in said.figures.items():
        if name == "accuracy":
            words.append(f"{percent(value)} right")
        elif name == "flat":
            words.append(f"{percent(value)} of groups all alike")
        else:
            words.append(_WORDS.get(name, name + " {:.3g}").format(value))
    return ", ".join(words)


# ---- a log ----------------------------------------------------------------------------------------------------------


class Lines:
    """One line for each thing that happens. Steps of a stage are told every quarter of a minute, and where a stage says
    nothing its name and the time that is left are."""

    def __init__(self, console: Console, course: Course) -> None:
        self.console, self.course = console, course
        self._said_at = course.clock()
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._break_silence, daemon=True)

    def __enter__(self) -> "Lines":
        self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._watch.join()

    def begin(self, name: str, first: int | None) -> None:
        with self._lock:
            self.course.begin(name, first)
            self._say(f"{name} begins: stage {self.course.number} of {self.course.count}; {self.course.left}")

    def note(self, text: str) -> None:
        with self._lock:
            assert self.course.stage is not None
            self._say(f"{self.course.stage.name}: {text}")

    def hear(self, said: ProgressLine) -> None:
        with self._lock:
            stage = self.course.stage
            assert stage is not None
            before = stage.message
            stage.hear(said)
            if (said.message and said.message != before) or self._silence >= SHORTEST_PAUSE:
                self._say_where()

    def end(self, done: AnyDone, outcome: str) -> None:
        with self._lock:
            stage, took = self.course.stage, duration(self.course.elapsed, 0)
            assert stage is not None
            self.course.end(done)
            found = f": {outcome}" if outcome else ""
            left = f"; {self.course.left}" if self.course.to_do else ""
            self._say(f"{stage.name} is done after {took}{found}{left}")

    def _say_where(self) -> None:
        stage = self.course.stage
        assert stage is not None
        parts = [stage.message, stage.steps, stage.figures, f"for {duration(self.course.elapsed, 0)}"]
        self._say(f"{stage.name}: {', '.join(filter(None, parts))}; {self.course.left}")

    def _say(self, text: str) -> None:
        self._said_at = self.course.clock()
        self.console.print(f"{datetime.now():%H:%M:%S} {text}", markup=False, highlight=False, soft_wrap=True)

    @property
    def _silence(self) -> float:
        return self.course.clock() - self._said_at

    def break_silence(self) -> None:
        """Say where the run is, if nothing was said for long."""
        with self._lock:
            if self.course.stage is not None and self._silence >= LONGEST_SILENCE:
                self._say_where()

    def _break_silence(self) -> None:
        while not self._ended.wait(1.0):
            self.break_silence()


# ---- a terminal -----------------------------------------------------------------------------------------------------


class Bars:
    """A row for each stage: what it ended with, how far it is, or how long it may take."""

    def __init__(self, console: Console, course: Course) -> None:
        self.course = course
        width = max(map(len, course.to_do), default=0)
        self._progress = Progress(
            TextColumn(f"[bold]{{task.description:<{width}}}"), BarColumn(12), TextColumn("{task.fields[note]}"),
            console=console,
        )  # fmt: skip
        self._rows: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        for name in self.course.to_do:
            self._rows[name] = self._progress.add_task(name, start=False, total=1, note=self._to_come(name))
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, name: str, first: int | None) -> None:
        self.course.begin(name, first)
        self._progress.update(self._rows[name], total=None, note=str(self.course.left))

    def note(self, text: str) -> None:
        assert self.course.stage is not None
        self._progress.update(self._rows[self.course.stage.name], note=escape(text))

    def hear(self, said: ProgressLine) -> None:
        stage = self.course.stage
        assert stage is not None
        stage.hear(said)
        parts = [stage.steps, stage.message, stage.figures, str(self.course.left)]
        self._progress.update(
            self._rows[stage.name], completed=stage.step or 0, total=stage.total,
            note=escape(" · ".join(filter(None, parts))),
        )  # fmt: skip

    def end(self, done: AnyDone, outcome: str) -> None:
        stage, took = self.course.stage, duration(self.course.elapsed, 0)
        assert stage is not None
        self.course.end(done)
        note = f"[green]done[/] in {took}" + (f": {escape(outcome)}" if outcome else "")
        self._progress.update(self._rows[stage.name], total=1, completed=1, note=note)
        for name in self.course.to_do:
            self._progress.update(self._rows[name], note=self._to_come(name))

    def _to_come(self, name: str) -> str:
        seconds = self.course.forecast.seconds(name)
        return "[dim]to come[/]" if seconds is None else f"[dim]about {rounded(seconds)}[/]"

"""Does a model look? The same questions again with changed pictures, and what the model owes to seeing the true ones.

A control changes the pictures of a question: `grey` (a grey one of the same size), `other` (one of another question of
the same kind with another answer, in the same size) or `none` (no picture). Its scope says for whom:

- `question`: the model sees the changed pictures. Tools work on the true ones, so what they return is true.
- `tools`: the model sees the true pictures. Tools work on the changed ones, so text and pictures that they return are
  those of the changed ones.
- `all`: model and tools have the changed ones. Without a picture every call of a tool that names it fails.
"""

import asyncio
import copy
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from PIL import Image as Pillow

from thinkimg.agent.agent import Agent
from thinkimg.agent.tools import Outcome, Tools
from thinkimg.api import Control
from thinkimg.errors import UserError
from thinkimg.evaluation.metrics import normalise_text
from thinkimg.evaluation.numbers import read_number
from thinkimg.image import Image
from thinkimg.message import ImageBlock
from thinkimg.tools.tool import ToolSchema
from thinkimg.trajectory import Task, Trajectory
from thinkimg.trajectory.store import digest_of


def check(control: Control, tools: bool) -> None:
    """Raises `UserError` for a control that cannot be.

    Args:
        tools: whether the model has any.
    """
    if refused := control.refused(tools):
        raise UserError(f"{refused.message}. {refused.remedy}", "--control-scope")


def with_pictures(tasks: Iterable[Task], field: str = "--control") -> Iterator[Task]:
    """The tasks as they come. Behind the last one raises `UserError` if any of them has no picture."""
    blind: dict[str, None] = {}
    for task in tasks:
        if not task.images:
            blind[_question(task)] = None
        yield task
    if blind:
        raise UserError(f"{_named(list(blind))} has no picture that could be changed", field)


class Controlled:
    """Runs an agent on questions under a control.

    Args:
        tasks: all of them, told apart by their names, whichever are asked here: others' pictures are taken from them
            and kept in memory. Of `grey` and `none` they are looked at only (`with_pictures`).
        field: what a refusal names.

    Raises:
        UserError: a question has no picture, or no other question's picture can take its place.
    """

    def __init__(self, control: Control, tasks: Iterable[Task], field: str = "--control") -> None:
        self.control = control
        self._others: dict[str, Task] = {}
        found = with_pictures(tasks, field)
        if control.kind == "other":
            self._others = _others({_question(task): task for task in found}, field)
        else:
            deque(found, maxlen=0)  # looked at, and let go

    async def run(self, agent: Agent, task: Task, seed: int, temperature: float) -> Trajectory:
        """As `Agent.run`. The record holds the pictures as the model has them; of those that it has not (`none`), the
        true ones, in no message. `meta["control"]` names the control and the true pictures."""
        trajectory = agent.start(task)
        true = dict(trajectory.images)
        changed = await asyncio.to_thread(self._changed, task, true)
        trajectory.meta["control"] = {
            "kind": self.control.kind,
            "scope": self.control.scope,
            "pictures": [image.sha256 for image in true.values()],
        }
        if self.control.scope != "tools":
            trajectory.images |= changed
            if self.control.kind == "none":
                _without_pictures(trajectory)
        controlled = copy.copy(agent)
        controlled.tools = _ToolsWith(agent.tools, true if self.control.scope == "question" else changed, tuple(true))
        return await controlled.resume(trajectory, seed, temperature)

    def _changed(self, task: Task, true: Mapping[str, Image]) -> dict[str, Image]:
        """Handle to picture."""
        if self.control.kind == "none":
            return {}
        if self.control.kind == "grey":
            return {handle: _grey(image.width, image.height) for handle, image in true.items()}
        other = self._others[_question(task)].images
        return {handle: _as_large(image, true[handle]) for handle, image in zip(true, other, strict=True)}


class _ToolsWith:
    """Tools that get these pictures for the question's handles, whatever the model sees."""

    def __init__(self, tools: Tools, pictures: Mapping[str, Image], handles: Sequence[str]) -> None:
        self._tools = tools
        self._pictures = pictures
        self._handles = handles

    @property
    def schemas(self) -> Mapping[str, ToolSchema]:
        return self._tools.schemas

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Outcome:
        made = {handle: image for handle, image in images.items() if handle not in self._handles}
        return await self._tools.call(name, arguments, {**self._pictures, **made})


def _without_pictures(trajectory: Trajectory) -> None:
    """Their handles stay taken, so that what tools make has the same names as with pictures."""
    for turn in trajectory.turns:
        turn.message.content = [block for block in turn.message.content if not isinstance(block, ImageBlock)]


def _grey(width: int, height: int) -> Image:
    return Image.from_pixels(Pillow.new("RGB", (width, height), (128, 128, 128)))


def _as_large(image: Image, as_this: Image) -> Image:
    size = (as_this.width, as_this.height)
    return image if (image.width, image.height) == size else Image.from_pixels(image.pixels().resize(size))


# ---- whose picture takes the place of whose -------------------------------------------------------------------------


class _Candidate:
    """A question with what is compared of it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.place = digest_of(task)
        self.group = (str(task.meta.get("kind", "")), len(task.images))
        self.text = (*self.group, task.question)
        self.sizes = [(image.width, image.height) for image in task.images]
        self.pictures = {image.sha256 for image in task.images}
        reference = task.reference or ""
        number = read_number(reference)
        self.number = None if number is None else float(number.value)
        self.words = normalise_text(reference)

    def may_stand_for(self, other: "_Candidate") -> bool:
        """Another picture, and an answer that no scorer takes for the same: of numbers 20 % apart."""
        if self.pictures & other.pictures or self.words == other.words:
            return False
        if self.number is None or other.number is None:
            return True
        return abs(self.number - other.number) > 0.2 * max(abs(self.number), abs(other.number))


def _others(tasks: Mapping[str, Task], field: str) -> dict[str, Task]:
    """For each question one of the same kind whose answer differs: one that asks the same if there is one (then its
    picture is known to answer otherwise), one of the same size if there is one, and of these the next in an order that
    depends on the questions alone."""
    known = {name: _Candidate(task) for name, task in tasks.items()}
    by_text: dict[Any, list[_Candidate]] = defaultdict(list)
    by_group: dict[Any, list[_Candidate]] = defaultdict(list)
    for one in sorted(known.values(), key=lambda candidate: candidate.place):
        by_text[one.text].append(one)
        by_group[one.group].append(one)
    found = {name: _first(one, (by_text[one.text], by_group[one.group])) for name, one in known.items()}
    if without := [name for name, other in found.items() if other is None]:
        raise UserError(
            f"{_named(without)} has no other question of its kind with another picture and another answer, whose "
            "picture could take its place: ask more questions, or change pictures to grey ones",
            field,
        )
    return {name: other.task for name, other in found.items() if other is not None}


def _first(one: _Candidate, groups: Sequence[Sequence[_Candidate]]) -> _Candidate | None:
    for group in groups:
        fitting = (other for other in _from(one, group) if other.sizes == one.sizes and other.may_stand_for(one))
        any_size = (other for other in _from(one, group) if other.may_stand_for(one))
        if (other := next(fitting, None) or next(any_size, None)) is not None:
            return other
    return None


def _from(one: _Candidate, group: Sequence[_Candidate]) -> Iterator[_Candidate]:
    """All of the group, those behind `one` first."""
    start = bisect_right(group, one.place, key=lambda candidate: candidate.place)
    yield from group[start:]
    yield from group[:start]


def _question(task: Task) -> str:
    """The name of it, however often it is asked."""
    return str(task.meta.get("sample_of", task.id))


def _named(names: Sequence[str]) -> str:
    more = f" (and {len(names) - 1:,} more)" if len(names) > 1 else ""
    return f"question {names[0]!r}{more}"

"""The data of a job: questions as tasks, and ready-made trajectories; what is broken is refused before training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from thinkimg import jsonl
from thinkimg.agent.agent import Agent
from thinkimg.api import Data, Dataset, QuestionSet
from thinkimg.data.questions import load_questions
from thinkimg.data.row import CONVERSATION_FIELDS
from thinkimg.data.sharegpt import read_samples
from thinkimg.errors import UserError
from thinkimg.jobs.environment import mounted_path
from thinkimg.synthesis.imported import trajectory_of
from thinkimg.trajectory import Task, Trajectory, read_trajectories

TRAJECTORIES = "cold-start.jsonl"


def source_of(data: Data, split: str) -> QuestionSet | None:
    """Where the questions of a split come from; without validation data, those to train on."""
    return {"train": data.train, "validation": data.validation or data.train, "test": data.test}[split]


def load_tasks(data: Data, split: str, seed: int, folder: Path, count: int | None = None) -> list[Task]:
    """The first `count` questions of a split. Relative paths are below `folder`.

    Raises:
        UserError: there is no such split, its data cannot be read, or has bad rows, which are all named.
    """
    field = f"spec.data.{split}"
    source = source_of(data, split)
    if source is None:
        raise UserError(f"there is no data for {split}", field)
    uri = _uri(source, folder, f"{field}.uri")
    try:
        return load_questions(uri, split, seed, not uri.startswith("charts://"), source.template)[:count]
    except ValueError as error:
        raise UserError(str(error), f"{field}.uri") from error


class UnaskedModel:
    """A model that is never asked: an agent that only words what was said before needs none."""

    async def reply(self, *_: Any) -> Any:
        raise AssertionError("not asked")


def load_trajectories(data: Data, folder: Path, agent: Callable[[], Agent]) -> tuple[list[Trajectory], dict[str, str]]:
    """Ready-made trajectories, and what is wrong with each sample that cannot be used, by name. Conversations are
    worded as that of `agent` would have had them, which is made for conversations only.

    Raises:
        UserError: there are none.
    """
    source, field = data.trajectories or data.train, f"spec.data.{'trajectories' if data.trajectories else 'train'}.uri"
    uri = _uri(source, folder, field)
    try:
        if _are_trajectories(uri):
            return list(read_trajectories(Path(uri))), {}
        conversations, broken = read_samples(uri)
    except (OSError, ValueError) as error:
        raise UserError(
            f"trajectories are needed, as a Synthesize stage writes them, or conversations: {error}", field
        ) from error
    made, speaker = [], agent()
    for conversation in conversations:
        try:
            made.append(trajectory_of(conversation, speaker))
        except ValueError as error:
            broken[conversation.name] = str(error)
    if not made:
        first = next(iter(broken.items()), ("the file", "it is empty"))
        raise UserError(f"no sample of {uri} can be used; {first[0]}: {first[1]}", field)
    return made, broken


def _are_trajectories(uri: str) -> bool:
    """Whether a file is what a Synthesize stage writes, and not conversations as JSON lines."""
    if not uri.endswith(".jsonl") or jsonl.begins_with(Path(uri)) == "[":
        return False
    first = next(jsonl.lines(Path(uri)), None)
    try:
        record = {} if first is None else jsonl.parse(first.text)
    except ValueError:
        return True  # whose reader names the line
    return not isinstance(record, dict) or "turns" in record or not record.keys() & {*CONVERSATION_FIELDS, "prompt"}


def _uri(source: Dataset, folder: Path, field: str) -> str:
    if "://" not in source.uri:
        return str(folder / source.uri)
    if source.uri.startswith("pvc://"):
        return str(mounted_path(source.uri, field))
    if source.revision is None:
        return source.uri
    return f"{source.uri}{'&' if '?' in source.uri else '?'}revision={source.revision}"

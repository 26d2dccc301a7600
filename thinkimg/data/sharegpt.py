"""Conversations as OpenThinkIMG's SFT data has them (ShareGPT): a JSON list, or JSON lines, of

    {"conversations": [{"from": "human", "value": "… <image> …"}, {"from": "gpt", "value": "…"}, …], "images": [path]}

Each `<image>` takes the next picture. LLaVA's `image`, OpenAI's `messages` of `role` and `content`, TRL's `prompt` and
`completion` are read alike (`thinkimg.data.row`). In what is read every sample is checked, and what is wrong with the
broken ones is said by name. What is written suits LLaMA-Factory and ms-swift too; the same text in what a user or a
tool wrote is broken up there, so that it takes no picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from thinkimg.data.messages import Told, are_messages
from thinkimg.data.pictures import PictureReader
from thinkimg.data.row import CONVERSATION_FIELDS, BadRow, Row
from thinkimg.data.rows import read_rows
from thinkimg.image import Image, ImageDecodeError
from thinkimg.message import ImageBlock, Message, TextBlock, ToolResultBlock
from thinkimg.trajectory import PLACEHOLDER, Trajectory, save_images


@dataclass(frozen=True)
class Said:
    """One message: pieces of text and, between them, pictures in order."""

    role: Literal["user", "assistant"]
    parts: tuple[str | Image, ...]

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str)).strip()

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple(part for part in self.parts if isinstance(part, Image))

    def behind(self, mark: str) -> str:
        """The text behind the last `mark`, all of it without one. Where several pictures all stand there, so do their
        placeholders; one picture has no place worth keeping, and none is left of it."""
        whole = "".join(part if isinstance(part, str) else PLACEHOLDER for part in self.parts)
        found = whole.rpartition(mark)[2].strip()
        if found.count(PLACEHOLDER) == len(self.images) > 1:
            return found
        return self.text.rpartition(mark)[2].strip()


@dataclass(frozen=True)
class Conversation:
    """User and assistant in turns, from the user to the assistant; a system message is left out, for a run has its own.
    `name` is the sample's `id`, or its number in the file, from 0."""

    name: str
    messages: tuple[Said, ...]
    answer: str | None = None


def read_samples(uri: str) -> tuple[list[Conversation], dict[str, str]]:
    """The good samples of a data set (`thinkimg.data.rows`), and what is wrong with each of the others, by name.

    Raises:
        ValueError: the URI is wrong, or the data cannot be read.
    """
    return _checked(read_rows(uri, "train"))


def check_samples(samples: Iterable[Any], folder: Path) -> tuple[list[Conversation], dict[str, str]]:
    """As `read_samples`, of samples that are in memory. Paths of pictures are relative to `folder`."""
    pictures = PictureReader(folder)
    return _checked(
        Row(sample, number, f"sample {number}", str(number), pictures)
        if isinstance(sample, dict)
        else BadRow(f"sample {number}", "an object is needed")
        for number, sample in enumerate(samples)
    )


def _checked(rows: Iterable[Row | BadRow]) -> tuple[list[Conversation], dict[str, str]]:
    good: list[Conversation] = []
    broken: dict[str, str] = {}
    for number, row in enumerate(rows):
        given = row.get("id") if isinstance(row, Row) else None
        name = str(given) if isinstance(given, str | int) else str(number)
        if name in broken or any(name == one.name for one in good[-1:]):
            name = f"{name} (sample {number})"
        try:
            good.append(_conversation(row, name))
        except ValueError as error:
            broken[name] = str(error)
    return good, broken


def _conversation(row: Row | BadRow, name: str) -> Conversation:
    if isinstance(row, BadRow):
        raise row
    told, column = _told(row)
    images = row.shown(told, column)
    for position, (message, speaker) in enumerate(zip(told, ["user", "assistant"] * len(told), strict=False)):
        if message.speaker != speaker:
            raise row.bad(f"message {position}: human and gpt must take turns, and human begins", column)
        if message.speaker == "assistant" and message.pictures:
            raise row.bad(f"gpt's message has an {PLACEHOLDER}: a model writes no pictures", column)
    if not told or told[-1].speaker != "assistant":
        raise row.bad("the last message is not gpt's", column)
    for number, image in enumerate(images, start=1):
        try:
            image.pixels()
        except ImageDecodeError as error:
            raise row.bad(f"picture {number}: {error}") from None
    said = tuple(_woven(told, images))
    return Conversation(name, said, row.reference() if row.has_answer else None)


def _told(row: Row) -> tuple[list[Told], str]:
    """The messages of a row, and the column where they are."""
    column = next((name for name in CONVERSATION_FIELDS if are_messages(row.get(name))), "")
    if column:
        return row.messages(column), column
    if are_messages(row.get("prompt")) and are_messages(row.get("completion")):
        return row.messages("prompt") + row.messages("completion"), "prompt"
    raise row.bad("there is no list 'conversations' or 'messages'")


def _woven(told: Sequence[Told], images: Sequence[Image]) -> Iterator[Said]:
    """Texts and pictures in their places; without any, the pictures stand first."""
    following, unplaced = iter(images), not any(one.pictures for one in told)
    for one in told:
        first, *others = one.text.split(PLACEHOLDER)
        parts: list[str | Image] = [*following, first] if unplaced else [first]
        for piece in others:
            parts += [next(following), piece]
        yield Said("assistant" if one.speaker == "assistant" else "user", tuple(part for part in parts if part != ""))


# ---- writing ---------------------------------------------------------------------------------------------------------

_FROM = {"system": "system", "user": "human", "tool": "human", "assistant": "gpt"}


def conversation_of(trajectory: Trajectory) -> dict[str, Any]:
    """One trajectory; pictures by the names that `write_sharegpt` gives them."""
    shown = [f"images/{image.sha256}{image.suffix}" for image in trajectory.ordered_images]
    turns = [{"from": _FROM[turn.role], "value": _value(turn.message)} for turn in trajectory.turns]
    return {"id": trajectory.id, "conversations": turns, "images": shown}


def _value(message: Message) -> str:
    parts = []
    for block in message.content:
        if isinstance(block, ImageBlock):
            parts.append(PLACEHOLDER)
        elif isinstance(block, TextBlock | ToolResultBlock):
            parts.append(block.text.replace(PLACEHOLDER, "< image >"))
    return "".join(parts)


def write_sharegpt(trajectories: Iterable[Trajectory], path: Path) -> int:
    """A JSON list at `path`, pictures beside it in `images/`; returns how many conversations there are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, count = path.with_name(path.name + ".partial"), 0
    with partial.open("w", encoding="utf-8") as file:
        file.write("[")
        for trajectory in trajectories:
            save_images(trajectory.images.values(), path.parent / "images")
            file.write((",\n" if count else "\n") + json.dumps(conversation_of(trajectory), ensure_ascii=False))
            count += 1
        file.write("\n]\n")
    partial.replace(path)
    return count

"""Conversations as OpenThinkIMG's SFT data has them (ShareGPT): a JSON list of

    {"conversations": [{"from": "human", "value": "… <image> …"}, {"from": "gpt", "value": "…"}, …], "images": [path]}

Each `<image>` takes the next picture. In what is read every sample is checked, and what is wrong with the broken ones
is said by name. What is written suits LLaMA-Factory and ms-swift too; the same text in what a user or a tool wrote is
broken up there, so that it takes no picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from thinkimg.data.pictures import PictureReader
from thinkimg.data.rows import BadRow, Row, read_rows, text_of
from thinkimg.image import Image
from thinkimg.message import ImageBlock, Message, TextBlock, ToolResultBlock
from thinkimg.trajectory import Trajectory, save_images

PLACEHOLDER = "<image>"
_SPEAKERS: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}


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


@dataclass(frozen=True)
class Conversation:
    """User and assistant in turns, from the user to the assistant; a system message is left out, for a run has its own.
    `name` is the sample's `id`, or its number in the file, from 0."""

    name: str
    messages: tuple[Said, ...]
    answer: str | None = None


def read_sharegpt(path: Path) -> tuple[list[Conversation], dict[str, str]]:
    """The good samples of a file, and what is wrong with each of the others, by name. Paths of pictures are relative to
    the file's folder.

    Raises:
        ValueError: the file is no JSON list.
    """
    try:
        samples = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read conversations from {path}: {error}") from None
    if not isinstance(samples, list):
        raise ValueError(f"{path}: a JSON list of samples is needed")
    return check_samples(samples, path.parent)


def read_samples(uri: str) -> tuple[list[Conversation], dict[str, str]]:
    """As `read_sharegpt`, of a file, or of a data set with the same columns: `hf://owner/name?config=…&split=train`, a
    folder laid out as the hub's are, a Parquet file.

    Raises:
        ValueError: the URI is wrong, or the data cannot be read.
    """
    if "://" not in uri and not uri.endswith(".parquet") and not Path(uri).is_dir():
        return read_sharegpt(Path(uri))
    return check_samples(read_rows(uri, "train"), Path())


def check_samples(samples: Iterable[Any], folder: Path) -> tuple[list[Conversation], dict[str, str]]:
    """As `read_sharegpt`, of samples that are in memory. Rows of a data set know where their own pictures are."""
    good: list[Conversation] = []
    broken: dict[str, str] = {}
    for number, sample in enumerate(samples):
        given = sample.get("id") if isinstance(sample, dict) else None
        name = str(given) if isinstance(given, str | int) else str(number)
        if name in broken or any(name == one.name for one in good[-1:]):
            name = f"{name} (sample {number})"
        try:
            pictures = sample.reader if isinstance(sample, Row) else PictureReader(folder)
            good.append(_conversation(sample, name, pictures))
        except ValueError as error:
            broken[name] = str(error)
    return good, broken


def _conversation(sample: Any, name: str, pictures: PictureReader) -> Conversation:
    if isinstance(sample, BadRow):
        raise sample
    if not isinstance(sample, dict) or not isinstance(sample.get("conversations"), list):
        raise ValueError("there is no list 'conversations'")
    given = sample.get("images") or []
    if not isinstance(given, list):
        raise ValueError("'images' must be a list")
    texts = list(_texts(sample["conversations"]))
    places = sum(text.count(PLACEHOLDER) for role, text in texts if role != "system")
    if places != len(given):
        raise ValueError(f"{places} times {PLACEHOLDER}, but {len(given)} images")
    images = (_image(image, pictures) for image in given)
    messages = [_said(role, text, images) for role, text in texts if role != "system"]
    wanted = ["user", "assistant"] * (len(messages) // 2 + 1)
    for position, (message, role) in enumerate(zip(messages, wanted, strict=False)):
        if message.role != role:
            raise ValueError(f"message {position}: human and gpt must take turns, and human begins")
    if not messages or messages[-1].role != "assistant":
        raise ValueError("the last message is not gpt's")
    answer = sample.get("label", sample.get("solution"))
    return Conversation(name, tuple(messages), None if answer is None else text_of(answer))


def _texts(turns: list[Any]) -> Iterator[tuple[str, str]]:
    for position, turn in enumerate(turns):
        speaker = turn.get("from", turn.get("role")) if isinstance(turn, dict) else None
        value = turn.get("value", turn.get("content")) if isinstance(turn, dict) else None
        if speaker not in _SPEAKERS:
            raise ValueError(f"message {position}: 'from' must be human or gpt, not {speaker!r}")
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"message {position}: 'value' must be a text")
        yield _SPEAKERS[speaker], value


def _said(role: str, text: str, images: Iterator[Image]) -> Said:
    first, *others = text.split(PLACEHOLDER)
    if role == "assistant" and others:
        raise ValueError(f"gpt's message has an {PLACEHOLDER}: a model writes no pictures")
    parts: list[str | Image] = [first]
    for piece in others:
        parts += [next(images), piece]
    kept = tuple(part for part in parts if part != "")
    return Said("assistant" if role == "assistant" else "user", kept)


def _image(given: Any, pictures: PictureReader) -> Image:
    try:
        image = pictures.read(given)
        image.pixels()
        return image
    except ValueError as error:
        raise ValueError(f"image {given if isinstance(given, str) else ''}: {error}") from None


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

"""Messages as data sets hold them, in one form: LLaVA and ShareGPT (`from`, `value`), OpenAI, TRL and verl (`role`,
`content`, which may be a list of parts), each picture as `<image>` in the text.

    {"from": "human", "value": "<image>\\nWhat is it?"}
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from thinkimg.trajectory import PLACEHOLDER

Speaker = Literal["system", "user", "assistant"]
SPEAKERS: dict[str, Speaker] = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "model": "assistant",
    "assistant": "assistant",
}
_PICTURE = ("image", "image_url", "input_image")
_TEXT = ("text", "input_text", "output_text")


@dataclass(frozen=True)
class Told:
    """One message.

    Attributes:
        text: with `<image>` for each picture.
        pictures: what stands for each of them in the message itself; None: the next one of the row's column.
    """

    speaker: Speaker
    text: str
    pictures: tuple[Any, ...] = ()


def are_messages(value: Any) -> bool:
    """Whether a column holds a conversation and not a text or a list of texts."""
    turns = _listed(value)
    return isinstance(turns, Sequence) and bool(turns) and all(isinstance(one, Mapping) for one in turns)


def _listed(value: Any) -> Any:
    """A list of messages where the `datasets` library has made an object of lists of it, its `Sequence` of objects."""
    if not isinstance(value, Mapping) or not value.keys() & {"value", "content"}:
        return value
    if not all(isinstance(column, list) for column in value.values()):
        return value
    return [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=False)]


def read_messages(turns: Any) -> Iterator[Told]:
    """Raises `ValueError`: a message that is none, with its place, from 0."""
    for position, turn in enumerate(_listed(turns)):
        try:
            yield _read(turn)
        except ValueError as error:
            raise ValueError(f"message {position}: {error}") from None


def _read(turn: Any) -> Told:
    said = turn if isinstance(turn, Mapping) else {}
    key = "from" if said.get("from") is not None else "role"
    speaker, content = said.get(key), said.get("value")
    if content is None:
        content = said.get("content")
    if speaker not in SPEAKERS:
        shown = "human or gpt" if key == "from" or key not in said else "user or assistant"
        raise ValueError(f"{key if key in said else 'from'!r} must be {shown}, not {speaker!r}")
    text, pictures = _joined(content)
    if not text.strip() and SPEAKERS[speaker] != "system":
        raise ValueError("'value' must be a text" if key == "from" else "'content' must be a text, or a list of parts")
    return Told(SPEAKERS[speaker], text, pictures)


def _joined(content: Any) -> tuple[str, tuple[Any, ...]]:
    if isinstance(content, str):
        return content, (None,) * content.count(PLACEHOLDER)
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list | tuple):
        return "", ()
    texts: list[str] = []
    pictures: list[Any] = []
    for part in content:
        text, found = _part(part)
        texts.append(text)
        pictures += found
    return "".join(texts), tuple(pictures)


def _part(part: Any) -> tuple[str, list[Any]]:
    if isinstance(part, str):
        return part, [None] * part.count(PLACEHOLDER)
    if not isinstance(part, Mapping):
        raise ValueError(f"a part of 'content' is an object with 'type', not {part!r:.60}")
    kind = part.get("type")
    if kind in _PICTURE:
        return PLACEHOLDER, [_shown(part)]
    text = part.get("text")
    if kind in _TEXT or (kind is None and isinstance(text, str)):
        if not isinstance(text, str):
            raise ValueError("a part of type 'text' has no text")
        return text, [None] * text.count(PLACEHOLDER)
    raise ValueError(f"a part of type {kind!r}: there are text, image and image_url")


def _shown(part: Mapping[str, Any]) -> Any:
    """What stands for the picture in the part itself, if anything does."""
    for name in ("image", "image_url", "url", "path", "base64"):
        value = part.get(name)
        if isinstance(value, Mapping) and value.get("url") is not None:
            return value["url"]
        if value not in (None, "", {}):
            return value
    return None

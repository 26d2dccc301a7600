"""One row of a data set, whoever laid it out: its question, its answer and its pictures under their usual names.

question, query, problem                a text, in which `<image>` is the next picture
prompt, messages, conversations         the same as messages (TRL, verl, LLaVA, ShareGPT: `thinkimg.data.messages`)
answer, label, solution, ground_truth   a text, a number, or a list of such; `reward_model.ground_truth` (verl),
                                        `completion` (TRL), or what the model says at the end of a conversation
image, image_path, images, image_1 …    a picture, or a list of pictures
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image as Pillow

from thinkimg.data.messages import Told, are_messages, read_messages
from thinkimg.data.pictures import PictureReader
from thinkimg.image import Image
from thinkimg.trajectory import NOTED, PLACEHOLDER

CONVERSATION_FIELDS = ("conversations", "messages", "conversation")
QUESTION_FIELDS = ("question", "query", "problem", "prompt", *CONVERSATION_FIELDS)
ANSWER_FIELDS = ("answer", "label", "solution", "ground_truth", "reward_model", "completion")
IMAGE_FIELDS = ("image", "image_path", "images")
_NUMBERED = re.compile(r"(?:image|image_path)_?([0-9]{1,3})")
ROLES = {"question": QUESTION_FIELDS, "answer": ANSWER_FIELDS, "image": IMAGE_FIELDS}
_EMPTY: tuple[Any, ...] = (None, "", [], {})


class BadRow(ValueError):
    """What is wrong with one row.

    Attributes:
        place: `line 3`, `row 17`.
    """

    def __init__(self, place: str, reason: str, column: str | None = None) -> None:
        super().__init__(f"{place}, column {column}: {reason}" if column else f"{place}: {reason}")
        self.place = place


class Row(dict[str, Any]):
    """One record of a data set, by the names of its columns.

    Attributes:
        number: its place in the data set, from 0.
        place: what messages call it: `line 3`.
        name: the id of its question where it has none of its own.
        reader: makes pictures of what stands in it.
    """

    def __init__(self, values: Mapping[str, Any], number: int, place: str, name: str, pictures: PictureReader) -> None:
        super().__init__(values)
        self.number = number
        self.place = place
        self.name = name
        self.reader = pictures
        self._called: Mapping[str, str] = {}

    def __missing__(self, name: str) -> Any:
        raise BadRow(self.place, f"no {name!r}; there are {', '.join(self)}")

    def renamed(self, names: Mapping[str, str]) -> "Row":
        """With the columns that a URI names under the usual names, in place of what else would be taken for them.

        Args:
            names: of `question`, `answer`, `image`, those that are called otherwise.
        """
        chosen = {role: self[column] for role, column in names.items()}
        for role in names:
            for usual in ROLES[role]:
                self.pop(usual, None)
            if role == "image":
                for column in [column for column in self if _NUMBERED.fullmatch(column)]:
                    del self[column]
        self.update(chosen)
        self._called = names
        return self

    def first(self, *names: str) -> Any:
        """The first of these columns that is there and not empty."""
        return self[self._find(names)]

    def text(self, *names: str) -> str:
        """The first of these columns that is there and not empty, as a text: a number, a truth value, or of a list of
        such (several right answers) the first, which is the canonical one."""
        name = self._find(names)
        try:
            return text_of(self[name])
        except ValueError as error:
            raise self.bad(str(error), name) from None

    def pictures(self, *names: str) -> tuple[Image, ...]:
        """The pictures in the first of these columns that is there, in order.

        Without names those of the row: `image` or `image_path`, then `images`, then `image_1`, `image_2` …; what is
        also in a later one of these columns counts there.
        """
        if names:
            return self._pictures_in(self._find(names))
        single = next((name for name in IMAGE_FIELDS[:2] if self.get(name) not in _EMPTY), None)
        numbered = sorted((int(found[1]), name) for name in self if (found := _NUMBERED.fullmatch(name)))
        others = [name for name in ("images", *(name for _, name in numbered)) if self.get(name) not in _EMPTY]
        if single is None and not others:
            self._find(IMAGE_FIELDS)
        further = [image for name in others for image in self._pictures_in(name)]
        first = self._pictures_in(single) if single else ()
        known = {image.sha256 for image in further}
        return tuple(further) if all(image.sha256 in known for image in first) else (*first, *further)

    # ---- what it asks -----------------------------------------------------------------------------------------------

    def question(self) -> tuple[Told, str]:
        """What is asked, and the column where it stands. `shown` finds its pictures."""
        name = self._find(QUESTION_FIELDS)
        if are_messages(self[name]):
            return self._exchange(name)[0], name
        if isinstance(self[name], list):
            raise self.bad("a question is one text", name)
        return Told("user", self.text(name)), name

    def answer(self) -> Any:
        """The right answer as the row has it: a text, a number, or several that are right."""
        if self._answered_in is not None:
            return self._answer_in(self._answered_in)
        asked = next((name for name in QUESTION_FIELDS if self.get(name) not in _EMPTY), None)
        if asked is not None and are_messages(self[asked]):
            _, *answered = self._exchange(asked)
            if answered:
                return answered[0].text
        return self[self._find(ANSWER_FIELDS[:3])]

    def reference(self) -> str:
        """The right answer as a text; of several the first, which is the canonical one."""
        value = self.answer()
        try:
            return text_of(value)
        except ValueError as error:
            raise self.bad(str(error), self._answered_in) from None

    def messages(self, name: str) -> list[Told]:
        """The conversation in a column, without the system's part: a run has its own."""
        try:
            return [told for told in read_messages(self[name]) if told.speaker != "system"]
        except ValueError as error:
            raise self.bad(str(error), name) from None

    def shown(self, told: Sequence[Told], name: str) -> tuple[Image, ...]:
        """The pictures of these messages, in order: each from its own place, or the next one of the row's columns.
        Those of the columns stand before the text if no message says where."""
        places = [place for one in told for place in one.pictures]
        given = self.pictures() if self._has_pictures else ()
        if (needed := places.count(None)) and needed != len(given):
            raise self.bad(f"{needed} times {PLACEHOLDER}, but {len(given)} images", name)
        following = iter(given)
        return tuple(next(following) if one is None else self._picture(one, name) for one in places) or given

    def _exchange(self, name: str) -> list[Told]:
        told = self.messages(name)
        if [one.speaker for one in told] not in (["user"], ["user", "assistant"]):
            asked = sum(one.speaker == "user" for one in told)
            raise self.bad(
                f"one question is needed, and its answer if it is there: these are {len(told)} messages, "
                f"{asked} of them the user's",
                name,
            )
        return told

    @property
    def has_answer(self) -> bool:
        """Whether a column says what is right, besides a conversation."""
        return self._answered_in not in (None, "completion")

    @property
    def _answered_in(self) -> str | None:
        """The column that holds nothing but the answer."""
        return next((name for name in ANSWER_FIELDS if self._answer_in(name) not in _EMPTY), None)

    def _answer_in(self, name: str) -> Any:
        value = self.get(name)
        if name == "reward_model":
            return value.get("ground_truth") if isinstance(value, Mapping) else None
        if name == "completion" and are_messages(value):
            return "".join(told.text for told in self.messages(name))
        return value

    @property
    def _has_pictures(self) -> bool:
        return any(
            value not in _EMPTY for name, value in self.items() if name in IMAGE_FIELDS or _NUMBERED.fullmatch(name)
        )

    def picture(self, *names: str) -> bytes:
        """The encoded picture in the first of these columns that is there: a picture of a hub data set, bytes, base64,
        or a path beside the file."""
        return self.pictures(*(names or IMAGE_FIELDS))[0].data

    def columns(self) -> dict[str, Any]:
        """All that the row says besides its pictures and its question, as JSON has it: what stands in `meta` under its
        own name, and the answer, with all that are right, as `answer`. A name that ThinkIMG notes something under
        itself (`NOTED`) is given as `column_NAME`."""
        meta = self.get("meta") or {}
        if not isinstance(meta, dict):
            raise self.bad("meta must be an object", "meta")
        used = {self._find(QUESTION_FIELDS), self._answered_in, "meta", *IMAGE_FIELDS}
        found = {name: value for name, value in self.items() if name not in used and not _NUMBERED.fullmatch(name)}
        said = {name: as_json(value) for name, value in (meta | found | {"answer": self.answer()}).items()}
        plain = {name: value for name, value in said.items() if value is not _NONE}
        return {f"column_{name}" if name in NOTED else name: value for name, value in plain.items()}

    def bad(self, reason: str, column: str | None = None) -> BadRow:
        """To be raised: what is wrong with this row."""
        return BadRow(self.place, reason, self._called.get(column, column) if column else None)

    def _find(self, names: tuple[str, ...]) -> str:
        for name in names:
            if self.get(name) not in _EMPTY:
                return name
        empty = [name for name in names if name in self]
        if empty:
            raise self.bad("it is empty", empty[0])
        raise self.bad(f"no {' or '.join(names)}; there are {', '.join(self)}")

    def _pictures_in(self, name: str) -> tuple[Image, ...]:
        value = self[name]
        several = value if isinstance(value, list | tuple) else [value]
        return tuple(self._picture(one, name, number, len(several)) for number, one in enumerate(several, start=1))

    def _picture(self, value: Any, name: str, number: int = 1, count: int = 1) -> Image:
        try:
            return self.reader.read(value)
        except ValueError as error:
            raise self.bad(f"picture {number}: {error}" if count > 1 else str(error), name) from None


_NONE = object()


def as_json(value: Any) -> Any:
    """What a row says as JSON can say it: times and the like as text, numbers that are not finite as null. `_NONE` for
    bytes and pictures, which are left out of lists and objects too."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bytes | bytearray | memoryview | Image | Pillow.Image):
        return _NONE
    if isinstance(value, Mapping) and value.keys() == {"bytes", "path"}:  # as `datasets` has a picture
        return _NONE
    if isinstance(value, Mapping):
        inner = {str(name): as_json(one) for name, one in value.items()}
        return {name: one for name, one in inner.items() if one is not _NONE}
    if isinstance(value, list | tuple):
        return [one for one in map(as_json, value) if one is not _NONE]
    return str(value)


def text_of(value: Any) -> str:
    """A text, number or truth value as a text; of a list of such the first. Raises `ValueError`: it is something else,
    empty, or no number."""
    texts = [_text(one) for one in (value if isinstance(value, list | tuple) and value else [value])]
    return texts[0]


def _text(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no answer")
    if not isinstance(value, str | int | float):
        raise ValueError(f"it must be a text or a number, or a list of them, not {json.dumps(value, default=str)[:60]}")
    text = str(value)
    if not text.strip():
        raise ValueError("it is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is no text") from None
    return text

"""JSON lines: one JSON value per line, and a line ends at a line feed, nowhere else.

`str.splitlines` and text files also end lines at characters that JSON text may hold (U+2028, U+2029, U+0085, carriage
returns), so every reader and writer of such files goes through here. It reads UTF-8 with or without byte order marks
(in the middle, too, of files that were put together), CRLF, blank lines, a last line without an end, and NaN as Python
writes it; UTF-16 and UTF-32 are refused by name. It escapes what it writes of the characters above and of halves of
surrogate pairs, so that programs that split otherwise read it too.
"""

import codecs
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

_ESCAPED = re.compile("[\x80-\x9f\u2028\u2029\ud800-\udfff\ufeff]")


class Line(NamedTuple):
    """A line that is not blank.

    Attributes:
        number: from 1.
        text: without its end.
        whole: whether it had an end; the last line of a file that is being written may have none.
    """

    number: int
    text: str
    whole: bool


class BadLine(ValueError):
    """A line that is no JSON: file, number and reason."""

    def __init__(self, path: Path, number: int, reason: object) -> None:
        super().__init__(f"{path}, line {number}: not JSON: {reason}")


def lines(path: Path) -> Iterator[Line]:
    """The lines of a file, one after another, unparsed.

    Raises:
        OSError: the file cannot be read.
        BadLine: a line is not UTF-8; what it is, where that can be seen.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                text = decoded(raw) if number == 1 else raw.decode("utf-8-sig")
            except ValueError as error:
                raise BadLine(path, number, error) from None
            if text.strip():
                yield Line(number, text.rstrip("\r\n"), text.endswith("\n"))


_OTHER_MARKS = {  # the longer ones first: one begins as a shorter one does
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def decoded(raw: bytes) -> str:
    """Text of UTF-8, without a byte order mark. Raises `ValueError`: it is something else, which is named."""
    other = next((name for mark, name in _OTHER_MARKS.items() if raw.startswith(mark)), None)
    if other is None and b"\0" in raw[:4]:
        other = "UTF-16"  # a character of ASCII beside a zero
    if other is not None:
        raise ValueError(f"it is {other}, and UTF-8 is needed: convert it with `iconv -f {other} -t UTF-8`")
    return raw.decode("utf-8-sig")


def begins_with(path: Path) -> str:
    """The first character of a file that is no white space; empty if there is none. Raises as `decoded`, and
    `OSError`."""
    with path.open("rb") as file:
        for raw in file:
            if text := decoded(raw).strip():
                return text[0]
    return ""


def parse(line: str | bytes) -> Any:
    """The value of one line. Raises `ValueError`: it is no JSON, or nested too deeply."""
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read(path: Path) -> Iterator[Any]:
    """The values of a file, one after another.

    Raises:
        OSError: the file cannot be read.
        BadLine: a line is no JSON.
    """
    for line in lines(path):
        try:
            yield parse(line.text)
        except ValueError as error:
            raise BadLine(path, line.number, error) from None


def line_of(value: Any) -> str:
    """A value as a line, with its end; see `text_of`."""
    return as_line(text_of(value, ensure_ascii=False))


def text_of(value: Any, **options: Any) -> str:
    """A value as JSON; a number that is not finite, for which JSON has no word, as null.

    Args:
        options: of `json.dumps`.
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(value), **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def as_line(text: str) -> str:
    """JSON text without line feeds as a line, with its end."""
    return text + "\n" if text.isascii() else _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def write(values: Iterable[Any], path: Path) -> None:
    """Write a file; a reader sees the old one or the new one, never half of it."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        for value in values:
            file.write(line_of(value))
    partial.replace(path)


def append(value: Any, path: Path) -> None:
    """Add a line to a file, which is made if there is none. On a full disk the file stays as it was."""
    line = line_of(value).encode()
    with path.open("ab", buffering=0) as file:
        end, written = file.seek(0, os.SEEK_END), 0
        try:
            while written < len(line):
                written += file.write(line[written:])
        except BaseException:
            file.truncate(end)
            raise

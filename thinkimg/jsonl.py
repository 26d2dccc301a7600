"""JSON lines: one JSON value per line, and a line ends at a line feed, nowhere else.

`str.splitlines` and text files also end lines at characters that JSON text may hold (U+2028, U+2029, U+0085, carriage
returns), so every reader and writer of such files goes through here. It reads UTF-8 with or without a byte order mark,
CRLF, blank lines, a last line without an end, and NaN as Python writes it. It escapes what it writes of the characters
above and of halves of surrogate pairs, so that programs that split otherwise read it too.
"""

import json
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
        BadLine: a line is not UTF-8.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise BadLine(path, number, error) from None
            if text.strip():
                yield Line(number, text.rstrip("\r\n"), text.endswith("\n"))


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
    """A value as a line, with its end."""
    return as_line(json.dumps(value, ensure_ascii=False))


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
    """Add a line to a file, which is made if there is none."""
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(line_of(value))

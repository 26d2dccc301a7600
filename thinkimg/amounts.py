"""How much is in a request's body, found before it is parsed: a list that takes one byte on the wire takes fifty-six in
memory, and a text four times its bytes. Pictures are long strings without either, and are bounded by others."""

import re
from collections.abc import Iterator

MOST_VALUES = 100_000
"""Values in one body, lists, mappings and keys counted too."""
MOST_TEXT_BYTES = 2 * 1024 * 1024
"""Of a body, all but its pictures: strings of plain ASCII longer than `LONG_BYTES`, and bytes."""
LONG_BYTES = 4096
SMALL_BYTES = 64 * 1024
"""Bodies up to this are not looked at: whatever they hold, it is little."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


class TooMuch(ValueError):
    """There is more in a body than is taken; the message says how much is."""


def check_json(body: bytes) -> None:
    """Raises `TooMuch`. What is no JSON may pass: its parser refuses it."""
    if len(body) <= SMALL_BYTES:
        return
    if sum(map(body.count, (b",", b":", b"[", b"{"))) > MOST_VALUES:
        raise _too_many()
    pictures = 0
    for number, (start, end) in enumerate(_strings(body)):
        if number > MOST_VALUES:
            raise _too_many()
        if end - start > LONG_BYTES and _is_plain(body, start, end, b"\\u"):
            pictures += end - start
    _check_text(len(body) - pictures)


def _strings(body: bytes) -> Iterator[tuple[int, int]]:
    start = body.find(b'"')
    while start >= 0 and (found := _STRING.match(body, start)):
        yield start, found.end()
        start = body.find(b'"', found.end())


def _is_plain(body: bytes, start: int, end: int, escape: bytes = b"") -> bool:
    """Whether a part of the body is ASCII, and holds no escape of other letters. Looked at in pieces, not copied."""
    for at in range(start, end, SMALL_BYTES):
        piece = body[at : min(at + SMALL_BYTES + 1, end)]  # one more: an escape may lie across the edge
        if not piece.isascii() or (escape and escape in piece):
            return False
    return True


_FIXED = {
    0xCA: 4,
    0xCB: 8,
    0xCC: 1,
    0xCD: 2,
    0xCE: 4,
    0xCF: 8,
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
    0xD4: 2,
    0xD5: 3,
    0xD6: 5,
    0xD7: 9,
    0xD8: 17,
}
"""Type of a msgpack number, or of an extension of fixed size -> bytes behind it."""
_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_BYTES, _TEXT = {0xC4: 1, 0xC5: 2, 0xC6: 4}, {0xD9: 1, 0xDA: 2, 0xDB: 4}
_CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Type -> bytes of the length behind it; of lists and mappings also how many values a member is."""


def check_msgpack(body: bytes) -> None:
    """Raises `TooMuch`. What is no msgpack may pass: its parser refuses it."""
    if len(body) <= SMALL_BYTES:
        return
    at = values = pictures = 0
    promised = 1
    while at < len(body):
        values += 1
        if max(values, promised) > MOST_VALUES:
            raise _too_many()
        kind, at = body[at], at + 1
        if kind in _FIXED:
            at += _FIXED[kind]
        elif kind in _BYTES or kind in _TEXT:
            size, at = _length(body, at, _BYTES.get(kind) or _TEXT[kind])
            if kind in _BYTES or (size > LONG_BYTES and _is_plain(body, at, min(at + size, len(body)))):
                pictures += size
            at += size
        elif kind in _EXTENSIONS:
            size, at = _length(body, at, _EXTENSIONS[kind])
            at += size + 1
        elif kind in _CONTAINERS:
            width, each = _CONTAINERS[kind]
            size, at = _length(body, at, width)
            promised += size * each
        elif 0x80 <= kind <= 0x9F:
            promised += (kind & 0x0F) * (1 if kind & 0x10 else 2)
        elif 0xA0 <= kind <= 0xBF:
            at += kind & 0x1F
    _check_text(len(body) - pictures)


def _length(body: bytes, at: int, width: int) -> tuple[int, int]:
    return int.from_bytes(body[at : at + width], "big"), at + width


def _check_text(size: int) -> None:
    if size > MOST_TEXT_BYTES:
        said = f"the body has {size:,} bytes beside its pictures; at most {MOST_TEXT_BYTES:,} are taken"
        raise TooMuch(f"{said}. Pictures are base64 (JSON) or bytes (msgpack)")


def _too_many() -> TooMuch:
    return TooMuch(f"the body has more than {MOST_VALUES:,} values (members of lists and mappings)")

"""Which thing in a picture does a description mean? Words, positions and ordinals, without a language model."""

import difflib
import re
from collections.abc import Sequence

from thinkimg.tools.vision.geometry import Box
from thinkimg.tools.vision.layout import centre


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


_FILLERS = frozenset(
    words(
        "the a an of in on at for with to that which is its it and called named titled title labelled labeled label one"
        "\nsub plot plots subplot subplots subfigure figure fig panel panels chart charts graph image picture diagram"
    )
)
_LEFT, _RIGHT = frozenset({"left", "leftmost"}), frozenset({"right", "rightmost"})
_TOP, _BOTTOM = frozenset({"top", "upper", "topmost", "above"}), frozenset({"bottom", "lower", "below", "bottommost"})
_MIDDLE = frozenset({"middle", "center", "centre", "central"})
_ORDINALS = {
    word: number
    for number, words in enumerate(
        (
            "first 1st",
            "second 2nd",
            "third 3rd",
            "fourth 4th",
            "fifth 5th",
            "sixth 6th",
            "seventh 7th",
            "eighth 8th",
            "ninth 9th",
        )
    )
    for word in words.split()
}
PLACES = frozenset(_ORDINALS) | _LEFT | _RIGHT | _TOP | _BOTTOM | _MIDDLE | {"last"}
_LOOK_ALIKES = str.maketrans("0158", "olsb")
_CELL = re.compile(r"\brow\s*(\d)\b.*\bcol(?:umn)?\s*(\d)\b")
_SAME = 0.8  # similarity from which a misread word counts as the same


def key_words(text: str) -> list[str]:
    """The words that carry meaning; all of them if none does. The A of `Tank A` does, that of `a tank` does not."""
    said = words(text)
    named_a = len(said) > 1 and said[-1] == "a" and said[-2] not in _FILLERS
    return [word for word in said if word not in _FILLERS] + ["a"] * named_a or said


def similarity(description: str, text: str) -> float:
    """0 to 1: how much `description` speaks of something that is written as `text`; 1 when their words are the same."""
    wanted, written = key_words(description), words(text)
    if not wanted or not written:
        return 0.0
    if wanted == written or description.casefold().strip() == text.casefold().strip():
        return 1.0
    ratio = difflib.SequenceMatcher(None, " ".join(wanted), " ".join(written)).ratio()
    if _signs(wanted) != _signs(key_words(text)):
        ratio = 0.0
    return max(ratio, 0.98 * _covered(written, wanted), 0.9 * _covered(wanted, written))


def _signs(said: Sequence[str]) -> list[str]:
    """The words that are no misreading of each other, however alike: numbers, and names of one or two letters."""
    named = (word for word in said if word not in _FILLERS or word == "a")
    return [word.translate(_LOOK_ALIKES) for word in named if _is_sign(word)]


def _is_sign(word: str) -> bool:
    return len(word) <= 2 or 2 * sum(map(str.isdigit, word)) > len(word)


def explained(said: Sequence[str], texts: Sequence[str]) -> bool:
    """Whether each of these words, places and fillers left out, is in one of the texts, small misreadings forgiven."""
    written = [word for text in texts for word in words(text)]
    together = "".join(written)
    left = [word for word in key_words(" ".join(said)) if word not in PLACES | _FILLERS or word == "a"]
    return all(_is_in(word, written) or (len(word) > 2 and word in together) for word in left)


def _is_in(word: str, written: Sequence[str]) -> bool:
    if _is_sign(word):
        return word.translate(_LOOK_ALIKES) in [other.translate(_LOOK_ALIKES) for other in written]
    return bool(difflib.get_close_matches(word, written, 1, _SAME))


def _covered(needed: Sequence[str], among: Sequence[str]) -> float:
    """Share of `needed`, by letters, that `among` holds, small misreadings forgiven; 0 unless most of it is there."""
    if not set(_signs(needed)) <= set(_signs(among)):
        return 0.0
    total = sum(map(len, needed))
    found = sum(len(word) for word in needed if difflib.get_close_matches(word, among, 1, _SAME))
    return found / total if found >= 0.7 * total else 0.0


def best_texts(description: str, texts: Sequence[str]) -> list[int]:
    """Indices of the texts that match best and equally well; empty if none is similar enough."""
    scores = [similarity(description, text) for text in texts]
    best = max(scores, default=0.0)
    return [index for index, score in enumerate(scores) if score == best] if best >= _SAME else []


def by_position(description: str, boxes: Sequence[Box], size: tuple[int, int]) -> list[int]:
    """Indices of the boxes (in reading order) that `description` names: `top left`, `second`, `last`, `panel b`."""
    said = set(words(description))
    if cell := _CELL.search(description.casefold()):
        rows = _rows(boxes)
        row, column = int(cell[1]) - 1, int(cell[2]) - 1
        return [rows[row][column]] if row < len(rows) and column < len(rows[row]) else []
    if ordinal := _ordinal(description, len(boxes)):
        return [ordinal - 1] if ordinal <= len(boxes) else []
    chosen = list(range(len(boxes)))
    named = False
    for axis, low, high in ((0, _LEFT, _RIGHT), (1, _TOP, _BOTTOM)):
        places = [centre(box)[axis] / size[axis] for box in boxes]
        if not said & (low | high | _MIDDLE):
            continue
        named = True
        if max(places) - min(places) > 0.2:
            wanted = min(places) if said & low else max(places) if said & high else 0.5
            chosen = [index for index in chosen if abs(places[index] - wanted) < 0.15]
    return chosen if named else []


def _rows(boxes: Sequence[Box]) -> list[list[int]]:
    """Indices of boxes that come in reading order, row by row: a new row begins where the next box is not further
    right."""
    rows: list[list[int]] = []
    for index, box in enumerate(boxes):
        if rows and centre(box)[0] > centre(boxes[rows[-1][-1]])[0] and centre(box)[1] < boxes[rows[-1][-1]][3]:
            rows[-1].append(index)
        else:
            rows.append([index])
    return rows


def _ordinal(description: str, count: int) -> int:
    """1 for `first`, `count` for `last`, n for `subplot n`, `(b)` counts letters; 0 if there is none."""
    said = words(description)
    for word in said:
        if word in _ORDINALS:
            return _ORDINALS[word] + 1
        if word == "last":
            return count
    if match := re.search(
        r"(?:plot|panel|figure|chart|graph|^)\s*\(?(?:no\.?\s*|#\s*)?(\d|[a-i])\)?\s*$", description.casefold()
    ):
        return int(match[1]) if match[1].isdigit() else ord(match[1]) - ord("a") + 1
    return 0

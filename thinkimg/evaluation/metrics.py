"""Is an answer right, whatever its form? No fuzzy matching: "decrease" is never "increase"."""

import re
from fractions import Fraction

from thinkimg.evaluation.dates import read_dates
from thinkimg.evaluation.numbers import read_number
from thinkimg.evaluation.texts import last_box, one_way, said, unmarked

FIVE_PERCENT = Fraction(5, 100)

_AROUND = " \t\n.,;:!?\"'`*_()[]{}"
_ARTICLE = re.compile(r"^(?:an?|the) (?=\S)")
_DECLARED = re.compile(r"\banswer(?:\s+(?:is|would\s+be|should\s+be)|\s*[:=])\s*:?\s*(?:\n\s*)?([^\n]+)", re.IGNORECASE)
_REASON = re.compile(r"\.(?:\s|$)|;\s|,?\s+(?:since|because|as)\b")


def relaxed_match(prediction: str | None, reference: str) -> bool:
    """Whether `prediction` is the answer `reference`.

    Two numbers agree within 5 % of the reference: the relaxed accuracy of ChartQA (Masry et al., 2022, section 5.1,
    after Methani et al., 2020). Years are numbers like any other. Other answers must be the same text, date or list.

    Only form is forgiven beyond the published rule: notations of a number, a unit that one of the two leaves out,
    thousands separators, a reference of zero (`0.0` is `0`), case, quotes, punctuation, white space, a leading article,
    thinking, and words before "the answer is …" or a box. No answer (`None`) is wrong.
    """
    given = [] if prediction is None else candidates(prediction)
    return any(_same(candidate, reference, FIVE_PERCENT) for candidate in given)


def exact_match(answer: str, reference: str) -> bool:
    """The same text but for its form, or a number of the same value; no words around it."""
    spoken = said(answer)
    return spoken is not None and _same(spoken, reference, Fraction(0))


def candidates(answer: str) -> list[str]:
    """The answer without its thinking, and what it declares to be the answer at last; nothing if it only thinks."""
    spoken = said(answer)
    if spoken is None:
        return []
    box, plain = last_box(spoken), unmarked(spoken)
    declared = list(_DECLARED.finditer(plain))
    if not declared or (box is not None and "boxed" in plain[declared[-1].start() :]):
        return [spoken] if box is None else [spoken, box]
    last = declared[-1][1]
    return [spoken, last, _REASON.split(last)[0], last.rpartition("=")[2]]


def _same(answer: str, reference: str, tolerance: Fraction) -> bool:
    given, expected = read_number(answer), read_number(reference)
    if given is not None and expected is not None:
        return given.agrees(expected, tolerance)
    if dates := read_dates(reference):
        return bool(dates & read_dates(answer))
    if (wanted := _items(reference)) is not None:
        items = _items(answer) or []
        return len(items) == len(wanted) and all(map(_same, items, wanted, [tolerance] * len(items)))
    return normalise_text(answer) == normalise_text(reference)


def _items(text: str) -> list[str] | None:
    """Those of a list in brackets, in its order; None if it is none with several."""
    found = re.fullmatch(r"\s*\[(.*)\]\s*", text, re.DOTALL)
    items = re.split(r"[,;]\s*(?!\d{3}\b)", found[1]) if found else []
    return [item.strip() for item in items] if len(items) > 1 else None


def normalise_text(text: str) -> str:
    """Case, quotes, punctuation around the text, white space and a leading article taken away; never to nothing."""
    plain = " ".join(one_way(text).casefold().split())
    stripped = plain.strip(_AROUND) or plain
    return _ARTICLE.sub("", stripped)

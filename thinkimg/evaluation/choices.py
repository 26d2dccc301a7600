"""Which option of a multiple-choice question an answer names: read alike for every letter.

A letter counts where it stands as one: alone, in brackets, behind words such as "option" or "it is", before words such
as "because" or the end of a sentence. "A dog" and "I think" are words, and so is "B movie". The first of these decides:

1. The whole answer is a letter, or an option's text.
2. The last letter or text that is declared: "the answer is …", "Answer: …", a box, "I choose …", "… is correct".
3. The letter that has the last line of its own; then the one that the answer begins with.
4. The only letter that is named; of those around a "but", the ones behind it.
5. The only option whose text stands there, in the same way.

What is ruled out is not named: "not A but B", "A is wrong; B", "I first thought (A), but …", "A. No, B". Several in one
place ("A or B") are no answer.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from thinkimg.evaluation.texts import last_box, one_way, said, unmarked


def _any(words: str) -> str:
    """A pattern of one of several phrases, written one after the other with bars between them."""
    return "(?:" + "|".join(r"\s+".join(phrase.split()) for phrase in words.split("|")) + ")"


def _pattern(*parts: str) -> re.Pattern[str]:
    return re.compile("".join(parts), re.IGNORECASE)


_NAME = _any("answers?|choices?|options?|letters?|solution|response|ans")
_CHINESE = "(?:答案|选项|选择|选)(?:应该|应)?[是为]?:?"
_ADVERB = _any(
    "most|very|quite|clearly|obviously|definitely|probably|certainly|indeed|therefore|thus|simply|both|all|also"
)
_VERB = _any("is|are|was|were|seems|seems to be|appears|appears to be|looks|has to be")
_MODAL = _any("should|must|would|will|could|can|might|may")
_BE = rf"(?:'s|'re|{_VERB}|{_MODAL}\s+be|be)\s+(?:{_ADVERB}\s+)*"
_CANNOT = _any("never|cannot|can't|isn't|aren't|wasn't|weren't|doesn't|don't|didn't|does not|won't|wouldn't|couldn't")
_NOT = f"(?:not|{_CANNOT})"
_WRONG = _any("wrong|incorrect|false|mistaken|impossible|implausible|unlikely|ruled out|eliminated|excluded|out|too")
_ARTICLE = _any("the|my|our")
_ANSWER = rf"(?:{_any('correct|right|best|final|only')}\s+)*{_any('answer|choice|option|one|solution')}"
_RIGHT = rf"(?:{_any('correct|right|true|best')}|(?:{_ARTICLE}\s+)?{_ANSWER})"
_CHOOSE = _any("choose|chose|choosing|pick|picked|select|selected|go with|going with|went with|settle on|opt for")
_THINK = _any("think|thought|considered|guessed|chose|picked|selected|said|assumed|believed|leaned towards")
_INSTEAD = _any("neither|nor|rather than|instead of|other than|except|except for|unlike|than|without")
_EXCLUDE = r"(?:exclud|eliminat|rul|reject|discard|dismiss)(?:e|es|ed|s|ing)?(?:\s+out)?"
_THOUGHT = _any("of|that|about|it was|it is|was")
_FILLER = _any("be|think|believe|that|it|is|it's")
_OPENED, _CLOSED = r"[\s(\[\"'*]*", r"[)\]\"'*]*\s*"
_BEFORE = rf"(?:(?:the|an?)\s+)?(?:{_NAME}\s*:?\s*)?{_OPENED}$"

_DECLARED_BEFORE = _pattern(
    rf"(?:\b{_NAME}(?:\s+{_any('here|letter|choice|option|to this question|to the question')})*",
    rf"\s*(?:\s{_BE}|[:=→-])\s*|\b{_CHOOSE}\s+|{_CHINESE}\s*){_BEFORE}",
)
_DECLARED_AFTER = _pattern(_CLOSED, _BE, _RIGHT, r"\b")
_RULED_OUT_BEFORE = _pattern(
    rf"\b(?:{_NOT}(?:\s+{_FILLER})*|{_INSTEAD}|{_EXCLUDE}",
    rf"|{_any('first|initially|originally')}\s+(?:\w+\s+){{0,2}}?{_THINK}(?:\s+{_THOUGHT})*)",
    rf"\s*:?\s*{_BEFORE}",
)
_RULED_OUT_AFTER = _pattern(
    rf"{_CLOSED},?\s*(?:which\s+)?(?:{_BE}(?:{_NOT}\b(?!\s+{_WRONG})|{_WRONG}\b)",
    rf"|(?:{_ADVERB}\s+)*{_CANNOT}\b(?!\s+(?:(?:be\s+)?{_WRONG}|it\b))|\?|[-:]?\s*{_any('wrong|incorrect')}\b)",
)
_CUES = _any(
    "is|are|was|be|so|thus|hence|therefore|then|say|said|think|thought|guess|believe|like|with|to|from|only|probably"
    "|definitely|clearly|certainly|maybe|perhaps|surely|and|or|but|not|than|neither|nor|both|either|of|towards?|out"
    "|matches|consider|considered|actually|rather|instead|simply|just|wait|sorry|it's"
)
_CUE = _pattern(rf"(?:^|[.,;:!?=→\n/&+-]|\b{_CUES}|'s|\b{_NAME})\s*(?:{_NAME}\s*)?$")
_FOLLOWERS = _any(
    "because|since|as|due|given|which|where|for|seems?|appears?|looks|matches|fits|it is|here|and|or|but|nor|not|so"
    "|then|too|instead|over|rather|both|could|would|might|should"
)
_END = _pattern(
    rf"[\"']*\s*(?:$|[.,;:!?=→)\n(/&+]|-\s|{_FOLLOWERS}\b|{_any('is|was')}[.!]?$",
    rf"|{_BE}(?:{_any('the|my|our|an?|it|not|shown|visible')}|{_RIGHT}|{_WRONG})\b|(?:{_ADVERB}\s+)*{_NOT}\b)",
)
_JOINT = _pattern(
    rf"[)\]]*\s*(?:,?\s*{_any('and|or|nor')}\b|[,/&+])\s*(?:{_any('either|both|maybe|perhaps|possibly|even')}\s+)?(?:the\s+)?(?:{_NAME}\s*)?[(\[]*"
)
_CORRECTION = _pattern(
    r"(?:^|(?<=[\s.,;:!?-]))",
    _any("wait|actually|correction|scratch that|on second thoughts?|sorry|i mean|no(?=[,.:!-])"),
    r"(?!\w)",
)
_CONTRAST = _pattern(rf"\b{_any('but|however|yet|whereas')}\b")
_LETTER = re.compile(r"(?<!\w)(?<!\w')([(\[]\s*)?([A-Za-z])(?!\w|'(?!s\b)\w|\^)(\s*[)\]])?")


@dataclass(frozen=True)
class _Mention:
    """One or several options that stand in one place of the answer, by `letter` or by text."""

    start: int
    end: int
    options: frozenset[str]
    letter: bool


def choose(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the one option that `answer` names, by letter or by text; None if it names none, or several.

    Args:
        options: letter -> text; empty: any letter, by letter only.
    """
    spoken = said(answer)
    if spoken is None:
        return None
    known = {str(letter).strip().upper(): _cleaned(str(text)).strip(" .") for letter, text in options.items()}
    boxed = last_box(spoken)
    found = (_read(boxed, f"answer: {boxed}", known) if boxed else None) or _read(spoken, spoken, known)
    return next(iter(found)) if len(found) == 1 else None


def _read(whole: str, text: str, options: Mapping[str, str]) -> set[str] | frozenset[str]:
    return _whole(whole, options) or _named(_cleaned(text), options)


def _cleaned(text: str) -> str:
    lines = re.sub(r"([\u3400-\u9fff:])(?=[(\[A-Za-z])", r"\1 ", one_way(unmarked(text))).split("\n")
    return "\n".join(" ".join(line.split()) for line in lines if line.strip())


def _whole(text: str, options: Mapping[str, str]) -> set[str]:
    """The answer is nothing but one option's letter, or its text."""
    bare = _cleaned(text).strip(" \n.,;:!\"'`*_()[]{}").casefold()
    if bare.upper() in (options or ascii_uppercase) and bare:
        return {bare.upper()}
    return {letter for letter, option in options.items() if bare and option.strip("\"'()").casefold() == bare}


def _named(text: str, options: Mapping[str, str]) -> frozenset[str]:
    mentions = _mentions(text, options)
    corrections = [
        found.end()
        for found in _CORRECTION.finditer(text)
        if not any(one.start < found.end() and found.start() < one.end for one in mentions)
    ]
    for start in (*reversed(corrections), 0):
        if decided := _decided(text, [one for one in mentions if one.start >= start]):
            return decided
    return frozenset()


def _decided(text: str, mentions: Sequence[_Mention]) -> frozenset[str]:
    standing = [one for one in mentions if not _ruled_out(text, one)]
    if declared := [one for one in standing if _declared(text, one)]:
        return declared[-1].options
    for group in ([one for one in standing if one.letter], [one for one in standing if not one.letter]):
        if group:
            return _own_line(text, group) or _beginning(text, group) or _only(text, group)
    return frozenset()


def _ruled_out(text: str, one: _Mention) -> bool:
    return bool(_RULED_OUT_BEFORE.search(text, 0, one.start) or _RULED_OUT_AFTER.match(text, one.end))


def _declared(text: str, one: _Mention) -> bool:
    return bool(_DECLARED_BEFORE.search(text, 0, one.start) or _DECLARED_AFTER.match(text, one.end))


def _own_line(text: str, mentions: Sequence[_Mention]) -> frozenset[str]:
    """What has a line of its own, a letter without its text; nothing where several have one."""
    own = {one.options for one in mentions if _alone(text, one)}
    return own.pop() if len(own) == 1 else frozenset()


def _alone(text: str, one: _Mention) -> bool:
    beside = text[: one.start].rpartition("\n")[2] + text[one.end :].partition("\n")[0]
    return not re.search(r"\w", beside) and not (one.letter and re.search(r"\w\w", text[one.start : one.end]))


def _beginning(text: str, mentions: Sequence[_Mention]) -> frozenset[str]:
    """What the answer begins with, unless other lines begin with others: then it lists them."""
    starts = [one for one in mentions if not re.search(r"\w", text[: one.start].rpartition("\n")[2])]
    first = bool(starts) and not re.search(r"\w", text[: starts[0].start])
    return starts[0].options if first and len(_all(starts)) == len(starts[0].options) else frozenset()


def _only(text: str, mentions: Sequence[_Mention]) -> frozenset[str]:
    for contrast in reversed(list(_CONTRAST.finditer(text))):
        if behind := [one for one in mentions if one.start >= contrast.end()]:
            return _all(behind)
    return _all(mentions)


def _all(mentions: Iterable[_Mention]) -> frozenset[str]:
    return frozenset().union(*(one.options for one in mentions))


# ---- where options stand --------------------------------------------------------------------------------------------


def _mentions(text: str, options: Mapping[str, str]) -> list[_Mention]:
    """In the order of the text. A letter before a text, "(B) blue", means the letter; neighbours that are joined, "A or
    B", are one."""
    texts = _texts(text, options)
    letters = [one for one in _letters(text, options, texts) if not _inside(one, texts)]
    alone = [one for one in texts if not any(_labels(text, letter, one) for letter in letters)]
    letters = [_with_text(text, letter, texts) for letter in letters]
    merged: list[_Mention] = []
    for one in sorted((*letters, *alone), key=lambda one: one.start):
        last = merged[-1] if merged else None
        if last and last.letter == one.letter and _JOINT.fullmatch(text, last.end, one.start):
            merged[-1] = _Mention(last.start, one.end, last.options | one.options, one.letter)
        else:
            merged.append(one)
    return merged


def _texts(text: str, options: Mapping[str, str]) -> list[_Mention]:
    """The longest ones first: "dark red" is not "red"."""
    found: list[_Mention] = []
    for letter, option in sorted(options.items(), key=lambda item: -len(item[1])):
        if len(option) < 2 and not option.isdigit():
            continue
        words = r"\s+".join(map(re.escape, option.split()))
        for match in re.finditer(rf"(?<![\w.]){words}(?!\w|\.\d)", text, re.IGNORECASE):
            if not any(one.start <= match.start() < one.end for one in found):
                found.append(_Mention(match.start(), match.end(), frozenset({letter}), letter=False))
    return found


def _letters(text: str, options: Mapping[str, str], texts: Sequence[_Mention]) -> Iterable[_Mention]:
    for match in _LETTER.finditer(text):
        letter = match[2].upper()
        if letter not in (options or ascii_uppercase):
            continue
        marked = bool(match[1] and match[3])
        start, end = (match.start(), match.end()) if marked else match.span(2)
        one = _Mention(start, end, frozenset({letter}), letter=True)
        if marked or _stands_as_letter(text, one, match[2].islower(), texts):
            yield one


def _stands_as_letter(text: str, one: _Mention, small: bool, texts: Sequence[_Mention]) -> bool:
    own_text = any(other.options == one.options and _labels(text, one, other) for other in texts)
    if not own_text and not _END.match(text, one.end):
        return False
    if small:
        return (
            (one.start == 0 and re.match(r"[.):]", text[one.end :]) is not None)
            or _DECLARED_BEFORE.search(text, 0, one.start) is not None
            or re.search(rf"\b{_NAME}\s*$", text[: one.start], re.IGNORECASE) is not None
        )
    return any(pattern.search(text, 0, one.start) for pattern in (_CUE, _DECLARED_BEFORE, _RULED_OUT_BEFORE))


def _with_text(text: str, letter: _Mention, texts: Sequence[_Mention]) -> _Mention:
    labelled = next((one for one in texts if _labels(text, letter, one)), letter)
    return _Mention(letter.start, labelled.end, letter.options, letter=True)


def _labels(text: str, letter: _Mention, option: _Mention) -> bool:
    return (
        letter.end <= option.start and re.fullmatch(r"[\s.:,)\]=(\"'-]*", text[letter.end : option.start]) is not None
    )


def _inside(one: _Mention, others: Sequence[_Mention]) -> bool:
    return any(other.start <= one.start < other.end for other in others)

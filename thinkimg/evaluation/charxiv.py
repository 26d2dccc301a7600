"""CharXiv's grading rules (Wang et al., 2024) without its judge: descriptive questions by rubric, reasoning questions
by type of answer.

The benchmark has GPT-4o take the final answer out of a reply and compare it by these rules. Here the agent's answer is
the final answer already, and the comparison is made by rule: other wordings of the same thing, which the judge would
accept, count as wrong unless the rubric itself gives them. `--scorer official` is the benchmark's own way.
"""

import re
import unicodedata

from thinkimg.evaluation.metrics import candidates
from thinkimg.evaluation.numbers import read_number
from thinkimg.evaluation.texts import one_way

NOT_APPLICABLE = "not applicable"
_ABSENT = re.compile(
    r"^(?:n/?a|none|not applicable|there (?:is|are) no\b.*|(?:the|this) (?:plot|chart|figure) (?:has|does not have)\b.*"
    r"|no (?:title|label|legend|lines?|colorbar)\b.*)$"
)
_GREEK = {
    name.lower(): chr(code)
    for code in (*range(0x3B1, 0x3CA),)
    for name in [unicodedata.name(chr(code)).rpartition(" ")[2]]
    if code != 0x3C2
}
_GREEK["lambda"] = _GREEK.pop("lamda")
_UP = (
    "increase|increases|increasing|rise|rises|rising|grow|grows|growing|go up|goes up|move up|moves up|moving up|upward"
)
_DOWN = (
    "decrease|decreases|decreasing|fall|falls|falling|drop|drops|decline|declines|declining|go down|goes down"
    "|move down|moves down|moving down|downward"
)
_FLAT = (
    "stabilize|stabilizes|stabilise|stabilises|stable|stay constant|stays constant|remain constant|remains constant"
    "|constant|plateau|plateaus|flat|level off|levels off|saturates|unchanged"
)
_TREND = re.compile(rf"\b(?:(?P<up>{_UP}|increase|an increase)|(?P<down>{_DOWN}|a decrease)|(?P<flat>{_FLAT}))\b")
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
}

RUBRICS = {
    **dict.fromkeys((1,), "title"),
    **dict.fromkeys((2, 3, 4, 5, 6, 7), "ocr"),
    **dict.fromkeys((8, 9, 10, 12, 14, 15, 17, 19), "quant"),
    11: "bool",
    13: "enum",
    16: "trend",
    18: "layout",
}
"""Number of a descriptive question's template -> its rubric; the reasoning ones are `text`, `phrase` and `number`."""


def score(answer: str, reference: str, rubric: str | None) -> float:
    """1 or 0.

    Args:
        rubric: `title`, `ocr`, `quant`, `bool`, `enum`, `trend`, `layout`; `text`, `phrase`, `number`; None: `ocr`.
    """
    return float(any(_right(given.strip(), reference.strip(), rubric) for given in candidates(answer)))


def _right(given: str, expected: str, rubric: str | None) -> bool:
    if expected.lower() == NOT_APPLICABLE:
        return _ABSENT.match(given.lower().rstrip(".")) is not None
    compare = {
        "title": lambda: _title(given) == _title(expected),
        "quant": lambda: _same_number(given, expected),
        "number": lambda: _same_number(given, expected),
        "bool": lambda: _first_word(given) == _first_word(expected),
        "enum": lambda: _terms(given) == _terms(expected),
        "text": lambda: sorted(_terms(given)) == sorted(_terms(expected)),
        "trend": lambda: _trend(given) == _trend(expected),
        "layout": lambda: _layout(given) == _layout(expected) is not None,
    }.get(rubric or "ocr", lambda: _same_number(given, expected) or term(given) == term(expected))
    return compare()


def term(text: str) -> str:
    """A label without its form: LaTeX's dollars, braces and slashes, spelt Greek letters, the order of sub- and
    superscript, case, white space, quotes and brackets around it."""
    plain = one_way(text).strip().strip("\"'`.").replace("$", "")
    plain = re.sub(r"\\(?:mathrm|mathbf|mathit|text|rm|bf|it)\b", "", plain)
    plain = re.sub(r"\\?\b([A-Za-z]+)(?=\b|_)", lambda m: _GREEK.get(m[1].lower(), m[1]), plain)
    plain = re.sub(r"[\\{}\s]", "", plain).casefold()
    scripts = re.compile(r"(?:[_^][^_^,;()\[\]+\-*/=]+){2,}")
    plain = scripts.sub(lambda m: "".join(sorted(re.findall(r"[_^][^_^]+", m[0]))), plain)
    return plain[1:-1] if re.fullmatch(r"\([^()]*\)", plain) else plain


def _title(text: str) -> str:
    return term(re.sub(r"^\s*\(?[a-zA-Z]\)\s*(?=\S)", "", text))


def _terms(text: str) -> list[str]:
    """Separated by commas outside brackets, so that `[50, 100]` is one."""
    parts = re.split(r"[,;](?![^\[(]*[\])])|\s+and\s+", text)
    return [term(part) for part in parts if part.strip()]


def _same_number(given: str, expected: str) -> bool:
    """In any notation."""
    left, right = read_number(given), read_number(expected)
    return left is not None and right is not None and left.agrees(right)


def _first_word(text: str) -> str:
    found = re.match(r"\W*(\w+)", text)
    return found[1].lower() if found else ""


def _trend(text: str) -> tuple[str, ...]:
    """The directions in their order, such as ("up", "flat"), one after another but for repeats."""
    found = [match.lastgroup or "" for match in _TREND.finditer(text.lower())]
    return tuple(step for number, step in enumerate(found) if number == 0 or step != found[number - 1]) or (term(text),)


def _layout(text: str) -> tuple[str, str] | None:
    plain = " ".join(_NUMBER_WORDS.get(word.strip(".,"), word) for word in text.lower().split())
    found = re.search(r"(\d+)\s*(?:by|x|×)\s*(\d+)", plain) or re.search(r"(\d+) rows?\D+(\d+) columns?", plain)
    return (found[1], found[2]) if found else None

"""Which option of a multiple-choice question an answer names."""

import re
from collections.abc import Mapping

_LETTER = (
    r"^\(?([A-Z])\)?(?:[.):\]]|\s*$)",  # "B", "(B)", "B. the red one"
    r"\b(?:answer|choice|option)\b(?:\s+is)?\s*:?\s*\(?([A-Z])\b(?![a-z'])",
    r"\(([A-Z])\)",
)


def choose(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the one option that `answer` names, by letter or by text; None if it names none, or several.

    Letters first, as VLMEvalKit (Duan et al., 2024) and the V*Bench task of lmms-eval read them; then the option whose
    text stands in the answer. Unlike the first, "A" in a sentence is the article and not the option: such an answer is
    read by the patterns "answer is A", "(A)" and a leading "A." only.

    Args:
        options: letter -> text; empty: A to D, by letter only.
    """
    letters = set(options or "ABCD")
    for pattern in _LETTER:
        found = {letter for letter in re.findall(pattern, answer.strip(), re.MULTILINE) if letter in letters}
        if len(found) == 1:
            return found.pop()
    said = " ".join(answer.casefold().split())
    meant = [letter for letter, text in options.items() if _holds(said, " ".join(str(text).casefold().split()))]
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", answer).split()
    if len(words) == 1 and words[0].upper() in letters:
        return words[0].upper()
    named = {word for word in words if word in letters} - ({"A"} if meant or len(words) > 3 else set())
    if len(named) == 1:
        return named.pop()
    return meant[0] if len(meant) == 1 else None


def _holds(said: str, text: str) -> bool:
    return bool(text) and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", said) is not None

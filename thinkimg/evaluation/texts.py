"""Answers without their form: thinking, markup, LaTeX, the many ways to write one character."""

import re
import unicodedata

from thinkimg.agent.thinking import without_thinking

_ALIKE = str.maketrans("‘’‚‛“”„‟«»−–—。、", '\'\'\'\'""""""---.,')
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ"
_RAISED = re.compile(rf"(?<=\S)[{_SUPERSCRIPTS}]+")
_VULGAR = re.compile(r"(?<=\d)\s*(?=[¼-¾⅐-⅞↉])")
_COMMANDS = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mathsf|operatorname|rm|bf|it|left|right|displaystyle)\b\s*"
)
_SPACES = re.compile(r"\\[ ,;:!]|\\quad\b|~")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)(?:</answer>|$)", re.DOTALL)
_EMPHASIS = re.compile(r"(\*{1,3}|_{2,3}|`+)(?=\S)(.+?)(?<=\S)\1", re.DOTALL)


def said(answer: str) -> str | None:
    """An answer without its thinking, and of that the last `<answer>`; None if the thinking does not end."""
    reply = without_thinking(answer)
    if not reply.closed:
        return None
    tagged = _ANSWER.findall(reply.said)
    return (tagged[-1] if tagged else reply.said).strip()


def last_box(text: str) -> str | None:
    r"""What the last `\boxed{…}` (or `\fbox`) holds; None without one that is closed."""
    for opening in reversed(list(re.finditer(r"\\f?boxed?\s*\{", text))):
        depth = 1
        for position in range(opening.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[opening.end() : position].strip()
    return None


def unmarked(text: str) -> str:
    r"""Without emphasis, dollars and commands of LaTeX: `**B**`, `$\text{B}$` and `\(B\)` are `B`."""
    plain = re.sub(r"\\[()\[\]]", "", text.replace("{,}", ","))
    plain = _COMMANDS.sub("", _SPACES.sub(" ", _FRACTION.sub(r"\1/\2", plain)))
    plain = re.sub(r"\\([%$#&_])", r"\1", plain.replace("\\times", "×").replace("\\cdot", "·"))
    plain = re.sub(r"\$([^$\n]+)\$", r"\1", plain)
    return _EMPHASIS.sub(r"\2", plain)


def one_way(text: str) -> str:
    """Each character in one way: full-width letters as usual ones, quotes and dashes as ASCII's. Superscripts stay
    powers, `10³` is `10^3`, and `2½` is `2 1/2`."""
    raised = _RAISED.sub(lambda found: "^" + unicodedata.normalize("NFKC", found[0]), _VULGAR.sub(" ", text))
    return unicodedata.normalize("NFKC", raised).replace("⁄", "/").translate(_ALIKE)

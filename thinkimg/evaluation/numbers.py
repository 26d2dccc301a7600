"""Numbers as people and models write them, with their units.

`10⁵`, `100000`, `100,000`, `10^5`, `1e5`, `1 × 10^5` and `100k` are one number, and `10³` is not 103. `½` is `0.5`.
`1,234.5` and `1.234,56` have thousands, `1.234` has not.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from thinkimg.evaluation.texts import one_way, unmarked
from thinkimg.evaluation.units import CURRENCY, read_unit

LONGEST = 400
"""Characters of a number, and powers of ten; what is longer is none."""


@dataclass(frozen=True)
class Quantity:
    """Attributes:
    value: exact; of `12 %` it is 12.
    unit: in one spelling; "" without one.
    """

    value: Fraction
    unit: str = ""

    def agrees(self, expected: "Quantity", tolerance: Fraction = Fraction(0)) -> bool:
        """Within `tolerance`, a share of `expected`. A unit that only one of the two has does not count; a percent may
        then be a hundredth too."""
        if self.unit and expected.unit and self.unit != expected.unit:
            return False
        given, wanted = self._readings(expected), expected._readings(self)
        return any(abs(one - other) <= tolerance * abs(other) for one in given for other in wanted)

    def _readings(self, other: "Quantity") -> tuple[Fraction, ...]:
        whole = {"%": 100, "‰": 1000}.get(self.unit)
        return (self.value,) if whole is None or other.unit else (self.value, self.value / whole)


_ABOUT = re.compile(
    r"^(?:(?:approximately|approx\.?|about|around|roughly|circa|ca\.|nearly|almost|exactly)\s+|[~≈=]\s*)+",
    re.IGNORECASE,
)
_START = re.compile(rf"(minus\b|[+-])?\s*({CURRENCY.pattern})?\s*([+-])?\s*", re.IGNORECASE)
_DIGITS = (
    r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?"  # 1,234.5
    r"|\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?"  # 12,34,567
    r"|\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}"  # 1.234,56 and 1.234.567
    r"|\d{1,3}(?:[ '_]\d{3})+(?:\.\d+)?"  # 1 234.5
    r"|\d+\.?\d*|\.\d+)"
)
_NEXT = r"(?![.,/]?\d)"
_EXPONENT = r"\s*(?:\^|\*\*)\s*[({]*\s*([+-]?\d+)\s*[)}]*"
_MIXED = re.compile(rf"(\d+)\s+(\d+)\s*/\s*(\d+){_NEXT}")
_OVER = re.compile(rf"\(?({_DIGITS})\)?\s*/\s*\(?({_DIGITS})\)?{_NEXT}")
_POWER = re.compile(rf"({_DIGITS}){_EXPONENT}{_NEXT}")
_PLAIN = re.compile(rf"({_DIGITS})(?:e([+-]?\d+))?{_NEXT}", re.IGNORECASE)
_TIMES = re.compile(rf"\s*[×x*·]\s*10{_EXPONENT}{_NEXT}", re.IGNORECASE)
_COUNTED = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
    "|eighteen|nineteen|twenty"
)
_WORDS = {word: Fraction(number) for number, word in enumerate(re.split(r"\|", _COUNTED))}


def read_number(text: str) -> Quantity | None:
    """What `text` says if it is one number, with nothing but a unit around it; None otherwise."""
    plain = " ".join(one_way(unmarked(text)).split()).strip("\"'`* ").removesuffix(".")
    plain = _ABOUT.sub("", plain)
    if not plain or len(plain) > LONGEST:
        return None
    sign, currency, rest = _split(plain)
    found = _value(rest)
    if found is None:
        return None
    value, end = found
    unit = read_unit(rest[end:], currency)
    return None if unit is None else Quantity(sign * value * 10 ** unit[0], unit[1])


def _split(text: str) -> tuple[int, str, str]:
    """Sign, currency and rest: of `-$5`, `$-5` and `minus 5`."""
    found = _START.match(text)
    assert found is not None, "it matches nothing too"
    signs = f"{found[1] or ''}{found[3] or ''}".strip().lower()
    return (-1 if signs in ("-", "minus") else 1), found[2] or "", text[found.end() :]


def _value(text: str) -> tuple[Fraction, int] | None:
    """The number that `text` begins with, and where it ends."""
    if word := re.match(r"[a-z]+", text, re.IGNORECASE):
        value = _WORDS.get(word[0].lower())
        return None if value is None else (value, word.end())
    if (found := _MIXED.match(text)) and int(found[3]):
        return int(found[1]) + Fraction(int(found[2]), int(found[3])), found.end()
    if (found := _OVER.match(text)) and _plain(found[2]):
        return _plain(found[1]) / _plain(found[2]), found.end()
    if found := _POWER.match(text):
        return _with_power(_power(_plain(found[1]), int(found[2])), text, found.end())
    if found := _PLAIN.match(text):
        scale = _power(Fraction(10), int(found[2] or 0))
        return _with_power(scale and _plain(found[1]) * scale, text, found.end())
    return None


def _with_power(value: Fraction | None, text: str, end: int) -> tuple[Fraction, int] | None:
    times = _TIMES.match(text, end)
    scale = _power(Fraction(10), int(times[1])) if times else Fraction(1)
    return None if value is None or scale is None else (value * scale, times.end() if times else end)


def _power(base: Fraction, exponent: int) -> Fraction | None:
    """None where it would be too large to write down."""
    length = len(str(base.numerator)) * abs(exponent)
    return None if length > 2 * LONGEST or (base == 0 and exponent < 0) else base**exponent


def _plain(digits: str) -> Fraction:
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}", digits):
        digits = digits.replace(".", "").replace(",", ".")
    return Fraction(re.sub(r"[, '_]", "", digits).rstrip(".") or "0")

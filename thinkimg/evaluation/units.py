"""What stands around a number: its currency, its scale, its unit; each in one spelling."""

import re

_SAME = (
    ("$", "us$", "usd", "dollar", "us dollar"), ("€", "eur", "euro"), ("£", "gbp"), ("¥", "jpy", "yen"),
    ("cny", "rmb", "yuan"), ("₹", "inr", "rupee"),
    ("%", "percent", "per cent", "pct"), ("‰", "per mille"), ("pp", "percentage point", "% point"),
    ("kg", "kilogram", "kilogramme"), ("g", "gram", "gramme"), ("t", "ton", "tonne"), ("lb", "lbs"),
    ("km", "kilometre", "kilometer"), ("m", "metre", "meter"), ("cm", "centimetre", "centimeter"),
    ("mm", "millimetre", "millimeter"), ("l", "litre", "liter"), ("h", "hr", "hour"), ("min", "minute"),
    ("s", "sec", "second"), ("ms", "millisecond"), ("yr", "year", "year old"), ("°", "degree", "deg"),
    ("°c", "degree celsius", "celsius", "degree c"), ("°f", "degree fahrenheit", "fahrenheit", "degree f"),
)  # fmt: skip
_UNITS = {name: names[0] for names in _SAME for name in names}
_SYMBOLS = frozenset("$€£¥₹")
_SCALES = {"hundred": 2, "thousand": 3, "lakh": 5, "million": 6, "mn": 6, "mio": 6, "crore": 7, "billion": 9, "bn": 9,
           "trillion": 12, "tn": 12}  # fmt: skip
_LETTERS = {"k": 3, "K": 3, "M": 6, "B": 9}
_WITH_CURRENCY = {"k": 3, "m": 6, "b": 9, "t": 12}
_NOT_UNITS = re.compile(
    r"\b(?:an?|about|and|at|but|by|each|equal|fewer|from|in|is|least|less|lower|minus|more|most|no|not|of|on|only|or|other"
    r"|out|over|plus|than|that|the|then|times|to|under|up|was|which|while|with)\b",
    re.IGNORECASE,
)

CURRENCY = re.compile(r"us\$|[$€£¥₹]|(?:usd|eur|gbp|jpy|cny|rmb|inr)(?![a-z])", re.IGNORECASE)
_SCALE = re.compile(rf"\s*({'|'.join(_SCALES)})s?(?![a-z])|(\s*)([kKmMbBtT])(?![\w/^])", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*(?:\^-?\d)?|[%‰°$€£¥₹]|us\$", re.IGNORECASE)


def read_unit(text: str, currency: str = "") -> tuple[int, str] | None:
    """Powers of ten and unit that the text behind a number says, such as `k`, ` million dollars` or `km/h`.

    Args:
        currency: what stands before the number.

    Returns:
        None if it is no unit: it holds other numbers, or more than three words.
    """
    power, rest = _scale(text, bool(currency))
    unit = _unit(rest)
    if unit is None or (currency and unit and unit != _canonical(currency)):
        return None
    return power, _canonical(currency) if currency else unit


def _scale(text: str, currency: bool) -> tuple[int, str]:
    found = _SCALE.match(text)
    if found is None:
        return 0, text
    rest = text[found.end() :]
    if found[1]:
        return _SCALES[found[1].lower()], rest
    currency = currency or bool(CURRENCY.match(rest.strip()))
    power = _WITH_CURRENCY.get(found[3].lower()) if currency else _LETTERS.get(found[3])
    if power is None or (found[2] and found[3] in "kK" and not currency):  # 300 K are kelvins
        return 0, text
    return power, rest


def _unit(text: str) -> str | None:
    parts = re.split(r"/|\bper\b(?!\s*(?:cent|mille))", text.strip(" ."))
    words = [_WORD.findall(part.strip()) for part in parts]
    if text.strip(" .") == "":
        return ""
    if any(
        not found or "".join(found) != re.sub(r"[\s()]", "", part) for found, part in zip(words, parts, strict=True)
    ):
        return None
    every = [word.lower() for found in words for word in found]
    if len(every) > 3 or _NOT_UNITS.search(text):
        return None
    return "/".join(_canonical(" ".join(found)) for found in words)


def _canonical(unit: str) -> str:
    plain = re.sub(r"([%°]) (?=\w)", r"\1", unit.lower())
    plain = plain if plain in _UNITS else " ".join(_singular(word) for word in unit.lower().split())
    return _UNITS.get(plain, plain)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")) else word

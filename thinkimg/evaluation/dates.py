"""Dates in words, in ISO's form and with slashes."""

import re
from datetime import date

Date = tuple[int, int, int]
"""Year, month, and day; 0 where only the month is given."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAMES = (
    r"(?P<name>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>\d{4})"
_WRITTEN = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:the\s+)?{_DAY}(?:\s+of)?[\s-]+{_NAMES},?[\s-]+{_YEAR}",
        rf"{_NAMES}\s+{_DAY},?\s+{_YEAR}",
        rf"{_NAMES},?[\s-]+(?P<day>){_YEAR}",
        rf"{_YEAR}[\s-]+(?P<day>){_NAMES}",
    )
]
_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")
_SHORT = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})")


def read_dates(text: str) -> set[Date]:
    """The date that `text` is; two where day and month could be either; none if it is something else."""
    plain = text.strip(" .\"'")
    for pattern in _WRITTEN:
        if found := pattern.fullmatch(plain):
            month = _MONTHS.index(found["name"][:3].lower()) + 1
            return _real((int(found["year"]), month, int(found["day"] or 0)))
    if found := _ISO.fullmatch(plain):
        return _real((int(found[1]), int(found[2]), int(found[3])))
    if found := _SHORT.fullmatch(plain):
        first, second, year = (int(part) for part in found.groups())
        return _real((year, first, second), (year, second, first))
    return set()


def _real(*dates: Date) -> set[Date]:
    return {one for one in dates if _is_real(*one)}


def _is_real(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day or 1)
    except ValueError:
        return False
    return True

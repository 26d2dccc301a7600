"""The score of OpenThinkIMG's chartgemma task, as its `tf_eval` computes it, so that its numbers can be compared.

It is not a share of right answers: a wrong string gets the share of letters that it has in common with the right one,
and a decimal fraction is cut off before comparing (12.9 is 12). Its evaluation compared answers with their quotes
still on, its `manual_eval.py` without; what is compared here is the text that is given.
"""

import threading
from functools import cache
from typing import Any

from thinkimg.extras import naming_the_extra


def score(prediction: str, gold: str) -> float:
    """From 0 to 1, in steps of 0.01, as `thinkimg.evaluation.official.CHARTGEMMA` gives it.

    The ladder: equal, or equal as mathematics (math-verify): 1. Else a prediction with `%`, or with `.`, is cut at the
    point and must then be equal. Else the fuzzy ratio of the two strings.

    Raises:
        UserError: the package math-verify is not installed.
    """
    gold, prediction = gold.strip().lower(), prediction.lower()
    if prediction == gold or _same_mathematics(prediction, gold):
        return 1.0
    if "%" in prediction or "." in prediction:
        cut = prediction.replace("%", "").partition(".")[0]
        return float(cut == gold or _verified(gold, cut))
    return round(100 * similarity(prediction, gold)) / 100


def similarity(a: str, b: str) -> float:
    """`fuzz.ratio` of thefuzz and RapidFuzz: twice the longest common subsequence over both lengths."""
    if not a and not b:
        return 1.0
    row = [0] * (len(b) + 1)
    for first in a:
        before = 0
        for column, second in enumerate(b, start=1):
            before, row[column] = row[column], before + 1 if first == second else max(row[column], row[column - 1])
    return 2 * row[-1] / (len(a) + len(b))


def _same_mathematics(prediction: str, gold: str) -> bool:
    parse, _ = _math_verify()
    limits = {} if _may_set_limits() else {"parsing_timeout": None}
    left, right = (parse(f"${text}$", **limits) for text in (gold, prediction))
    return _verified(left, right) or _verified(gold, prediction)


def _verified(gold: Any, prediction: Any) -> bool:
    """Texts are compared as texts."""
    _, verify = _math_verify()
    return bool(verify(gold, prediction, **({} if _may_set_limits() else {"timeout_seconds": None})))


def _may_set_limits() -> bool:
    """Math-verify's time limits are made of signals, which only a process' first thread may set."""
    return threading.current_thread() is threading.main_thread()


@cache
def _math_verify() -> tuple[Any, Any]:
    with naming_the_extra("--scorer openthinkimg_fuzzy"):
        from math_verify import parse, verify
    return parse, verify

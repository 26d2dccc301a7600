"""Figures as people read them, in tables, pages and on the terminal. What is not known is a dash."""

from collections.abc import Sequence

UNKNOWN = "–"


def percent(share: float | None) -> str:
    """`0.125` is `12.5 %`."""
    return UNKNOWN if share is None else f"{100 * share:.1f} %"


def interval(bounds: Sequence[float] | None) -> str:
    """Two shares in percent, without the sign: `10.0 – 15.2`."""
    return UNKNOWN if bounds is None else f"{100 * bounds[0]:.1f} – {100 * bounds[1]:.1f}"


def accuracy(share: float | None, bounds: Sequence[float] | None, refused: int = 0, full: int = 0) -> str:
    """`12.5 %`; where answers were lost what it is at least and at most: `incomplete, 10.0 – 15.2 %`. What counts as
    wrong without having been answered is said: `12.5 %, 3 refused, 1 context full`."""
    said = percent(share) if bounds is None else f"incomplete, {interval(bounds)} %"
    return said + (f", {refused:,} refused" if refused else "") + (f", {full:,} context full" if full else "")


def points(
    difference: float | None, ci95: Sequence[float] | None, p: float | None, bounds: Sequence[float] | None = None
) -> str:
    """Of two shares: `+7.1 (+3.0 to +11.2, p = 0.004)`; where answers were lost what it is at least and at most:
    `incomplete, -2.0 to +11.0`."""
    if bounds is not None:
        return f"incomplete, {between(bounds)}"
    if difference is None or ci95 is None or p is None:
        return UNKNOWN
    return f"{100 * difference:+.1f} ({between(ci95)}, {'p ' if p < 0.001 else 'p = '}{p_value(p)})"


def between(bounds: Sequence[float]) -> str:
    """Of a difference, in points: `+3.0 to +11.2`."""
    return f"{100 * bounds[0]:+.1f} to {100 * bounds[1]:+.1f}"


def p_value(p: float | None) -> str:
    """`0.004`, or `< 0.001`."""
    return UNKNOWN if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def rate(value: float | None) -> str:
    """Of something per answer: two decimals."""
    return UNKNOWN if value is None else f"{value:.2f}"


def milliseconds(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"


def duration(seconds: float | None, decimals: int = 1) -> str:
    """`4.2 s`, `1 min 01 s`, `2 h 01 min`. Only times below a minute have decimals."""
    if seconds is None:
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.{decimals}f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def age(seconds: float) -> str:
    """`4s`, `12m`, `1.0h`: a duration for the narrow columns of a terminal, as kubectl has them."""
    if seconds < 60:
        return f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 3600 else f"{seconds / 3600:.1f}h"


def size(count: float) -> str:
    """Of a file or a memory, from bytes: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"

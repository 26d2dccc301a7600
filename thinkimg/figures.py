"""Figures as people read them, in tables, pages and on the terminal. What is not known is a dash."""

from collections.abc import Sequence

UNKNOWN = "–"


def percent(share: float | None) -> str:
    """`0.125` is `12.5 %`."""
    return UNKNOWN if share is None else f"{100 * share:.1f} %"


def interval(bounds: Sequence[float] | None) -> str:
    """Two shares in percent, without the sign: `10.0 – 15.2`."""
    return UNKNOWN if bounds is None else f"{100 * bounds[0]:.1f} – {100 * bounds[1]:.1f}"


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

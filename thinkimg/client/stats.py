"""Counters and latencies per tool, mergeable across processes and runs.

Latencies are kept in buckets that are 5 % wide, so that percentiles of a merge are as true as those of one process.
"""

import math
from collections import Counter
from collections.abc import Mapping

from thinkimg.results import ToolErrors, ToolFigures

_SMALLEST_MS = 0.01
_WIDTH = math.log(1.05)


class ToolStats:
    """What happened to the calls of one tool.

    Attributes:
        http_calls: calls that went to a server, each counted once however often it was tried.
        retries: further attempts of those calls.
        hedges: second replicas that were asked because the first took long.
        cache_hits: calls answered without a request of their own: from memory, from disk, or by sharing an identical
            call that was under way.
        model_errors, infrastructure_errors: calls that ended so.
    """

    def __init__(self) -> None:
        self.http_calls = 0
        self.retries = 0
        self.hedges = 0
        self.cache_hits = 0
        self.model_errors = 0
        self.infrastructure_errors = 0
        self._buckets: Counter[int] = Counter()

    @property
    def answers(self) -> int:
        """Calls that a server answered."""
        return self._buckets.total()

    def record_latency(self, seconds: float) -> None:
        """Time of one call over HTTP, from its first attempt to its answer."""
        self._buckets[_bucket(seconds * 1000)] += 1

    def percentile_seconds(self, share: float, calls: int) -> float | None:
        """Within which that share of the calls was answered; None before there were so many calls."""
        milliseconds = _percentile(self._buckets, share) if self._buckets.total() >= calls else None
        return None if milliseconds is None else milliseconds / 1000

    def figures(self) -> ToolFigures:
        counts = {name: getattr(self, name) for name in _COUNTS}
        errors = ToolErrors(model=self.model_errors, infrastructure=self.infrastructure_errors)
        return _figures(counts, errors, self._buckets)


_COUNTS = ("http_calls", "retries", "hedges", "cache_hits")


def merge_stats(*stats: Mapping[str, ToolFigures]) -> dict[str, ToolFigures]:
    """Add up the figures of several clients, tool by tool. Percentiles are those of all calls together."""
    names = sorted({name for part in stats for name in part})
    return {name: _merge([part[name] for part in stats if name in part]) for name in names}


def _merge(parts: list[ToolFigures]) -> ToolFigures:
    buckets: Counter[int] = Counter()
    for part in parts:
        buckets.update(part.latency_buckets)
    errors = ToolErrors(
        model=sum(part.errors.model for part in parts), infrastructure=sum(part.errors.infrastructure for part in parts)
    )
    return _figures({name: sum(getattr(part, name) for part in parts) for name in _COUNTS}, errors, buckets)


def _figures(counts: Mapping[str, int], errors: ToolErrors, buckets: Counter[int]) -> ToolFigures:
    return ToolFigures(
        **counts,
        errors=errors,
        p50_ms=_percentile(buckets, 0.50),
        p95_ms=_percentile(buckets, 0.95),
        p99_ms=_percentile(buckets, 0.99),
        latency_buckets=dict(sorted(buckets.items())),
    )


def _bucket(milliseconds: float) -> int:
    return math.ceil(math.log(max(milliseconds, _SMALLEST_MS) / _SMALLEST_MS) / _WIDTH)


def _percentile(buckets: Counter[int], share: float) -> float | None:
    """Upper edge of the bucket that holds the percentile, in milliseconds; None without calls."""
    wanted = share * buckets.total()
    seen = 0
    for bucket, count in sorted(buckets.items()):
        seen += count
        if seen >= wanted:
            return round(_SMALLEST_MS * math.exp(bucket * _WIDTH), 3)
    return None

import pytest

from thinkimg.client import merge_stats
from thinkimg.client.stats import ToolStats
from thinkimg.results import ToolErrors, ToolFigures


def stats_of(*milliseconds: float) -> ToolFigures:
    stats = ToolStats()
    for value in milliseconds:
        stats.http_calls += 1
        stats.record_latency(value / 1000)
    return stats.figures()


def test_percentiles_are_true_to_five_percent() -> None:
    stats = stats_of(*range(1, 101))
    assert stats.p50_ms == pytest.approx(50, rel=0.05)
    assert stats.p95_ms == pytest.approx(95, rel=0.05)


def test_percentiles_are_absent_without_calls() -> None:
    assert stats_of().p50_ms is None


def test_merging_is_the_same_as_counting_together() -> None:
    written = [stats_of(*values).model_dump_json() for values in ([1, 2, 3], [100], [7, 7])]
    apart = [{"OCR": ToolFigures.model_validate_json(text)} for text in written]
    assert merge_stats(*apart)["OCR"] == stats_of(1, 2, 3, 100, 7, 7)


def test_merging_keeps_every_tool_and_adds_errors() -> None:
    one, other = ToolStats(), ToolStats()
    one.model_errors, other.model_errors, other.infrastructure_errors, other.cache_hits = 2, 3, 1, 5
    merged = merge_stats({"A": one.figures()}, {"A": other.figures(), "B": other.figures()})
    assert merged["A"].errors == ToolErrors(model=5, infrastructure=1)
    assert merged["B"].cache_hits == 5
    assert merge_stats() == {}

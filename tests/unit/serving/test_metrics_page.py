"""docs/reference/metrics.md names exactly the metrics that a server has."""

import re
from pathlib import Path

from thinkimg.serving.metrics import ServerMetrics

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)


def test_the_page_lists_every_metric_with_its_kind_and_labels() -> None:
    told = {
        (name.removesuffix("_total"), kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in ROW.findall(PAGE.read_text())
    }
    metrics = [value for value in vars(ServerMetrics()).values() if hasattr(value, "_labelnames")]
    known = {(metric._name, metric._type, tuple(metric._labelnames)) for metric in metrics}
    assert told == known

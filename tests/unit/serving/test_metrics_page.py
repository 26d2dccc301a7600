"""docs/reference/metrics.md names exactly the metrics that a tool server and a gateway have."""

import re
from pathlib import Path

from thinkimg.gateway.metrics import GatewayMetrics
from thinkimg.serving.metrics import ServerMetrics

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)


def test_the_page_lists_every_metric_with_its_kind_and_labels() -> None:
    told = {
        (name.removesuffix("_total"), kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in ROW.findall(PAGE.read_text())
    }
    owners = (ServerMetrics(), GatewayMetrics())
    metrics = [value for owner in owners for value in vars(owner).values() if hasattr(value, "_labelnames")]
    known = {(metric._name, metric._type, tuple(metric._labelnames)) for metric in metrics}
    assert told == known

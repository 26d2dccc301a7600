"""What alerts and dashboards ask for is offered by the processes that run in the cluster."""

from __future__ import annotations

import pytest

from tests.support.cluster.alerts import DASHBOARDS, alerts, expressions, metrics_of
from tests.support.e2e.e2ecluster import SYSTEM, VISION, Cluster

SCRAPE = """
import os, httpx
for line in os.environ["TARGETS"].split():
    url, _, key = line.partition(",")
    answer = httpx.get(url, headers={"Authorization": "Bearer " + key} if key else {}, timeout=30)
    answer.raise_for_status()
    print(answer.text)
"""
MONITORING = "monitoring"


@pytest.fixture(scope="module")
def scraped(installed: Cluster) -> set[str]:
    """Names of series, as Prometheus stores them: by the metric's type line, as some have no series before an event."""
    installed.make_namespace(MONITORING, **{"thinkimg.dev/tool-access": "allowed"})
    installed.wait("ocr is served", lambda: installed.get("endpoints", "ocr").get("subsets"), 300)
    tool_key = installed.secret("tools-tool-key", "key")
    gateway_key = installed.secret("tools-gateway-keys", "key")
    operators = installed.get("pods", "-l", "app.kubernetes.io/name=thinkimg-operator", namespace=SYSTEM)["items"]
    targets = [f"http://{pod['status']['podIP']}:8080/metrics" for pod in operators]
    targets += [f"http://ocr.{VISION}.svc:8000/metrics,{tool_key}"]
    targets += [f"http://tools-gateway.{VISION}.svc/metrics,{gateway_key}"]
    text = installed.run("scraper", SCRAPE, MONITORING, TARGETS=" ".join(targets))
    names: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            names |= {name + suffix for suffix in (["_bucket", "_sum", "_count"] if kind == "histogram" else [""])}
    return names


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_finds_its_metrics(scraped: set[str], alert: str) -> None:
    asked = metrics_of(alerts()[alert]["expr"])
    assert asked
    assert asked <= scraped, asked - scraped


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_finds_its_metrics(scraped: set[str], dashboard) -> None:
    for expression in expressions(dashboard):
        asked = metrics_of(expression)
        assert asked
        assert asked <= scraped, asked - scraped

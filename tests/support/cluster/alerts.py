"""Alerts and dashboards of the charts, and the names of the metrics that they ask for."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support import REPOSITORY

RULES = [
    REPOSITORY / "charts" / "thinkimg-tools" / "files" / "rules.yaml",
    REPOSITORY / "charts" / "thinkimg-operator" / "files" / "prometheus-rules.yaml",
]
DASHBOARDS = sorted(REPOSITORY.glob("charts/*/files/dashboards/*.json"))


def alerts() -> dict[str, dict[str, Any]]:
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def expressions(dashboard: Path) -> Iterator[str]:
    """What the panels ask, with Grafana's variables filled in."""
    for panel in json.loads(dashboard.read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m").replace("$namespace", ".*").replace("$tool", ".*")


def metrics_of(expression: str) -> set[str]:
    """Names of metrics: whatever stands before `{` or `[`, or alone, and is no function or label."""
    bare = re.sub(r"\{[^}]*\}|\b(by|without)\s*\([^)]*\)|\[[^\]]*\]", " ", expression)
    return set(re.findall(r"\b(?:thinkimg|controller_runtime|workqueue|rest_client|leader_election)_\w+", bare))

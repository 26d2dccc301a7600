"""Alerts and dashboards of the charts, by Prometheus' own promtool: they parse, and each alert fires when it should."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import binaries
import pytest
import yaml
from thinkimg_operator.metrics import Metrics as OperatorMetrics
from thinkimg_operator.toolrljob.metrics import JobMetrics

from tests.support import REPOSITORY
from tests.support.cluster.alerts import DASHBOARDS, RULES, alerts, expressions, metrics_of
from thinkimg.gateway.metrics import GatewayMetrics
from thinkimg.serving.metrics import ServerMetrics

TESTS = Path(__file__).with_name("alerts.test.yaml")


def promtool(*arguments: str) -> str:
    program = binaries.ensure(["promtool"])["promtool"]
    done = subprocess.run([str(program), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def rule_files(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{index}.yaml" for index in range(len(RULES))]
    for source, file in zip(RULES, files, strict=True):
        file.write_text(source.read_text().replace("RUNBOOKS", "https://example.com"))
    return files


def offered() -> set[str]:
    """Names that our processes offer, as Prometheus sees them."""
    operator = OperatorMetrics()
    JobMetrics(operator.registry, lambda: ())
    names: set[str] = set()
    for registry in (operator.registry, ServerMetrics().registry, GatewayMetrics().registry):
        for family in registry.collect():
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
            names |= {family.name + suffix for suffix in suffixes}
    return names


def test_the_rules_parse(rule_files: list[Path]) -> None:
    said = promtool("check", "rules", "--lint=all", "--lint-fatal", *map(str, rule_files))
    assert sum(map(int, re.findall(r"(\d+) rules found", said))) == len(alerts())


def test_every_alert_fires_when_it_should_and_not_before(rule_files: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "alerts.test.yaml"
    file.write_text(TESTS.read_text().replace("RULES", json.dumps([str(path) for path in rule_files])))
    promtool("test", "rules", str(file))
    cases = [case for test in yaml.safe_load(file.read_text())["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(alerts())
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(alerts())


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_names_a_runbook_that_is_there(alert: str) -> None:
    url = alerts()[alert]["annotations"]["runbook_url"]
    page = REPOSITORY / "docs" / "runbooks" / url.removeprefix("RUNBOOKS/")
    assert page.read_text().startswith(f"# {alert}\n")


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_what_a_dashboard_asks_parses(dashboard: Path, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{index}", "expr": text} for index, text in enumerate(expressions(dashboard))]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", "--lint=none", str(file))


def test_alerts_and_dashboards_ask_for_metrics_that_exist() -> None:
    asked = [rule["expr"] for rule in alerts().values()]
    asked += [expression for dashboard in DASHBOARDS for expression in expressions(dashboard)]
    for expression in asked:
        assert metrics_of(expression), f"no metric of ours in {expression}"
        assert metrics_of(expression) <= offered(), expression

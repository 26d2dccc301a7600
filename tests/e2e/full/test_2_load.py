"""Tools under load from inside the cluster: a rolling update, and the autoscaler up and down; no call may fail."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import REPOSITORY
from tests.support.e2e.e2ecluster import VISION, Cluster, document, say

LOAD = (REPOSITORY / "tests" / "support" / "e2e" / "load.py").read_text()
CALLERS = "callers"


@pytest.fixture(scope="module")
def callers(installed: Cluster) -> Cluster:
    installed.make_namespace(CALLERS, **{"thinkimg.dev/tool-access": "allowed"})
    return installed


@contextlib.contextmanager
def tool(cluster: Cluster, name: str, **spec: Any) -> Iterator[None]:
    """A VisionTool of its own, available."""
    small = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
    full = {"tool": "DrawHorizontalLineByY", "resources": small, **spec}
    body = document("thinkimg.dev/v1alpha1", "VisionTool", {"name": name, "namespace": VISION}, spec=full)
    cluster.kubectl("apply", "-f", "-", stdin=body)
    try:
        cluster.wait(f"{name} is Available", lambda: cluster.available(name), 300)
        yield
    finally:
        cluster.kubectl("delete", "visiontool", name, "-n", VISION)


def start_load(cluster: Cluster, name: str, seconds: int, callers: int) -> None:
    headless = f"dns+http://{name}-pods.{VISION}.svc:8000"
    cluster.start(
        "load", LOAD, CALLERS, URL=f"http://{name}.{VISION}.svc:8000", HEADLESS=headless, SECONDS=str(seconds),
        CALLERS=str(callers),
    )  # fmt: skip
    cluster.kubectl("wait", "pod/load", "-n", CALLERS, "--for=condition=Ready", "--timeout=120s", seconds=130)


def calls_of_load(cluster: Cluster, seconds: float) -> dict[str, int]:
    calls: dict[str, int] = json.loads(cluster.finish("load", CALLERS, seconds))
    say(f"calls: {calls}")
    assert set(calls) == {"client", "http"}, calls
    return calls


def servers(cluster: Cluster, name: str) -> set[str]:
    """UIDs of the servers that are ready."""
    pods = cluster.get("pods", "-l", f"thinkimg.dev/tool={name}")["items"]
    return {
        pod["metadata"]["uid"]
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
    }


def test_a_rolling_update_loses_no_call(callers: Cluster) -> None:
    with tool(callers, "rolling", replicas=2):
        start_load(callers, "rolling", seconds=120, callers=2)
        time.sleep(10)
        before = servers(callers, "rolling")
        patch = {"spec": {"env": [{"name": "ROLLED", "value": "yes"}]}}
        callers.kubectl("patch", "visiontool", "rolling", "-n", VISION, "--type=merge", "-p", json.dumps(patch))
        callers.wait(
            "two other servers",
            lambda: len(now := servers(callers, "rolling")) == 2 and not now & before,
            90,
        )
        calls = calls_of_load(callers, seconds=180)
    assert min(calls.values()) > 100


def test_the_autoscaler_goes_up_and_down_again(callers: Cluster) -> None:
    scaling = {
        "minReplicas": 1,
        "maxReplicas": 3,
        "metric": "CPU",
        "target": 100,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 15}},
    }
    with tool(callers, "elastic", autoscaling=scaling):
        assert len(servers(callers, "elastic")) == 1
        start_load(callers, "elastic", seconds=150, callers=4)
        callers.wait("three servers", lambda: len(servers(callers, "elastic")) == 3, 150)
        calls_of_load(callers, seconds=240)
        callers.wait("one server", lambda: len(servers(callers, "elastic")) == 1, 240)
        assert callers.get("visiontool", "elastic")["spec"]["replicas"] == 1

"""Who reaches whom where nothing may be reached that no NetworkPolicy names, with an agent that enforces it."""

from __future__ import annotations

import pytest

from tests.support.e2e.e2ecluster import VISION, Cluster

CONNECT = """
import os, socket, time
host, port = os.environ["ADDRESS"].rsplit(":", 1)
found, end = "nothing", time.monotonic() + 10  # agents come to know a new pod a moment after it has started
while found == "nothing" and time.monotonic() < end:
    try:
        socket.create_connection((host, int(port)), timeout=5)
        found = "connected"
    except OSError:  # some agents drop packets, others reject them
        time.sleep(0.5)
print(found)
"""
OUTSIDE = "outside"


def reach(cluster: Cluster, namespace: str, address: str) -> str:
    return cluster.run("caller", CONNECT, namespace, ADDRESS=address).strip()


@pytest.fixture(scope="module")
def outside(installed: Cluster) -> Cluster:
    """A namespace of somebody else, without a policy of its own."""
    installed.make_namespace(OUTSIDE)
    installed.wait("crop is Available", lambda: installed.available("crop"), 600)
    return installed


def test_the_gateway_is_reached_from_outside(outside: Cluster) -> None:
    assert reach(outside, OUTSIDE, f"tools-gateway.{VISION}.svc:80") == "connected"


def test_a_tool_is_reached_only_from_namespaces_with_the_label(outside: Cluster) -> None:
    assert reach(outside, OUTSIDE, f"crop.{VISION}.svc:8000") == "nothing"
    outside.make_namespace(OUTSIDE, **{"thinkimg.dev/tool-access": "allowed"})
    try:
        assert reach(outside, OUTSIDE, f"crop.{VISION}.svc:8000") == "connected"
    finally:
        outside.kubectl("label", "namespace", OUTSIDE, "thinkimg.dev/tool-access-")


def test_whoever_has_no_policy_reaches_nothing_in_the_namespace_of_tools(outside: Cluster) -> None:
    address = outside.get("pods", "-l", "thinkimg.dev/tool=crop")["items"][0]["status"]["podIP"]
    assert reach(outside, VISION, f"{address}:8000") == "nothing"


def test_a_tool_that_fetches_nothing_reaches_nothing(outside: Cluster) -> None:
    pod = outside.get("pods", "-l", "thinkimg.dev/tool=crop")["items"][0]["metadata"]["name"]
    gateway = outside.get("service", "tools-gateway")["spec"]["clusterIP"]
    for address in (f"{gateway}:80", "10.96.0.1:443"):
        code = f"import os; os.environ['ADDRESS'] = {address!r}\n{CONNECT}"
        assert outside.exec(pod, code).strip() == "nothing", address


def test_calls_by_those_who_may_go_through(outside: Cluster) -> None:
    said = outside.helm("test", "tools", "-n", VISION, "--logs", "--timeout", "5m")
    assert said.count(" ok: ") == 7, said

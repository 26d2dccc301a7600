"""Tools and gateway in a real cluster: pods that run, answers over Services, no call without a key."""

from __future__ import annotations

from tests.support.e2e.e2ecluster import SYSTEM, VISION, Cluster, condition

WITHOUT_WEIGHTS = {"ocr", "crop", "zoom", "point", "hline", "vline", "segment"}


def test_every_tool_becomes_available(installed: Cluster) -> None:
    def available() -> bool:
        tools = installed.get("visiontools")["items"]
        return {t["metadata"]["name"] for t in tools if condition(t, "Available").get("status") == "True"} == (
            WITHOUT_WEIGHTS
        )

    installed.wait("all tools Available", available, seconds=600)


def test_helm_test_calls_every_tool_through_the_gateway(installed: Cluster) -> None:
    installed.kubectl("rollout", "status", "-n", VISION, "deployment/tools-gateway", "--timeout=300s", seconds=310)
    said = installed.helm("test", "tools", "-n", VISION, "--logs", "--timeout", "5m")
    assert said.count(" ok: ") == len(WITHOUT_WEIGHTS), said


def test_nothing_runs_as_root_or_mounts_a_token_that_it_does_not_use(installed: Cluster) -> None:
    for namespace in (VISION, SYSTEM):
        for pod in installed.get("pods", namespace=namespace)["items"]:
            assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
            volumes = [
                v
                for v in pod["spec"]["volumes"]
                if any("serviceAccountToken" in s for s in v.get("projected", {}).get("sources", []))
            ]
            assert bool(volumes) == (namespace == SYSTEM), pod["metadata"]["name"]


def test_a_tool_server_refuses_calls_without_its_key(installed: Cluster) -> None:
    gateway = installed.get("pods", "-l", "app.kubernetes.io/name=thinkimg-gateway")["items"][0]["metadata"]["name"]
    code = "import httpx; print(httpx.get('http://crop:8000/v1/tools').status_code)"
    assert installed.exec(gateway, code).strip() == "401"

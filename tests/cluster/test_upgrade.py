"""The previous commit's operator makes objects and the current one takes over: nothing that runs is disturbed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.cluster.shipped_access import ACCOUNT, grant
from tests.support.cluster.testcluster import OPERATOR, Namespace, Object, Operator, wait_for


def tool(name: str, **spec: object) -> Object:
    spec = {"tool": "OCR", "replicas": 2, **spec}
    return {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool", "metadata": {"name": name}, "spec": spec}


TOOLS = [
    tool("plain"),
    tool("gpu", tool="SAM", resources={"limits": {"nvidia.com/gpu": 1}}, weights={"uri": "hf://org/sam"}),
    tool("own", tool="Custom", image="registry.example.com/mine:1", auth={"secretRef": {"name": "key"}}),
    tool("elastic", autoscaling={"minReplicas": 2, "maxReplicas": 3, "metric": "CPU"}),
]


def running(namespace: Namespace) -> dict[str, set[str]]:
    """UIDs of each tool's pods."""
    found: dict[str, set[str]] = {}
    for pod in namespace.list("pods"):
        found.setdefault(pod["metadata"]["labels"]["thinkimg.dev/tool"], set()).add(pod["metadata"]["uid"])
    return found


def images(namespace: Namespace) -> dict[str, str]:
    return {item["metadata"]["name"]: item["status"]["image"] for item in namespace.list("visiontools")}


def settled(namespace: Namespace) -> bool:
    tools = namespace.list("visiontools")
    return len(tools) == len(TOOLS) and all(
        item.get("status", {}).get("readyReplicas") == 2 and item["status"].get("replicas") == 2 for item in tools
    )


def test_a_tool_rolls_only_if_its_image_changed(namespace: Namespace, previous: Path) -> None:
    arguments = [*grant(namespace), "--no-leader-election", "--resync-seconds=2"]
    kubeconfig = namespace.cluster.service_account_kubeconfig(namespace.name, ACCOUNT)
    command = [sys.executable, "-c", OPERATOR]
    paths = {"PYTHONPATH": f"{previous / 'operator'}:{previous}"}
    old = Operator(kubeconfig, previous / "operator.log", arguments, paths, command=command)
    old.start()
    try:
        namespace.apply({"apiVersion": "v1", "kind": "List", "items": TOOLS})
        wait_for("all tools are served", lambda: old.check() or settled(namespace))
        assert str(previous) in _loaded_from(paths), "the previous commit's operator was to be run"
    finally:
        old.stop()
    pods, before = running(namespace), images(namespace)
    with namespace.operator(ACCOUNT, arguments=arguments) as current:
        wait_for(
            "it has looked at everything twice",
            lambda: current.check() or current.metric("thinkimg_resyncs_total") >= 2,
        )
        wait_for("all tools are served", lambda: settled(namespace))
        after = images(namespace)
        for name, uids in running(namespace).items():
            assert after[name] != before[name] or uids == pods[name], f"{name} was rolled out without a new image"


def _loaded_from(paths: dict[str, str]) -> str:
    command = [sys.executable, "-c", "import thinkimg_operator.main as m; print(m.__file__)"]
    return subprocess.run(command, env=paths, capture_output=True, text=True, check=True).stdout

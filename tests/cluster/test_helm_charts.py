"""The charts: what they render is accepted by a real API server, bad values are refused by name, upgrades keep keys."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import binaries
import pytest
import yaml

from tests.support import REPOSITORY
from tests.support.cluster.testcluster import Cluster, KubectlError, Namespace, wait_for

CHARTS = REPOSITORY / "charts"
NAMES = sorted(path.name for path in CHARTS.iterdir() if path.is_dir())
KNOWN = ["--api-versions", "thinkimg.dev/v1alpha1/VisionTool"]

TOOLS: list[dict[str, Any]] = [
    {},
    {"auth": {"enabled": False}},
    {"auth": {"existingSecret": "mine", "secretKey": "token"}},
    {"gateway": {"enabled": False}},
    {"gateway": {"replicas": 3}},
    {"gateway": {"autoscaling": {"enabled": True, "maxReplicas": 6}}},
    {"gateway": {"image": {"tag": "1.2.3", "pullPolicy": "Always"}, "imagePullSecrets": [{"name": "registry"}]}},
    {"gateway": {"keys": {"existingSecret": "gateway-keys"}}},
    {"gateway": {"service": {"type": "NodePort", "port": 8080, "annotations": {"a": "b"}}}},
    {"gateway": {"service": {"type": "LoadBalancer"}}},
    {"gateway": {"ingress": {"enabled": True, "host": "tools.example.com"}}},
    {"gateway": {"ingress": {"enabled": True, "host": "tools.example.com", "className": "nginx", "tlsSecret": "tls"}}},
    {"gateway": {"models": [{"name": "qwen", "base_url": "http://qwen.models:8000/v1"}]}},
    {"gateway": {"models": [{"name": "qwen", "base_url": "https://x/v1", "apiKeySecret": {"name": "key"}}]}},
    {"gateway": {"config": {"limits": {"rounds": 3}, "cors_origins": ["https://lab.example.com"]}}},
    {"gateway": {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}},
    {"gateway": {"resources": {}}},
    {"networkPolicy": {"enabled": False}},
    {"networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"team": "vision"}}}]}},
    {"monitoring": {"dashboards": True}},
    {"monitoring": {"serviceMonitor": True, "rules": True, "dashboards": True, "labels": {"release": "prometheus"}}},
    {"toolDefaults": {"imagePullSecrets": [{"name": "registry"}], "nodeSelector": {"disk": "ssd"}}},
    {"toolDefaults": {"replicas": 2}},
    {"tools": {"detect": {"enabled": True}, "sam": {"enabled": True}}},
    {"tools": {"ocr": {"replicas": 3}}},
    {"tools": {"ocr": {"autoscaling": {"maxReplicas": 4, "metric": "CPU", "target": 70}}}},
    {"tools": {"ocr": {"enabled": False}, "point": {"enabled": False}}},
    {"tools": {"mine": {"tool": "Custom", "image": "registry.example.com/mine:1"}}},
    {"tools": {"ocr": {"options": {"text": "plain"}, "env": [{"name": "A", "value": "b"}]}}},
    {"tools": {"sam": {"enabled": True, "weights": {"uri": "pvc://models/sam", "secretRef": None}}}},
]
OPERATOR: list[dict[str, Any]] = [
    {},
    {"watchNamespaces": ["default"]},
    {"replicas": 1, "serviceAccount": {"name": "own", "annotations": {"a": "b"}}},
    {"userRoles": {"create": False}},
    {"serviceMonitors": True},
    {"networkPolicy": {"enabled": False}},
    {"admissionPolicy": {"enabled": True}},
    {"admissionPolicy": {"enabled": True, "images": ["ghcr.io/"], "secrets": ["hub"], "namespaceSelector": {}}},
    {"monitoring": {"podMonitor": True, "rules": True, "dashboards": True, "labels": {"release": "prometheus"}}},
    {"toolImages": {"OCR": "registry.example.com/ocr:1", "*": "registry.example.com/tool:1"}},
    {"runtimeImage": "registry.example.com/trainer:1", "logLevel": "DEBUG", "resyncSeconds": 60},
    {"image": {"repository": "localhost:5000/mirror/operator"}},
    {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}], "imagePullSecrets": [{"name": "r"}]},
]
UNKNOWN_TO_THE_SERVER = ("monitoring.coreos.com/v1",)
"""Kinds of Prometheus' operator, which this control plane does not have."""


@pytest.fixture(scope="module")
def helm() -> Path:
    return binaries.ensure(["helm"])["helm"]


def run(helm: Path, *arguments: str, values: dict[str, Any] | None = None, kubeconfig: Path | None = None) -> str:
    """What helm prints. Raises CalledProcessError, whose `stderr` says why."""
    given = [*arguments, "--values", "-"] if values is not None else list(arguments)
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig or "/nonexistent")}
    return subprocess.run(
        [str(helm), *given], input=yaml.safe_dump(values), check=True, capture_output=True, text=True, env=environment
    ).stdout


def rendered(helm: Path, chart: str, values: dict[str, Any], namespace: str = "default") -> list[dict[str, Any]]:
    text = run(helm, "template", "release", str(CHARTS / chart), "-n", namespace, *KNOWN, values=values)
    return [document for document in yaml.safe_load_all(text) if document]


def named(values: dict[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":"))[:80]


def test_the_readme_of_a_chart_says_what_its_values_are(tmp_path: Path) -> None:
    shutil.copytree(CHARTS, tmp_path / "charts")
    subprocess.run([REPOSITORY / "hack" / "chart_docs.sh", str(tmp_path / "charts")], check=True)
    for name in NAMES:
        generated = (tmp_path / "charts" / name / "README.md").read_text()
        assert generated == (CHARTS / name / "README.md").read_text(), "run `make chart-docs`"


@pytest.mark.parametrize("chart", NAMES)
def test_a_chart_passes_lint(helm: Path, chart: str) -> None:
    unchecked = {"thinkimg-tools": {"checkCRDs": False}, "thinkimg": {"thinkimg-tools": {"checkCRDs": False}}}
    run(helm, "lint", "--strict", str(CHARTS / chart), values=unchecked.get(chart, {}))


@pytest.mark.parametrize("values", TOOLS, ids=named)
def test_the_server_accepts_what_the_tools_chart_renders(
    helm: Path, cluster: Cluster, namespace: Namespace, values: dict[str, Any]
) -> None:
    accepted_by_server(cluster, namespace, rendered(helm, "thinkimg-tools", values, namespace.name))


@pytest.mark.parametrize("values", OPERATOR, ids=named)
def test_the_server_accepts_what_the_operator_chart_renders(
    helm: Path, cluster: Cluster, namespace: Namespace, values: dict[str, Any]
) -> None:
    accepted_by_server(cluster, namespace, rendered(helm, "thinkimg-operator", values, namespace.name))


def test_who_may_edit_a_namespace_may_edit_our_objects_in_it(
    helm: Path, cluster: Cluster, namespace: Namespace
) -> None:
    documents = rendered(helm, "thinkimg-operator", {}, namespace.name)
    roles = [role for role in documents if role["metadata"]["name"].startswith(f"{namespace.name}-release-")]
    assert [role["kind"] for role in roles] == ["ClusterRole", "ClusterRole"]

    def may(role: str, verb: str, resource: str) -> bool:
        kind, _, subresource = resource.partition("/")
        asked = [verb, f"{kind}.thinkimg.dev", f"--subresource={subresource}"]
        user = f"--as=system:serviceaccount:{namespace.name}:{role}"
        try:
            return namespace.kubectl("auth", "can-i", *asked, user).strip() == "yes"
        except KubectlError:  # how it says no
            return False

    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(roles))
    try:
        for role in ("view", "edit", "admin"):
            namespace.kubectl("create", "serviceaccount", role)
            account = f"--serviceaccount={namespace.name}:{role}"
            namespace.kubectl("create", "rolebinding", role, f"--clusterrole={role}", account)
        for role, verb in (
            ("view", "get"),
            ("edit", "list"),
            ("edit", "create"),
            ("admin", "delete"),
            ("edit", "patch"),
        ):
            for resource in ("visiontools", "toolrljobs"):
                wait_for(f"{role}: {verb} {resource}", functools.partial(may, role, verb, resource))
        assert may("edit", "patch", "visiontools/scale")
        assert not may("view", "create", "toolrljobs")
        assert not may("edit", "patch", "toolrljobs/status")
    finally:
        cluster.kubectl("delete", "clusterrole", *(role["metadata"]["name"] for role in roles))


def accepted_by_server(cluster: Cluster, namespace: Namespace, documents: list[dict[str, Any]]) -> None:
    known = [document for document in documents if document["apiVersion"] not in UNKNOWN_TO_THE_SERVER]
    assert known
    cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(known))
    for document in documents:
        if document["kind"] in ("Deployment", "Pod"):
            restricted(document["spec"]["template"]["spec"] if document["kind"] == "Deployment" else document["spec"])


def restricted(pod: dict[str, Any]) -> None:
    """What the Pod Security standard of that name asks for, and a root that is not written to."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(
    ("chart", "values", "named"),
    [
        ("thinkimg-tools", {"gateway": {"replicas": "many"}}, "gateway.replicas"),
        ("thinkimg-tools", {"gateway": {"config": {"port": 1}}}, "port"),
        ("thinkimg-tools", {"gateway": {"models": [{"name": "m", "base_url": "qwen:8000"}]}}, "base_url"),
        ("thinkimg-tools", {"gateway": {"service": {"type": "Nodeport"}}}, "type"),
        ("thinkimg-tools", {"tools": {"OCR": {"tool": "OCR"}}}, "OCR"),
        ("thinkimg-tools", {"tools": {"ocr": {"replicas": -1}}}, "replicas"),
        ("thinkimg-tools", {"tool": {}}, "tool"),
        ("thinkimg-tools", {"auth": {"existingSecret": "Not A Name"}}, "existingSecret"),
        ("thinkimg-operator", {"replicas": 0}, "replicas"),
        ("thinkimg-operator", {"watchNamespaces": "default"}, "watchNamespaces"),
        ("thinkimg-operator", {"logLevel": "LOUD"}, "logLevel"),
        ("thinkimg-operator", {"toolImage": {}}, "toolImage"),
        ("thinkimg-operator", {"admissionPolicy": {"images": ["ghcr.io/mine"]}}, "images"),
        ("thinkimg-operator", {"admissionPolicy": {"endpoints": ["https://a/v1'"]}}, "endpoints"),
    ],
)
def test_bad_values_are_refused_by_name(helm: Path, chart: str, values: dict[str, Any], named: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        rendered(helm, chart, values)
    assert named.rpartition(".")[2] in refusal.value.stderr


def test_an_ingress_needs_a_host(helm: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        rendered(helm, "thinkimg-tools", {"gateway": {"ingress": {"enabled": True}}})
    assert "gateway.ingress.host" in refusal.value.stderr


def test_a_tool_with_the_name_under_which_the_gateway_finds_another_is_refused(helm: Path) -> None:
    both = {"tools": {"zoom": {"tool": "Crop"}, "zoom-pods": {"tool": "Crop"}}}
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        rendered(helm, "thinkimg-tools", both)
    assert "tools.zoom-pods has the name of the Service" in refusal.value.stderr
    rendered(helm, "thinkimg-tools", {**both, "gateway": {"enabled": False}})


def test_without_the_crds_the_tools_chart_says_what_is_missing(helm: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        run(helm, "template", "release", str(CHARTS / "thinkimg-tools"))
    assert "install the charts thinkimg-crds and thinkimg-operator first" in refusal.value.stderr


def test_a_tool_gets_the_defaults_that_it_does_not_set(helm: Path) -> None:
    values = {
        "toolDefaults": {"replicas": 2, "nodeSelector": {"disk": "ssd"}},
        "tools": {"ocr": {"replicas": 5}, "point": {"replicas": 0}, "mine": {"tool": "Crop"}},
    }
    tools = {
        t["metadata"]["name"]: t["spec"] for t in rendered(helm, "thinkimg-tools", values) if t["kind"] == "VisionTool"
    }
    assert tools["ocr"]["replicas"] == 5
    assert tools["point"]["replicas"] == 0
    assert tools["crop"]["replicas"] == tools["mine"]["replicas"] == 2
    assert tools["ocr"]["nodeSelector"] == {"disk": "ssd"}


def test_a_gateway_without_tools_is_refused(helm: Path) -> None:
    tools = yaml.safe_load((CHARTS / "thinkimg-tools" / "values.yaml").read_text())["tools"]
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        rendered(helm, "thinkimg-tools", {"tools": {name: {"enabled": False} for name in tools}})
    assert "set gateway.enabled=false" in refusal.value.stderr


def test_images_are_those_beside_the_operators(helm: Path) -> None:
    for repository, prefix in (("ghcr.io/a/operator", "ghcr.io/a/"), ("operator", "")):
        found = rendered(helm, "thinkimg-operator", {"image": {"repository": repository, "tag": "other"}})
        [deployment] = [document for document in found if document["kind"] == "Deployment"]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        assert {f"--image-prefix={prefix}", "--image-tag=0.1.0"} <= set(container["args"])


def test_no_two_objects_of_the_chart_of_everything_have_one_name(helm: Path) -> None:
    monitoring = {"rules": True, "dashboards": True}
    values = {
        "thinkimg-operator": {"monitoring": {**monitoring, "podMonitor": True}},
        "thinkimg-tools": {"monitoring": {**monitoring, "serviceMonitor": True}},
    }
    found = rendered(helm, "thinkimg", values)
    names = [(document["kind"], document["metadata"]["name"]) for document in found]
    assert len(set(names)) == len(names)
    assert ("PrometheusRule", "release-tools") in names


def test_an_upgrade_keeps_keys_and_an_uninstall_leaves_nothing(
    helm: Path, cluster: Cluster, namespace: Namespace
) -> None:
    where = ["-n", namespace.name, "--kubeconfig", str(cluster.kubeconfig)]
    run(helm, "install", "vision", str(CHARTS / "thinkimg-tools"), *where)
    first = secrets(cluster, namespace)
    assert set(first) == {"vision-tool-key", "vision-gateway-keys"}

    run(helm, "upgrade", "vision", str(CHARTS / "thinkimg-tools"), "--set", "gateway.replicas=2", *where)
    assert secrets(cluster, namespace) == first

    entry = json.loads(base64.b64decode(first["vision-gateway-keys"]["keys.json"]))["keys"][0]
    key = base64.b64decode(first["vision-gateway-keys"]["key"]).decode()
    assert entry["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    assert key.startswith(f"ti-{entry['id']}-")

    run(helm, "uninstall", "vision", *where)
    kinds = "visiontools,deployments,services,secrets,configmaps,networkpolicies"
    left = json.loads(cluster.kubectl("get", kinds, "-n", namespace.name, "-o", "json"))["items"]
    assert [item["metadata"]["name"] for item in left] == ["kube-root-ca.crt"]


def test_the_chart_of_everything_installs_in_one_go(helm: Path, cluster: Cluster, namespace: Namespace) -> None:
    where = ["-n", namespace.name, "--kubeconfig", str(cluster.kubeconfig)]
    values = {"thinkimg-operator": {"watchNamespaces": [namespace.name]}}
    run(helm, "install", "all", str(CHARTS / "thinkimg"), *where, values=values)
    deployments = json.loads(cluster.kubectl("get", "deployments", "-n", namespace.name, "-o", "json"))["items"]
    assert {item["metadata"]["name"] for item in deployments} >= {"all", "all-gateway"}
    assert "ocr" in cluster.kubectl("get", "visiontools", "-n", namespace.name)
    run(helm, "uninstall", "all", *where)
    assert "visiontools.thinkimg.dev" in cluster.kubectl("get", "crd", "-o", "name")


def secrets(cluster: Cluster, namespace: Namespace) -> dict[str, dict[str, str]]:
    listed = json.loads(cluster.kubectl("get", "secrets", "-n", namespace.name, "-o", "json"))["items"]
    return {item["metadata"]["name"]: item["data"] for item in listed if item["type"] == "Opaque"}

"""The chart, installed by helm: accepted in a restricted namespace, and enough for the operator to work with."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import binaries
import pytest
import yaml

from tests.support import REPOSITORY
from tests.support.cluster.shipped_access import rules
from tests.support.cluster.testcluster import Cluster, Namespace, Object, Operator, wait_for

CHARTS = REPOSITORY / "charts"
RELEASE = "thinkimg-operator"
SERVICE_MONITORS: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "names": {"kind": "ServiceMonitor", "plural": "servicemonitors"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def helm(cluster: Cluster, *arguments: str) -> str:
    program = str(binaries.ensure(["helm"])["helm"])
    folders = {f"HELM_{name}_HOME": str(cluster.folder / "helm" / name) for name in ("CACHE", "CONFIG", "DATA")}
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), **folders}
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(cluster: Cluster, *arguments: str) -> list[Object]:
    text = helm(cluster, "template", RELEASE, str(CHARTS / "thinkimg-operator"), *arguments)
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace with the strictest pod security, and the chart in it."""
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(SERVICE_MONITORS))
    with cluster.namespace("release") as namespace:
        restricted = "pod-security.kubernetes.io/enforce=restricted"
        cluster.kubectl("label", "namespace", namespace.name, restricted)
        where = ["--namespace", namespace.name]
        helm(cluster, "install", RELEASE, str(CHARTS / "thinkimg-operator"), *where, "--set", "serviceMonitors=true")
        yield namespace
        helm(cluster, "uninstall", RELEASE, *where)


@pytest.mark.parametrize("chart", ["thinkimg-operator", "thinkimg-crds"])
def test_helm_finds_nothing_to_complain_about(cluster: Cluster, chart: str) -> None:
    helm(cluster, "lint", "--strict", str(CHARTS / chart))


def test_the_crds_of_the_chart_are_those_that_kubectl_applies(cluster: Cluster) -> None:
    text = helm(cluster, "template", "crds", str(CHARTS / "thinkimg-crds"))
    applied = [yaml.safe_load(file.read_text()) for file in sorted((CHARTS / "thinkimg-crds" / "templates").iterdir())]
    found = sorted((document for document in yaml.safe_load_all(text) if document), key=_name)
    assert found == sorted(applied, key=_name)


def _name(document: Object) -> str:
    return str(document["metadata"]["name"])


def test_its_pods_are_accepted_where_only_restricted_ones_are(release: Namespace) -> None:
    def available() -> int:
        return (release.get("deployment", RELEASE) or {}).get("status", {}).get("availableReplicas", 0)

    wait_for("both pods run", lambda: available() == 2)


def test_with_its_arguments_and_its_rights_the_operator_works_in_the_whole_cluster(
    release: Namespace, namespace: Namespace, tmp_path: Path
) -> None:
    deployment = release.get("deployment", RELEASE)
    assert deployment is not None
    arguments = [*deployment["spec"]["template"]["spec"]["containers"][0]["args"], "--listen=127.0.0.1:0"]
    kubeconfig = release.cluster.service_account_kubeconfig(release.name, RELEASE)
    environment = {"POD_NAMESPACE": release.name, "POD_NAME": "operator-0"}
    operator = Operator(kubeconfig, tmp_path / "operator.log", arguments, environment)
    operator.start()
    try:
        spec = {"tool": "Crop", "auth": {"secretRef": {"name": "key"}}}
        tool = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool", "metadata": {"name": "crop"}, "spec": spec}
        namespace.apply(tool)
        wait_for("the tool is served", lambda: operator.check() or _is_ready(namespace, "crop"))
        monitor = wait_for("it is monitored", lambda: namespace.get("servicemonitor", "crop"))
        assert monitor["spec"]["endpoints"][0]["authorization"]["credentials"] == {"name": "key", "key": "token"}
        lease = release.get("lease", "thinkimg-operator")
        assert lease is not None
        assert lease["spec"]["holderIdentity"].startswith("operator-0_")
    finally:
        assert operator.stop() == 0


def _is_ready(namespace: Namespace, name: str) -> bool:
    return (namespace.get("visiontool", name) or {}).get("status", {}).get("readyReplicas") == 1


def test_a_monitor_of_that_name_that_is_somebody_elses_is_left_alone(release: Namespace, namespace: Namespace) -> None:
    theirs = {"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor", "metadata": {"name": "ocr"}}
    namespace.apply({**theirs, "spec": {"selector": {"matchLabels": {"app": "theirs"}}, "endpoints": []}})
    kubeconfig = release.cluster.service_account_kubeconfig(release.name, RELEASE)
    arguments = ["--service-monitors", "--no-leader-election", f"--namespace={namespace.name}", "--listen=127.0.0.1:0"]
    operator = Operator(kubeconfig, namespace.cluster.folder / "monitors.log", arguments)
    operator.start()
    try:
        spec = {"tool": "OCR"}
        tool = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool", "metadata": {"name": "ocr"}, "spec": spec}
        namespace.apply(tool)
        wait_for(
            "it is refused", lambda: operator.check() or "NameTaken" in namespace.kubectl("get", "vt", "-o", "yaml")
        )
    finally:
        operator.stop()


def test_for_single_namespaces_there_is_no_right_in_the_others(cluster: Cluster) -> None:
    documents = rendered(cluster, "--set", "watchNamespaces={team-a,team-b}")
    assert [d["kind"] for d in documents if d["kind"].startswith("Cluster")] == []
    roles = {d["metadata"].get("namespace"): d["rules"] for d in documents if d["kind"] == "Role"}
    assert roles["team-a"] == roles["team-b"] == rules("rules.yaml")
    (deployment,) = (d for d in documents if d["kind"] == "Deployment")
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert {"--namespace=team-a", "--namespace=team-b"} <= set(arguments)


def test_a_role_for_the_whole_cluster_has_the_rules_that_tests_run_under(cluster: Cluster) -> None:
    named = {d["metadata"]["name"]: d for d in rendered(cluster) if d["kind"] == "ClusterRole"}
    (role,) = (role for name, role in named.items() if not name.endswith(("-view", "-edit")))
    assert role["rules"] == rules("rules.yaml")

"""A kind cluster with images built from this checkout and everything installed by Helm: what a user gets.

`make e2e` runs these tests. E2E_KUBECONFIG names another cluster, whose nodes have the images (REGISTRY, VERSION).
KEEP=1 leaves the cluster up.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2ecluster import REPOSITORY, SYSTEM, VISION, Cluster, say

REGISTRY = os.environ.get("REGISTRY", "ghcr.io/thinkimg")
VERSION = os.environ.get("VERSION", "0.1.0")
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster with images, and nothing of ours installed yet."""
    if named := os.environ.get("E2E_KUBECONFIG"):
        yield Cluster(Path(named))
        return
    known = subprocess.run(
        [os.environ.get("DOCKER", "docker"), "container", "inspect", "thinkimg-control-plane"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if known.returncode == 0:  # somebody's work may be in it
        pytest.exit("there is a cluster thinkimg already: name it by E2E_KUBECONFIG, or hack/kind/kind down", 2)
    kubeconfig = tmp_path_factory.mktemp("kind") / "kubeconfig"
    images = [f"{REGISTRY}/{name}:{VERSION}" for name in ("runtime", "tool", "operator")]
    timed("images", "hack/docker/build.sh", "runtime", "tool", "operator", "trainer")
    timed("cluster", "hack/kind/kind", "up", "--kubeconfig", str(kubeconfig))
    try:
        timed("load", "hack/kind/kind", "load", *images)
        # By far the largest, and moved at 44 MB/s: only where trainers run.
        timed("load trainer", "hack/kind/kind", "load", "--nodes", "thinkimg-worker", f"{REGISTRY}/trainer:{VERSION}")
        yield Cluster(kubeconfig)
    finally:
        if not os.environ.get("KEEP"):
            timed("down", "hack/kind/kind", "down", "--kubeconfig", str(kubeconfig))


def timed(what: str, *command: str) -> None:
    started = time.monotonic()
    subprocess.run(command, cwd=REPOSITORY, check=True)
    say(f"{what}: {time.monotonic() - started:.0f} s")


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """CRDs, operator and tools, as the README installs them; two namespaces with Pod Security `restricted`."""
    for name in (SYSTEM, VISION):
        namespace = document("v1", "Namespace", {"name": name, "labels": RESTRICTED})
        cluster.kubectl("apply", "-f", "-", stdin=namespace)
    cluster.helm("upgrade", "--install", "crds", "charts/thinkimg-crds", "-n", SYSTEM)
    trainer = f"{REGISTRY}/trainer:{VERSION}"
    operator = {
        "image": {"repository": f"{REGISTRY}/operator", "tag": VERSION},
        "toolImages": {"*": f"{REGISTRY}/tool:{VERSION}"},
        "runtimeImage": trainer,
    }
    install(cluster, "operator", "thinkimg-operator", SYSTEM, operator)
    gateway = {"image": {"repository": f"{REGISTRY}/runtime", "tag": VERSION}}
    small = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}
    tools = {name: {"resources": small} for name in ("ocr", "zoom", "point")}
    install(cluster, "tools", "thinkimg-tools", VISION, {"gateway": gateway, "tools": tools})
    return cluster


def install(cluster: Cluster, release: str, chart: str, namespace: str, values: dict[str, Any]) -> None:
    file = cluster.kubeconfig.with_name(f"{release}.yaml")
    file.write_text(yaml.safe_dump(values))
    cluster.helm(
        "upgrade", "--install", release, str(REPOSITORY / "charts" / chart), "-n", namespace, "-f", str(file), "--wait",
        "--timeout", "10m",
    )  # fmt: skip


def document(api_version: str, kind: str, metadata: dict[str, Any], **rest: Any) -> str:
    return yaml.safe_dump({"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest})

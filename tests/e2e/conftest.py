"""A kind cluster with images built from this checkout and everything installed by Helm: what a user gets.

`make e2e` runs the tests of this folder on a control plane and one worker; `make e2e-full` those of `full`, on two
workers (E2E_WORKERS) with enforced NetworkPolicies and metrics for autoscalers. E2E_KUBECONFIG names another cluster,
whose nodes have the images (REGISTRY). KEEP=1 leaves the cluster up.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.e2e.e2ecluster import DOCKER, REGISTRY, SYSTEM, VERSION, VISION, Cluster, document
from tests.support.e2e.installing import install_all, timed

WORKERS = int(os.environ.get("E2E_WORKERS", "1"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The usual limit is far too short for images and clusters; what is waited for here has a limit of its own."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(2 * 3600))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster with images, and nothing of ours installed yet."""
    if named := os.environ.get("E2E_KUBECONFIG"):
        yield Cluster(Path(named))
        return
    known = subprocess.run(
        [DOCKER, "container", "inspect", "thinkimg-control-plane"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if known.returncode == 0:  # somebody's work may be in it
        pytest.exit("there is a cluster thinkimg already: name it by E2E_KUBECONFIG, or hack/kind/kind down", 2)
    kubeconfig = tmp_path_factory.mktemp("kind") / "kubeconfig"
    images = [f"{REGISTRY}/{name}:{VERSION}" for name in ("runtime", "tool", "operator")]
    timed("images", "hack/docker/build.sh", "runtime", "tool", "operator", "trainer")
    timed("cluster", "hack/kind/kind", "up", "--workers", str(WORKERS), "--kubeconfig", str(kubeconfig))
    try:
        timed("load", "hack/kind/kind", "load", *images)
        # By far the largest, and moved at 44 MB/s: only where trainers run.
        workers = ",".join(["thinkimg-worker", *(f"thinkimg-worker{n}" for n in range(2, WORKERS + 1))])
        timed("load trainer", "hack/kind/kind", "load", "--nodes", workers, f"{REGISTRY}/trainer:{VERSION}")
        if WORKERS > 1:
            # kind's published node image enforces NetworkPolicies by itself; one that is built here does not.
            addons = ["metrics", *(["network-policies"] if "BASE_IMAGE" in os.environ else [])]
            timed("add-ons", "hack/kind/kind", "add", *addons, "--kubeconfig", str(kubeconfig))
        yield Cluster(kubeconfig)
    finally:
        if not os.environ.get("KEEP"):
            timed("down", "hack/kind/kind", "down", "--kubeconfig", str(kubeconfig))


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """CRDs, operator and tools, as the README installs them; two namespaces with Pod Security `restricted`, where
    nothing may be reached that no NetworkPolicy names."""
    for name in (SYSTEM, VISION):
        cluster.make_namespace(name)
        deny = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        policy = document(
            "networking.k8s.io/v1", "NetworkPolicy", {"name": "default-deny", "namespace": name}, spec=deny
        )
        cluster.kubectl("apply", "-f", "-", stdin=policy)
    install_all(cluster)
    return cluster

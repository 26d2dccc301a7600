"""The rights that the chart gives the operator, for the ServiceAccount of a test: never more than users install."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from tests.support import REPOSITORY

if TYPE_CHECKING:
    from tests.support.cluster.testcluster import Namespace

FILES = REPOSITORY / "charts" / "thinkimg-operator" / "files"
ACCOUNT = "thinkimg-operator"


def rules(*files: str) -> list[dict[str, Any]]:
    """Rules as the chart has them."""
    return [rule for file in files for rule in yaml.safe_load((FILES / file).read_text())]


def grant(namespace: Namespace) -> list[str]:
    """Make the ServiceAccount with the chart's Role; returns the operator's arguments to work in that namespace."""
    scope = f"namespaces/{namespace.name}"
    _make(namespace, f"/api/v1/{scope}/serviceaccounts", ACCOUNT)
    _bind(namespace, f"{scope}/", "Role", ACCOUNT, rules("rules.yaml", "leader-rules.yaml"))
    return [f"--namespace={namespace.name}", f"--lease-namespace={namespace.name}", "--listen=127.0.0.1:0"]


def grant_everywhere(namespace: Namespace) -> list[str]:
    """As `grant`, with the same rules for all namespaces; the ServiceAccount and the lease are in this one."""
    _, *arguments = grant(namespace)
    _bind(namespace, "", "ClusterRole", f"{ACCOUNT}-{namespace.name}", rules("rules.yaml"))
    return arguments


def _bind(namespace: Namespace, scope: str, kind: str, name: str, allowed: list[dict[str, Any]]) -> None:
    """Make a role of that kind, and bind the namespace's ServiceAccount to it."""
    path = f"/apis/rbac.authorization.k8s.io/v1/{scope}{kind.lower()}"
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace.name}
    _make(namespace, f"{path}s", name, rules=allowed)
    _make(namespace, f"{path}bindings", name, roleRef=role, subjects=[subject])


def _make(namespace: Namespace, path: str, name: str, **body: Any) -> None:
    status, answer = namespace.cluster.request("POST", path, {"metadata": {"name": name}, **body})
    assert status in (201, 409), answer  # it may be there already

"""The rights that the chart gives the operator, for the ServiceAccount of a test: never more than users install."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from testcluster import Namespace

FILES = Path(__file__).parents[2] / "charts" / "thinkimg-operator" / "files"
ACCOUNT = "thinkimg-operator"


def rules(*files: str) -> list[dict[str, Any]]:
    """Rules as the chart has them."""
    return [rule for file in files for rule in yaml.safe_load((FILES / file).read_text())]


def grant(namespace: Namespace) -> list[str]:
    """Make the ServiceAccount with the chart's Role; returns the operator's arguments to work in that namespace."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT}
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace.name}
    scope = f"namespaces/{namespace.name}"
    rbac = f"/apis/rbac.authorization.k8s.io/v1/{scope}"
    objects = {
        f"/api/v1/{scope}/serviceaccounts": {},
        f"{rbac}/roles": {"rules": rules("rules.yaml", "leader-rules.yaml")},
        f"{rbac}/rolebindings": {"roleRef": role, "subjects": [subject]},
    }
    for path, body in objects.items():
        status, answer = namespace.cluster.request("POST", path, {"metadata": {"name": ACCOUNT}, **body})
        assert status in (201, 409), answer  # it may be there already
    return [f"--namespace={namespace.name}", f"--lease-namespace={namespace.name}", "--listen=127.0.0.1:0"]


def grant_everywhere(namespace: Namespace) -> list[str]:
    """As `grant`, with the same rules for all namespaces; the ServiceAccount and the lease are in this one."""
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    name = f"{ACCOUNT}-{namespace.name}"
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace.name}
    arguments = grant(namespace)
    for path, body in {
        f"{rbac}/clusterroles": {"rules": rules("rules.yaml")},
        f"{rbac}/clusterrolebindings": {"roleRef": role, "subjects": [subject]},
    }.items():
        status, answer = namespace.cluster.request("POST", path, {"metadata": {"name": name}, **body})
        assert status in (201, 409), answer
    return arguments[1:]

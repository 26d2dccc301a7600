"""Sees everything that the operators of a test run say and do: conditions, events, and requests in the audit log."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterable
from typing import Any

from tests.support.cluster.shipped_access import ACCOUNT

Verb = tuple[str, str, str]
"""API group (empty: the core), resource with its subresource, verb."""

WATCHED = ("thinkimg.dev/v1alpha1/visiontools", "thinkimg.dev/v1alpha1/toolrljobs", "events.k8s.io/v1/events")


class Witness:
    """Watches resources and events of all namespaces from the beginning of the run."""

    def __init__(self, port: int) -> None:
        """`port` of a `kubectl proxy` on this machine."""
        self.reasons: set[tuple[str, str, str]] = set()
        """Kind, condition, reason."""
        self.events: set[tuple[str, str]] = set()
        """Kind, reason."""
        self._port = port
        self._over = threading.Event()
        for path in WATCHED:
            threading.Thread(target=self._watch, args=(path,), daemon=True).start()

    def close(self) -> None:
        self._over.set()

    def _watch(self, path: str) -> None:
        while not self._over.wait(0.2):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)
                # From "any" version on: everything that exists, then what happens.
                connection.request("GET", f"/apis/{path}?watch=1&resourceVersion=0")
                for line in connection.getresponse():
                    self._see(json.loads(line).get("object") or {})
            except (OSError, ValueError, http.client.HTTPException):
                continue

    def _see(self, item: dict[str, Any]) -> None:
        if item.get("kind") == "Event":
            self.events.add((item["regarding"].get("kind", ""), item["reason"]))
            return
        for condition in item.get("status", {}).get("conditions", []):
            self.reasons.add((item["kind"], condition["type"], condition["reason"]))


def used_verbs(audit: Iterable[dict[str, Any]]) -> set[Verb]:
    """What operators under the shipped ServiceAccount have asked for. An apply that created needed `create` too."""
    used = set()
    for event in audit:
        asked = event.get("objectRef")
        if asked is None or not _is_operator(event["user"]["username"]):
            continue
        resource = "/".join(part for part in (asked["resource"], asked.get("subresource")) if part)
        used.add((asked.get("apiGroup", ""), resource, event["verb"]))
        if event["verb"] == "patch" and event.get("responseStatus", {}).get("code") == 201:
            used.add((asked.get("apiGroup", ""), resource, "create"))
    return used


def _is_operator(user: str) -> bool:
    return user.startswith("system:serviceaccount:") and user.endswith(f":{ACCOUNT}")


def verbs_of(rules: Iterable[dict[str, Any]]) -> set[Verb]:
    """What a role allows."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }

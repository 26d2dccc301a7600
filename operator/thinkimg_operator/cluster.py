"""The Kubernetes API as the operator uses it: reads, writes, and here the status of our resources and what is told of
them in Events.

Credentials, TLS and connections are those of the official client (`kubernetes.aio`); its generated models and its
discovery are not used, because bodies stay plain JSON and every path is known (`kinds.py`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubernetes.aio.client import ApiClient
from pydantic import BaseModel

from thinkimg.api import ToolRLJobStatus, VisionToolStatus, with_unknown
from thinkimg.api.pod_contract import CONTROLLER

from .apierrors import ApiError
from .cache import MANAGER, digest_of
from .conditions import shortened
from .credentials import read_credentials
from .kinds import KINDS, Body, key_of
from .transport import MERGE, Request
from .writing import Writer

STATUSES: Mapping[str, type[BaseModel]] = {"ToolRLJob": ToolRLJobStatus, "VisionTool": VisionToolStatus}


class Cluster(Writer):
    """One API server."""

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None, context: str | None = None, **options: Any) -> Cluster:
        """With a kubeconfig (given, or `KUBECONFIG`, or the default file), else as a pod's ServiceAccount.

        Raises:
            kubernetes.aio.config.ConfigException: there are no credentials.
        """
        return cls(ApiClient(await read_credentials(kubeconfig, context)), **options)

    async def patch_status(self, body: Body, status: Mapping[str, Any], *, keep: bool = False) -> bool:
        """Write the status of `body`'s object if it is not `status` already. Returns whether it was written.

        Fields that this version does not know, as a newer operator leaves them, stay.

        `keep`: the object will be looked at again soon, and then the answer is its `latest` body.

        Raises:
            ApiError: 409 when the object has changed since `body` was read: read again and decide anew.
        """
        key, before = key_of(body), body.get("status") or {}
        status = with_unknown(STATUSES[key.kind], before, status)
        if before == status:
            return False
        removed = dict.fromkeys(before.keys() - status.keys())
        patch = {
            "metadata": {"resourceVersion": body["metadata"]["resourceVersion"], "uid": body["metadata"]["uid"]},
            "status": {**status, **removed},
        }
        path = KINDS[key.kind].path(key.namespace, key.name, "status")
        answer = await self.ask(Request("PATCH", path, {"fieldManager": MANAGER}, patch, MERGE))
        if self.cache.observe(answer) and keep:
            self.cache.deliver(answer)
        return True

    async def event(
        self, regarding: Body, reason: str, note: str, *, occurrence: str, warning: bool = False, action: str = ""
    ) -> None:
        """Record a transition as an events.k8s.io/v1 Event, once.

        Its name follows from object, reason and `occurrence`, so that saying it again after a crash changes nothing.
        Write it before the status that records the transition: then none is lost.

        Args:
            occurrence: what tells this transition from a later one of the same reason: an attempt's number, the
                status's previous `lastTransitionTime`.
            action: what the operator did; default: the reason.
        """
        key = key_of(regarding)
        metadata = regarding["metadata"]
        name = f"{key.name}.{digest_of([metadata['uid'], reason, occurrence])}"
        body = {
            "apiVersion": KINDS["Event"].api_version,
            "kind": "Event",
            "metadata": {"name": name, "namespace": key.namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER,
            "reportingInstance": os.environ.get("HOSTNAME") or MANAGER,
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "action": action or reason,
            "note": shortened(note),
            "regarding": {
                "apiVersion": regarding["apiVersion"],
                "kind": key.kind,
                "namespace": key.namespace,
                "name": key.name,
                "uid": metadata["uid"],
            },
        }
        try:
            path = KINDS["Event"].path(key.namespace)
            await self.ask(Request("POST", path, {"fieldManager": MANAGER}, body))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

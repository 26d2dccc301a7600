"""Reading objects from the API server: one, all of a kind page by page, what changes, and the log of a pod."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from kubernetes.aio.client import ApiClient

from .apierrors import ApiError
from .cache import Cache
from .kinds import KINDS, Body, Key
from .metrics import Metrics
from .transport import Request, Transport


class Reader(Transport):
    """Reads, and remembers a little of what it read."""

    def __init__(
        self,
        api: ApiClient,
        *,
        metrics: Metrics | None = None,
        namespaces: Sequence[str] = (),
        may_write: Callable[[], bool] = lambda: True,
        request_seconds: float = 15.0,
    ) -> None:
        """
        Args:
            namespaces: the ones to work in; none: all of the cluster.
            may_write, request_seconds: as for `Transport`.
        """
        super().__init__(api, metrics=metrics, may_write=may_write, request_seconds=request_seconds)
        self.cache = Cache()
        self.namespaces = tuple(namespaces)

    async def get(self, key: Key) -> Body | None:
        """The object as it is now; None when there is none."""
        try:
            body = await self.ask(Request("GET", KINDS[key.kind].path(key.namespace, key.name)))
        except ApiError as error:
            if error.not_found:
                return None
            raise
        return body

    async def latest(self, key: Key) -> Body | None:
        """The newest body that a watch delivered for this reconciliation, else `get`.

        It may be a moment old; a status written from it is refused as a conflict if that mattered.
        """
        return self.cache.take(key) or await self.get(key)

    async def list(
        self, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = "", page: int = 500
    ) -> AsyncIterator[Body]:
        """Objects of a kind, page by page, in one consistent state for each namespace.

        `namespace` None: all namespaces that this operator works in. Raises `ApiError` 410 when reading took so long
        that the state is no longer kept.
        """
        async for items, _ in self.pages(kind, namespace, labels=labels, fields=fields, page=page):
            for body in items:
                yield body

    async def pages(
        self, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = "", page: int = 500
    ) -> AsyncIterator[tuple[Sequence[Body], int]]:
        """As `list`, whole pages with the resource version that they show."""
        known = KINDS[kind]
        scopes: Sequence[str | None] = (namespace,) if namespace else (self.namespaces or (None,))
        for scope in scopes if known.namespaced else (None,):
            query = {"limit": str(page), "labelSelector": labels, "fieldSelector": fields}
            while True:
                answer = await self.ask(Request("GET", known.path(scope), query))
                items = answer.get("items") or []
                for body in items:  # of a list, the API server leaves these out
                    body["apiVersion"], body["kind"] = known.api_version, known.name
                metadata = answer["metadata"]
                yield items, int(metadata["resourceVersion"])
                if not metadata.get("continue"):
                    break
                query["continue"] = metadata["continue"]

    async def watch(
        self, kind: str, namespace: str | None, since: int, *, labels: str = "", seconds: int = 300
    ) -> AsyncGenerator[tuple[str, Body]]:
        """What changes after the version `since` (ADDED, MODIFIED, DELETED, or BOOKMARK, of which only the version
        counts), until the API server ends it, after `seconds` at the latest.

        Raises:
            ApiError: 410 when the API server no longer knows that version: list again.
        """
        query = {
            "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": str(since), "labelSelector": labels,
            "timeoutSeconds": str(seconds),
        }  # fmt: skip
        known = KINDS[kind]
        rest = b""
        async with self.open(Request("GET", known.path(namespace), query), seconds + 10) as response:
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError(status.get("code", 0), status.get("reason", ""), status.get("message", ""))
                    yield event["type"], event["object"]

    async def pod_log(self, namespace: str, pod: str, *, container: str = "", tail: int = 100) -> str:
        """The last lines of a container's log, at most 64 KiB."""
        query = {"container": container, "tailLines": str(tail), "limitBytes": "65536"}
        request = Request("GET", KINDS["Pod"].path(namespace, pod, "log"), query, accept="*/*")
        _, data = await self.send(request)
        return data.decode(errors="replace")

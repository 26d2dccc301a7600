"""The Kubernetes API as the operator uses it: server-side apply, paged lists, status, events, and errors by meaning.

Credentials, TLS and connections are those of the official client (`kubernetes.aio`); its generated models and its
discovery are not used, because bodies stay plain JSON and every path is known (`kinds.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import config as credentials
from kubernetes.aio.client import ApiClient, Configuration

from thinkimg.api.pod_contract import CONTROLLER, Annotation

from .cache import MANAGER, Cache, digest_of
from .conditions import shortened
from .kinds import KINDS, Body, Key, key_of
from .metrics import Metrics

MANAGED_BY = "app.kubernetes.io/managed-by"
"""Label of every child; watches and resyncs select by it."""
SELECT_OURS = f"{MANAGED_BY}={MANAGER}"

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"


class ApiError(Exception):
    """The API server refused, failed, or did not answer (`status` 0)."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{status or 'no answer'} {reason}: {message}")
        self.status = status
        self.reason = reason
        """Kubernetes' word for it: `NotFound`, `Conflict`, `AlreadyExists`, `Invalid`, `Forbidden`, `Timeout` …"""
        self.message = message
        self.retry_after = retry_after
        """Seconds that the server asks to wait; 0 when it says nothing."""

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """Somebody else was faster; read again and decide anew."""
        return self.status == 409

    @property
    def refused(self) -> bool:
        """The object itself is not acceptable: the same request will never succeed."""
        return self.status in (400, 422)

    @property
    def forbidden(self) -> bool:
        """RBAC, a quota or an admission policy says no; somebody has to change something."""
        return self.status == 403


class NameTakenError(Exception):
    """An object has the name of a child and belongs to somebody else. It is left alone."""

    def __init__(self, key: Key) -> None:
        super().__init__(f"{key} exists already and is not ours")
        self.key = key


class NotLeadingError(Exception):
    """A write was held back because this process may no longer be the leader."""


@dataclass(frozen=True)
class Applied:
    """What became of an apply or a create."""

    uid: str
    written: bool
    """False: nothing had to be written."""
    created: bool = False


class Cluster:
    """One connection to one API server, for one event loop. Every write passes `may_write`."""

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
            may_write: asked immediately before each write; False raises `NotLeadingError`.
            request_seconds: longest time for one request, its answer included.
        """
        self.cache = Cache()
        self.namespaces = tuple(namespaces)
        self.may_write = may_write
        self._api = api
        self._metrics = metrics or Metrics()
        self._request_seconds = request_seconds

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None, context: str | None = None, **options: Any) -> Cluster:
        """With a kubeconfig (given, or `KUBECONFIG`, or the default file), else as a pod's ServiceAccount.

        Raises:
            kubernetes.aio.config.ConfigException: there are no credentials.
        """
        return cls(ApiClient(await read_credentials(kubeconfig, context)), **options)

    @property
    def configuration(self) -> Configuration:
        """Address and credentials."""
        return self._api.configuration

    async def close(self) -> None:
        await self._api.close()

    def name_yourself(self, user_agent: str) -> None:
        """The User-Agent of all requests, which the audit log shows."""
        self._api.user_agent = user_agent

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def get(self, key: Key) -> Body | None:
        """The object as it is now; None when there is none."""
        try:
            body = await self._request("GET", KINDS[key.kind].path(key.namespace, key.name))
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
                answer = await self._request("GET", known.path(scope), query)
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
        async with self._open("GET", known.path(namespace), query, seconds=seconds + 10) as response:
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
        data = await self._exchange("GET", KINDS["Pod"].path(namespace, pod, "log"), query, accept="*/*")
        return data[1].decode(errors="replace")

    # ---- writing ----------------------------------------------------------------------------------------------------

    async def apply(self, body: Body, owner: Body | None = None) -> Applied:
        """Make the API server hold `body` (server-side apply, forced), if it does not already.

        No request is sent when the same body was applied before and nobody else has written the object since. `owner`
        becomes its controller: the object is deleted with it.

        Raises:
            NameTakenError: an object of that name exists and is not the owner's; it was not touched.
        """
        stamped = stamp(body, owner)
        digest = digest_of(stamped)
        stamped["metadata"]["annotations"] = {
            **stamped["metadata"].get("annotations", {}),
            Annotation.APPLIED_DIGEST: digest,
        }
        key = key_of(stamped)
        seen = self.cache.get(key)
        if seen is not None and seen.digest == digest and not seen.touched and not seen.deleting:
            return Applied(seen.uid, written=False)
        try:
            # Not forced while we do not know the object: on somebody else's of that name, fields then conflict.
            status, answer = await self._apply(key, stamped, force=seen is not None)
        except ApiError as error:
            if not error.conflict or seen is not None:
                raise
            existing = await self.get(key)
            if existing is not None and not _same_owner(existing, stamped):
                raise NameTakenError(key) from error
            status, answer = await self._apply(key, stamped, force=True)
        self.cache.applied(answer)
        return Applied(answer["metadata"]["uid"], written=True, created=status == 201)

    async def _apply(self, key: Key, body: Body, *, force: bool) -> tuple[int, Body]:
        query = {"fieldManager": MANAGER, "force": "true" if force else "false"}
        path = KINDS[key.kind].path(key.namespace, key.name)
        status, data = await self._exchange("PATCH", path, query, body, _APPLY)
        return status, json.loads(data)

    async def check_create(self, body: Body, owner: Body) -> None:
        """Have the API server check a `create` without carrying it out. Raises as it would."""
        stamped = stamp(body, owner)
        key = key_of(stamped)
        query = {"fieldManager": MANAGER, "dryRun": "All"}
        await self._request("POST", KINDS[key.kind].path(key.namespace), query, body=stamped)

    async def create(self, body: Body, owner: Body | None = None) -> Applied:
        """Create an object that is never changed afterwards (a Job). One of that name and owner that exists is fine.

        Raises:
            ApiError: 409 when an object of that name belongs to somebody else, or is just being deleted.
        """
        stamped = stamp(body, owner)
        key = key_of(stamped)
        try:
            answer = await self._request(
                "POST", KINDS[key.kind].path(key.namespace), {"fieldManager": MANAGER}, body=stamped
            )
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            existing = await self.get(key)
            if existing is None or not _same_owner(existing, stamped) or "deletionTimestamp" in existing["metadata"]:
                raise
            self.cache.observe(existing)
            return Applied(existing["metadata"]["uid"], written=False)
        self.cache.observe(answer)
        return Applied(answer["metadata"]["uid"], written=True, created=True)

    async def patch(self, key: Key, patch: Body, subresource: str = "") -> Body:
        """JSON merge patch: single fields of an object whose other fields are not ours (a Job's `suspend`)."""
        path = KINDS[key.kind].path(key.namespace, key.name, subresource)
        answer = await self._request("PATCH", path, {"fieldManager": MANAGER}, body=patch, content_type=_MERGE)
        if not subresource:
            self.cache.observe(answer)
        return answer

    async def patch_status(self, body: Body, status: Mapping[str, Any], *, keep: bool = False) -> bool:
        """Write the status of `body`'s object if it is not `status` already. Returns whether it was written.

        `keep`: the object will be looked at again soon, and then the answer is its `latest` body.

        Raises:
            ApiError: 409 when the object has changed since `body` was read: read again and decide anew.
        """
        before = body.get("status") or {}
        if before == status:
            return False
        key = key_of(body)
        removed = dict.fromkeys(before.keys() - status.keys())
        patch = {
            "metadata": {"resourceVersion": body["metadata"]["resourceVersion"], "uid": body["metadata"]["uid"]},
            "status": {**status, **removed},
        }
        path = KINDS[key.kind].path(key.namespace, key.name, "status")
        answer = await self._request("PATCH", path, {"fieldManager": MANAGER}, body=patch, content_type=_MERGE)
        if self.cache.observe(answer) and keep:
            self.cache.deliver(answer)
        return True

    async def replace(self, body: Body) -> Body:
        """Replace an object if it is still the version that `body` says (409 otherwise): leases change hands so."""
        key = key_of(body)
        path = KINDS[key.kind].path(key.namespace, key.name)
        return await self._request("PUT", path, {"fieldManager": MANAGER}, body=body)

    async def delete(
        self, key: Key, *, uid: str = "", propagation: str = "Background", grace_seconds: int | None = None
    ) -> bool:
        """Delete an object. False when there was none. With `uid`, only that one.

        Raises:
            ApiError: 409 when the object of that name has another uid.
        """
        options: Body = {"propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            await self._request("DELETE", KINDS[key.kind].path(key.namespace, key.name), body=options)
        except ApiError as error:
            if not error.not_found:
                raise
            self.cache.forget(key)
            return False
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
            await self._request("POST", KINDS["Event"].path(key.namespace), {"fieldManager": MANAGER}, body=body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    # ---- requests ---------------------------------------------------------------------------------------------------

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = _JSON,
    ) -> Body:
        _, data = await self._exchange(method, path, query, body, content_type)
        answer: Body = json.loads(data)
        return answer

    async def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> tuple[int, bytes]:
        """One request; status and body of its answer. Raises `ApiError` for anything but success."""
        opened = self._open(method, path, query, body, content_type, accept, seconds=self._request_seconds)
        async with opened as response:
            return response.status, await response.read()

    @contextlib.asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        *,
        seconds: float,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that says success, to be read within `seconds` of the request. `ApiError` for anything else."""
        headers = {"User-Agent": self._api.user_agent, "Accept": accept, "Content-Type": content_type}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        given = {name: value for name, value in (query or {}).items() if value}
        url = f"{self.configuration.host}{path}{'?' if given else ''}{urlencode(given)}"
        if method != "GET" and not self.may_write():
            raise NotLeadingError(f"{method} {path} was held back: the lease may have passed to another")
        try:
            async with asyncio.timeout(seconds):
                answer = await self._api.rest_client.request(
                    method, url, headers=headers, body=body, _request_timeout=seconds
                )
                async with answer.response as response:
                    self._metrics.requests.labels(str(response.status), method).inc()
                    if response.status >= 300:
                        raise _error(response.status, await response.read(), response.headers.get("Retry-After"))
                    yield response
        except TimeoutError as error:
            self._metrics.requests.labels("timeout", method).inc()
            raise ApiError(0, "Timeout", f"{method} {path} took longer than {seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            self._metrics.requests.labels("refused", method).inc()
            raise ApiError(0, "Unreachable", f"{method} {path}: {error or type(error).__name__}") from error


async def read_credentials(kubeconfig: Path | None = None, context: str | None = None) -> Configuration:
    """Address and credentials: a kubeconfig where there is one, else a pod's ServiceAccount."""
    configuration = Configuration()
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ and not (kubeconfig or os.environ.get("KUBECONFIG"))
    if in_pod:
        credentials.load_incluster_config(client_configuration=configuration)
    else:
        file = str(kubeconfig) if kubeconfig else None
        await credentials.load_kube_config(config_file=file, context=context, client_configuration=configuration)
    # The client would ask the environment for a proxy, and .netrc for a password, in a thread for each request.
    configuration.proxy = configuration.proxy or _proxy_for(configuration.host)
    configuration.client_session_kwargs = {"trust_env": False}
    return configuration


def _proxy_for(url: str) -> str | None:
    """What HTTPS_PROXY and NO_PROXY say of an address."""
    address = urlsplit(url)
    return None if proxy_bypass(address.hostname or "") else getproxies().get(address.scheme)


def stamp(body: Body, owner: Body | None) -> Body:
    """A copy of `body` with the label by which we find our children, and with its owner."""
    metadata = dict(body["metadata"])
    metadata["labels"] = {**metadata.get("labels", {}), MANAGED_BY: MANAGER}
    if owner is not None:
        metadata["ownerReferences"] = [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
        metadata.setdefault("namespace", owner["metadata"].get("namespace", ""))
    return {**body, "metadata": metadata}


def _same_owner(existing: Body, stamped: Body) -> bool:
    def uids(body: Body) -> set[str]:
        return {reference["uid"] for reference in body["metadata"].get("ownerReferences", ())}

    return uids(stamped) <= uids(existing)


def _error(status: int, data: bytes, retry_after: str | None) -> ApiError:
    try:
        document = json.loads(data)
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    message = document.get("message") or data[:200].decode(errors="replace")
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else 0.0
    return ApiError(status, document.get("reason") or "", message, seconds)

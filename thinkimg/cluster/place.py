"""A namespace of a cluster, with what a terminal asks of it. Credentials and the current namespace are kubectl's."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from thinkimg.api import API_VERSION, GROUP, suggestion
from thinkimg.api.pod_contract import CONTAINER, Annotation
from thinkimg.errors import InfrastructureError, UserError

VERSION = API_VERSION.partition("/")[2]
PLURALS = {"VisionTool": "visiontools", "ToolRLJob": "toolrljobs"}
MANAGER = "thinkimg-submit"


@dataclass(frozen=True)
class Place:
    """A namespace of a cluster."""

    api: client.ApiClient
    namespace: str

    @classmethod
    def find(cls, namespace: str | None = None, context: str | None = None) -> "Place":
        """Where kubectl would go: KUBECONFIG or ~/.kube/config, and its current context and namespace.

        Raises:
            UserError: there is no such configuration.
        """
        try:
            contexts, current = config.list_kube_config_contexts()
            api = config.new_client_from_config(context=context)
        except config.ConfigException as error:
            raise UserError(f"there is no cluster to talk to: {error}", "KUBECONFIG") from error
        chosen = next((known for known in contexts if known["name"] == context), current)
        return cls(api, namespace or chosen["context"].get("namespace") or "default")

    def job(self, name: str) -> dict[str, Any]:
        """The ToolRLJob. Raises `UserError` when there is none of that name."""
        with _explained(f"ToolRLJob {name}"):
            try:
                found: dict[str, Any] = self._objects.get_namespaced_custom_object(*self._kind("ToolRLJob"), name)
                return found
            except ApiException as error:
                if error.status != 404:
                    raise
        names = [job["metadata"]["name"] for job in self.jobs()]
        near = suggestion(name, names) if names else "There is none at all."
        raise UserError(f'there is no ToolRLJob "{name}" in namespace {self.namespace}. {near}', "NAME")

    def jobs(self) -> list[dict[str, Any]]:
        """All ToolRLJobs of the namespace."""
        with _explained("ToolRLJobs"):
            listed: list[dict[str, Any]] = self._objects.list_namespaced_custom_object(*self._kind("ToolRLJob"))[
                "items"
            ]
            return listed

    def apply(self, document: dict[str, Any]) -> dict[str, Any]:
        """Server-side apply, as `kubectl apply --server-side`."""
        name = document["metadata"]["name"]
        with _explained(f"{document['kind']} {name}"):
            applied: dict[str, Any] = self._objects.patch_namespaced_custom_object(
                *self._kind(document["kind"]), name, document, field_manager=MANAGER,
                _content_type="application/apply-patch+yaml",
            )  # fmt: skip
            return applied

    def set_suspend(self, name: str, value: bool) -> None:
        """Write `spec.suspend`."""
        self.job(name)
        with _explained(f"ToolRLJob {name}"):
            self._objects.patch_namespaced_custom_object(
                *self._kind("ToolRLJob"), name, {"spec": {"suspend": value}},
                _content_type="application/merge-patch+json",
            )  # fmt: skip

    def pods(self, selector: str) -> list[Any]:
        """Pods of stages, by attempt and rank."""
        with _explained("pods"):
            pods = client.CoreV1Api(self.api).list_namespaced_pod(self.namespace, label_selector=selector).items
        return sorted(pods, key=lambda pod: (pod.metadata.creation_timestamp, rank_of(pod)))

    def log(self, pod: str, follow: bool, tail: int | None) -> Iterator[str]:
        """Lines of a pod's log; with `follow`, until its container ends."""
        core = client.CoreV1Api(self.api)
        options = {"tail_lines": tail} if tail is not None else {}
        answer = core.read_namespaced_pod_log(
            pod, self.namespace, container=CONTAINER, follow=follow, _preload_content=False, **options
        )
        with answer:
            rest = b""
            for chunk in answer.stream(1 << 16):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace")
            if rest:
                yield rest.decode(errors="replace")

    @property
    def _objects(self) -> client.CustomObjectsApi:
        return client.CustomObjectsApi(self.api)

    def _kind(self, kind: str) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, PLURALS[kind]


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Errors of the API server in the families of ours."""
    try:
        yield
    except ApiException as error:
        _raise(error, what)
    except urllib3.exceptions.HTTPError as error:
        raise InfrastructureError(f"the API server does not answer: {error}") from error


def _raise(error: ApiException, what: str) -> NoReturn:
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = str(error.body or error.reason).strip()
    if error.status == 404:
        raise UserError(f"the cluster knows no {GROUP}/{VERSION}; install the charts thinkimg-crds and "
                        f"thinkimg-operator ({message})", what) from error  # fmt: skip
    if error.status in (400, 401, 403, 409, 422):
        raise UserError(message, what) from error
    raise InfrastructureError(f"{what}: the API server answered {error.status}: {message}") from error


def rank_of(pod: Any) -> int:
    """The pod's number in its attempt: the node's rank."""
    return int((pod.metadata.annotations or {}).get(Annotation.COMPLETION_INDEX, 0))

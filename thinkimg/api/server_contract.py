"""What the operator and a tool server's pod agree on: variables, labels, annotations, names, paths, the port, probes
and the metric that it is scaled by. The server's configuration itself is `thinkimg.serving.config.ServerConfig`.

Exit codes are those of `pod_contract`. There is no version: a configuration that a server does not know is refused by
its field, and the same image serves without an operator. A variable with one would, when it is added or changed, start
every server anew with the operator.
"""

from __future__ import annotations

from thinkimg.api import pod_contract
from thinkimg.api.v1alpha1.meta import GROUP


class Variable:
    """Environment variables of a tool server."""

    API_KEY = "THINKIMG_TOOL_API_KEY"
    """The key that callers have to send; without it everybody may call."""
    GATEWAY_KEY = "THINKIMG_KEY"
    """The key with which commands call a gateway."""
    HUB_TOKEN = pod_contract.Variable.HUB_TOKEN
    HUB_CACHE = pod_contract.Variable.HUB_CACHE
    WEIGHTS = "THINKIMG_WEIGHTS"
    """The folder of weights (`thinkimg.tools.weights.store`)."""
    FETCH_WEIGHTS = "THINKIMG_FETCH_WEIGHTS"
    """`1`: what loads weights may download them. The operator sets it: a pod has nobody who would fetch them before."""


class Label:
    """Labels of a VisionTool's objects, and of namespaces."""

    TOOL = f"{GROUP}/tool"
    """On the pods: the VisionTool's name. Services and policies select by it."""
    CALLERS = f"{GROUP}/tool-access"
    """On a namespace: its pods may call tools of other namespaces (gateways, Prometheus). Value `CALLERS_ALLOWED`."""
    SERVICE = f"{GROUP}/service"
    """On the headless Service, value `HEADLESS`: Prometheus takes the servers from one Service only."""


CALLERS_ALLOWED = "allowed"
HEADLESS = "headless"


class Annotation:
    """Annotations of a tool server's pod."""

    SERVER_CONFIG = f"{GROUP}/server-config"
    """The configuration, which the pod has as the file `Place.CONFIG`."""


CONTAINER = "tool"
PORT = 8000
MODULE = "thinkimg.serving"
"""`python -m MODULE --config FILE` serves."""
IN_FLIGHT_METRIC = "thinkimg_tool_calls_in_flight"
"""Gauge that `autoscaling.metric: InFlight` looks at."""


class HttpPath:
    """Paths of the server's HTTP interface."""

    LIVE = "/livez"
    READY = "/readyz"
    METRICS = "/metrics"


class Place:
    """Paths in the pod."""

    CONFIG = "/etc/thinkimg/server/config.json"
    CACHE = "/var/cache/thinkimg"
    """Downloaded weights."""
    WEIGHTS = "/var/lib/thinkimg/weights"
    """The claim of `weights.uri: pvc://…`."""
    TEMPORARY = pod_contract.Place.TEMPORARY
    SHARED_MEMORY = pod_contract.Place.SHARED_MEMORY


def server_command(config: str) -> list[str]:
    """The command that serves what the file `config` says."""
    return ["python", "-m", MODULE, "--config", config]


_MOST_CHARACTERS = 300


def refusal_in(log: str) -> str:
    """What a server of ours refuses of its settings, from the end of its log; empty if it says nothing of the kind.
    Other lines may hold what is not for everybody who may read the tool, and are not repeated."""
    said = pod_contract.object_of(pod_contract.last_line(log))
    if (said.get("event"), said.get("family")) != ("failed", "user"):
        return ""
    return ": ".join(str(said[name]) for name in ("field", "message") if said.get(name))[:_MOST_CHARACTERS]

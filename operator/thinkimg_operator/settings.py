"""How an operator process is configured: the command line, which the Helm chart fills in."""

from __future__ import annotations

import argparse
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

VERSION = version("thinkimg-operator")
IMAGE_PREFIX = "ghcr.io/thinkimg/"
FIRST_BACKENDS: Mapping[str, str] = {
    "GroundingDINO": "transformers",
    "SAM": "segment-anything",
    "GroundedSAM": "transformers",
    "EstimateDepth": "transformers",
}
"""Default backend of each tool with weights."""
BACKENDS_WITH_IMAGES = {"transformers", "segment-anything", "groundingdino", "paddleocr"}
"""Backends whose packages are in an image of their own, `tool-BACKEND`; the image `tool` has those of all others."""


@dataclass(frozen=True)
class Settings:
    """Everything that can be set."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespaces: tuple[str, ...] = ()
    """Namespaces to work in; none: the whole cluster."""
    leader_election: bool = True
    lease_namespace: str = "default"
    listen: str = "0.0.0.0:8080"
    """Address of `/livez`, `/readyz` and `/metrics`; port 0 takes a free one."""
    workers: int = 16
    """Reconciliations at a time, for each kind."""
    resync_seconds: float = 600.0
    image_prefix: str = IMAGE_PREFIX
    """The project's images, where no other is named, are this, a name, `:` and `image_tag`."""
    image_tag: str = VERSION
    tool_images: Mapping[str, str] = field(default_factory=dict)
    """Images by `Tool/backend`, `Tool`, or `*`."""
    runtime_image: str = ""
    """Of stages; empty: the project's trainer."""
    service_monitors: bool = False
    """Make a ServiceMonitor for each tool; Prometheus' operator must be installed."""
    service_monitor_labels: Mapping[str, str] = field(default_factory=dict)
    """By which Prometheus selects its ServiceMonitors."""
    log_format: str = "json"
    log_level: str = "INFO"
    identity: str = ""
    """Name of this process in the lease and the audit log."""

    def tool_image(self, tool: str, backend: str | None) -> str:
        """The image of a built-in tool that names none itself."""
        backend = backend or FIRST_BACKENDS.get(tool)
        names = (image_key(tool, backend), tool, "*")
        named = next((self.tool_images[name] for name in names if name in self.tool_images), None)
        return named or self._own_image(f"tool-{backend}" if backend in BACKENDS_WITH_IMAGES else "tool")

    def with_tool_image(self, tool: str, backend: str | None, image: str) -> Settings:
        """The same settings, with another image for a built-in tool."""
        return replace(self, tool_images={**self.tool_images, image_key(tool, backend): image})

    @property
    def stage_image(self) -> str:
        """The image of stages that name none themselves."""
        return self.runtime_image or self._own_image("trainer")

    def _own_image(self, name: str) -> str:
        return f"{self.image_prefix}{name}:{self.image_tag}"


def image_key(tool: str, backend: str | None) -> str:
    """Whose image is meant: `Tool/backend`, or `Tool` where there is but one."""
    backend = backend or FIRST_BACKENDS.get(tool)
    return f"{tool}/{backend}" if backend else tool


def parse_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line. Ends the process with code 2 and a message when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="thinkimg-operator", description="Makes VisionTools and ToolRLJobs of a Kubernetes cluster true."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the operator, in a pod or against a kubeconfig")
    run.add_argument("--kubeconfig", type=Path, help="default: KUBECONFIG, ~/.kube/config, or the pod's ServiceAccount")
    run.add_argument("--context", help="context of the kubeconfig; default: its current one")
    run.add_argument(
        "--namespace", action="append", default=[], metavar="NAME", help="work here only (repeatable); default: all"
    )
    run.add_argument("--no-leader-election", action="store_true", help="for a single process, as in development")
    run.add_argument(
        "--lease-namespace", default=os.environ.get("POD_NAMESPACE", "default"), help="default: the pod's, or `default`"
    )
    run.add_argument("--listen", default="0.0.0.0:8080", help="probes and metrics (default: %(default)s)")
    run.add_argument("--workers", type=_positive, default=16, help="per kind (default: %(default)s)")
    run.add_argument("--resync-seconds", type=float, default=600.0, help="default: %(default)s")
    run.add_argument(
        "--tool-image",
        action="append",
        default=[],
        type=_assignment,
        metavar="NAME=IMAGE",
        help="image of built-in tools; NAME is Tool/backend, Tool, or * (repeatable)",
    )
    run.add_argument("--runtime-image", default="", help="image of training stages; default: the project's trainer")
    run.add_argument("--image-prefix", default=IMAGE_PREFIX, help="of the project's images (default: %(default)s)")
    run.add_argument("--image-tag", default=VERSION, help="of the project's images (default: %(default)s)")
    run.add_argument("--service-monitors", action="store_true", help="make a ServiceMonitor for each tool")
    run.add_argument(
        "--service-monitor-label",
        action="append",
        default=[],
        type=_assignment,
        metavar="NAME=VALUE",
        help="on those ServiceMonitors (repeatable): Prometheus selects them by it",
    )
    run.add_argument("--log-format", choices=("json", "text"), default="json")
    run.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO")
    given = parser.parse_args(arguments)
    return Settings(
        kubeconfig=given.kubeconfig,
        context=given.context,
        namespaces=tuple(given.namespace),
        leader_election=not given.no_leader_election,
        lease_namespace=given.lease_namespace,
        listen=given.listen,
        workers=given.workers,
        resync_seconds=given.resync_seconds,
        tool_images=dict(given.tool_image),
        runtime_image=given.runtime_image,
        image_prefix=given.image_prefix,
        image_tag=given.image_tag,
        service_monitors=given.service_monitors,
        service_monitor_labels=dict(given.service_monitor_label),
        log_format=given.log_format,
        log_level=given.log_level,
        identity=f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _assignment(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError("write NAME=VALUE")
    return name, value

"""How an operator process is configured: the command line, which the Helm chart fills in."""

from __future__ import annotations

import argparse
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_TOOL_IMAGE = "ghcr.io/thinkimg/tool:0.1.0"
DEFAULT_RUNTIME_IMAGE = "ghcr.io/thinkimg/runtime:0.1.0"


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
    tool_images: Mapping[str, str] = field(default_factory=dict)
    """Images by `Tool/backend`, `Tool`, or `*`."""
    runtime_image: str = DEFAULT_RUNTIME_IMAGE
    service_monitors: bool = False
    """Make a ServiceMonitor for each tool; Prometheus' operator must be installed."""
    log_format: str = "json"
    log_level: str = "INFO"
    identity: str = ""
    """Name of this process in the lease and the audit log."""

    def tool_image(self, tool: str, backend: str | None) -> str:
        """The image of a built-in tool that names none itself."""
        names = (f"{tool}/{backend}", tool, "*") if backend else (tool, "*")
        return next((self.tool_images[name] for name in names if name in self.tool_images), DEFAULT_TOOL_IMAGE)


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
    run.add_argument("--runtime-image", default=DEFAULT_RUNTIME_IMAGE, help="image of training stages")
    run.add_argument("--service-monitors", action="store_true", help="make a ServiceMonitor for each tool")
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
        service_monitors=given.service_monitors,
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
    name, _, image = text.partition("=")
    if not name or not image:
        raise argparse.ArgumentTypeError("write NAME=IMAGE")
    return name, image

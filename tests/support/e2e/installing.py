"""Charts onto a cluster, as the README installs them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from tests.support import REPOSITORY
from tests.support.e2e.e2ecluster import REGISTRY, SYSTEM, VERSION, VISION, Cluster, say


def timed(what: str, *command: str) -> None:
    started = time.monotonic()
    subprocess.run(command, cwd=REPOSITORY, check=True)
    say(f"{what}: {time.monotonic() - started:.0f} s")


def install_all(cluster: Cluster, charts: Path = REPOSITORY / "charts", operator_version: str = VERSION) -> None:
    """CRDs, operator and tools from a folder of charts."""
    cluster.helm("upgrade", "--install", "crds", str(charts / "thinkimg-crds"), "-n", SYSTEM)
    operator = {"image": {"repository": f"{REGISTRY}/operator", "tag": operator_version}}
    install(cluster, "operator", charts / "thinkimg-operator", SYSTEM, operator)
    gateway = {"image": {"repository": f"{REGISTRY}/runtime", "tag": VERSION}}
    small = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}
    tools = {name: {"resources": small} for name in ("ocr", "zoom", "point")}
    install(cluster, "tools", charts / "thinkimg-tools", VISION, {"gateway": gateway, "tools": tools})


def install(cluster: Cluster, release: str, chart: Path, namespace: str, values: dict[str, Any]) -> None:
    file = cluster.kubeconfig.with_name(f"{release}.yaml")
    file.write_text(yaml.safe_dump(values))
    cluster.helm(
        "upgrade", "--install", release, str(chart), "-n", namespace, "-f", str(file), "--wait",
        "--timeout", "10m",
    )  # fmt: skip

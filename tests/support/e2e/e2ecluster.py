"""One cluster, by its kubeconfig: kubectl, helm, waiting, and what a person would look at when something is wrong."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import binaries
import yaml

DOCKER = os.environ.get("DOCKER", "docker")
REGISTRY = os.environ.get("REGISTRY", "ghcr.io/thinkimg")
VERSION = "0.1.0"
"""Of the charts, which name the images."""
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}

SYSTEM, VISION = "thinkimg-system", "vision"
"""Namespaces of the operator, and of tools and jobs."""


def document(api_version: str, kind: str, metadata: dict[str, Any], **rest: Any) -> str:
    return yaml.safe_dump({"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest})


def condition(item: dict[str, Any], kind: str) -> dict[str, Any]:
    """A condition of an object; empty while it has none of that type."""
    return next((c for c in item.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def say(text: str) -> None:
    print(f"e2e: {text}", file=sys.stderr, flush=True)


class Cluster:
    """kubectl and helm against one cluster."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._programs = binaries.ensure(("kubectl", "helm"))

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True, seconds: float = 120) -> str:
        return self._run("kubectl", *arguments, stdin=stdin, check=check, seconds=seconds)

    def helm(self, *arguments: str, seconds: float = 900) -> str:
        return self._run("helm", *arguments, seconds=seconds)

    def get(self, *what: str, namespace: str = VISION) -> Any:
        return json.loads(self.kubectl("get", *what, "-n", namespace, "-o", "json"))

    def available(self, tool: str) -> bool:
        return condition(self.get("visiontool", tool), "Available").get("status") == "True"

    def exec(self, pod: str, code: str, namespace: str = VISION) -> str:
        """Run Python inside a pod."""
        return self.kubectl("exec", "-n", namespace, pod, "--", "python", "-c", code)

    def make_namespace(self, name: str, **labels: str) -> None:
        """A namespace with Pod Security `restricted`."""
        namespace = document("v1", "Namespace", {"name": name, "labels": {**RESTRICTED, **labels}})
        self.kubectl("apply", "-f", "-", stdin=namespace)

    def start(self, name: str, code: str, namespace: str, claim: str = "", **environment: str) -> None:
        """A pod that runs Python with what the runtime image has, as anybody's pod; a claim is at /storage."""
        container = {
            "name": "main", "image": f"{REGISTRY}/runtime:{VERSION}", "command": ["python", "-c", code],
            "env": [{"name": key, "value": value} for key, value in environment.items()],
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }  # fmt: skip
        security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
        spec = {
            "restartPolicy": "Never", "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 1,
            "securityContext": security, "containers": [container],
        }  # fmt: skip
        if claim:
            container["volumeMounts"] = [{"name": "storage", "mountPath": "/storage"}]
            spec["volumes"] = [{"name": "storage", "persistentVolumeClaim": {"claimName": claim}}]
        pod = document("v1", "Pod", {"name": name, "namespace": namespace}, spec=spec)
        self.kubectl("apply", "-f", "-", stdin=pod)

    def finish(self, name: str, namespace: str, seconds: float = 120) -> str:
        """What a pod of `start` printed, once it has ended; then it is removed."""

        def phase() -> str:
            found: str = self.get("pod", name, namespace=namespace)["status"]["phase"]
            return found if found in ("Succeeded", "Failed") else ""

        ended = self.wait(f"pod {name} ends", phase, seconds)
        printed = self.kubectl("logs", "-n", namespace, name)
        self.kubectl("delete", "pod", "-n", namespace, name, "--wait=true")
        assert ended == "Succeeded", f"pod {name} failed:\n{printed}"
        return printed

    def run(self, name: str, code: str, namespace: str, seconds: float = 120, **options: str) -> str:
        """`start` and `finish`."""
        self.start(name, code, namespace, **options)
        return self.finish(name, namespace, seconds)

    def secret(self, name: str, key: str, namespace: str = VISION) -> str:
        return base64.b64decode(self.get("secret", name, namespace=namespace)["data"][key]).decode()

    def wait(self, what: str, check: Callable[[], Any], seconds: float) -> Any:
        """The first value of `check` that is true."""
        deadline, seen = time.monotonic() + seconds, None
        while time.monotonic() < deadline:
            if seen := check():
                return seen
            time.sleep(2)
        self.describe()
        raise AssertionError(f"after {seconds:.0f} s still not: {what}; last seen: {seen!r}")

    def describe(self) -> None:
        """What a person would look at, into the test's output."""
        for arguments in (
            ["get", "pods,jobs,visiontools,toolrljobs", "-A", "-o", "wide"],
            ["get", "events", "-n", VISION, "--sort-by=.lastTimestamp"],
            ["logs", "-n", SYSTEM, "deployment/operator", "--tail=40"],
        ):
            print("$ kubectl", *arguments, "\n", self.kubectl(*arguments, check=False)[-6000:])

    def _run(
        self, program: str, *arguments: str, stdin: str | None = None, check: bool = True, seconds: float = 120
    ) -> str:
        command = [str(self._programs[program]), "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds)
        if check and done.returncode:
            raise AssertionError(f"{program} {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

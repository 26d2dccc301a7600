"""One cluster, by its kubeconfig: kubectl, helm, waiting, and what a person would look at when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "hack" / "cluster"))

import binaries  # noqa: E402

SYSTEM, VISION = "thinkimg-system", "vision"
"""Namespaces of the operator, and of tools and jobs."""


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

    def exec(self, pod: str, code: str, namespace: str = VISION) -> str:
        """Run Python inside a pod."""
        return self.kubectl("exec", "-n", namespace, pod, "--", "python", "-c", code)

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

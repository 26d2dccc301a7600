"""What tests do with a cluster: apply and read objects, wait, stop a node, direct pods, start the operator."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import binaries
import controlplane
from thinkimg_operator.conditions import is_true

from tests.support import REPOSITORY
from tests.support.cluster.witness import Witness

Object = dict[str, Any]
T = TypeVar("T")
GATED = os.environ.get("THINKIMG_GATE_LATENCY") == "1"
"""Whether promises of latency are judged: only where nothing else runs (`make bench-operator`)."""
CRDS = REPOSITORY / "charts" / "thinkimg-crds" / "templates"
OPERATOR = "from thinkimg_operator.main import main; main()"
"""A program for `python -c`: the operator of whatever PYTHONPATH names first."""


class KubectlError(Exception):
    """kubectl ended with an error; the text is what it said."""


def wait_for(what: str, check: Callable[[], T | bool | None], *, seconds: float = 300, every: float = 0.1) -> T:
    """The first value of `check` that is true. Fails the test, saying `what` did not come, after `seconds`."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        if last := check():
            return last  # type: ignore[return-value]
        time.sleep(every)
    raise AssertionError(f"after {seconds:g} s still not: {what} (last seen: {last!r})")


class Cluster:
    """A control plane, by its admin's kubeconfig."""

    def __init__(self, kubeconfig: Path, folder: Path, plane: controlplane.ControlPlane | None) -> None:
        self.kubeconfig = kubeconfig
        self.folder = folder
        """For files of tests."""
        self.plane = plane
        """None when the user named a cluster: then there is no audit log, and nodes are real."""
        self.witness: Witness | None = None
        """What was seen in the whole run; None on a cluster that the user named."""
        self._proxy: tuple[subprocess.Popen[str], int] | None = None

    @classmethod
    @contextlib.contextmanager
    def started(cls, folder: Path, options: controlplane.Options | None = None) -> Iterator[Self]:
        """A new control plane in `folder`, with the CRDs, until the end of the context."""
        with controlplane.running(folder, options or controlplane.Options()) as plane:
            cluster = cls(plane.kubeconfig, folder, plane)
            cluster.install_crds()
            cluster.witness = Witness(cluster.proxy_port)
            try:
                yield cluster
            finally:
                cluster.witness.close()
                cluster.close()

    @classmethod
    def named(cls, kubeconfig: Path, folder: Path) -> Self:
        """The cluster that the user named."""
        cluster = cls(kubeconfig, folder, None)
        cluster.install_crds()
        return cluster

    def install_crds(self) -> None:
        self.kubectl("apply", "-f", str(CRDS))
        wait_for("the API server serves the kinds", self._serves_kinds)

    def _serves_kinds(self) -> bool:
        """`kubectl wait` ends with an error where a definition has no conditions yet."""
        found = json.loads(self.kubectl("get", "-f", str(CRDS), "-o", "json"))["items"]
        return all(is_true(definition, "Established") for definition in found)

    def kubectl(self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """What kubectl prints. Raises KubectlError with its error output."""
        command = [*self.command(kubeconfig), *arguments]
        # Discovery is cached per user and address otherwise, across clusters that had the same port.
        environment = {**os.environ, "KUBECACHEDIR": str(self.folder / "kubectl-cache")}
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, env=environment)
        if done.returncode:
            raise KubectlError(done.stderr.strip())
        return done.stdout

    def command(self, kubeconfig: Path | None = None) -> list[str]:
        """kubectl, as the admin or with that kubeconfig."""
        return [str(binaries.ensure(["kubectl"])["kubectl"]), f"--kubeconfig={kubeconfig or self.kubeconfig}"]

    def request(
        self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json"
    ) -> tuple[int, Object]:
        """One call of the API as admin: status code and answer. Far cheaper than a process of kubectl."""
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy_port, timeout=30)
        try:
            headers = {"Content-Type": content_type, "Accept": "application/json"}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def answers(self, path: str) -> bool:
        """Whether a GET succeeds, whatever it brings."""
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy_port, timeout=30)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        finally:
            connection.close()

    @property
    def proxy_port(self) -> int:
        """Port of a `kubectl proxy` with the admin's rights."""
        if self._proxy is None:
            self._proxy = self._start_proxy()
        return self._proxy[1]

    def _start_proxy(self) -> tuple[subprocess.Popen[str], int]:
        """`kubectl proxy` knows every way to log in that a kubeconfig can name."""
        process = subprocess.Popen(
            [*self.command(), "proxy", "--port=0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=controlplane.die_with_parent,
        )
        assert process.stdout is not None
        serving = process.stdout.readline()  # Starting to serve on 127.0.0.1:41234
        return process, int(serving.rpartition(":")[2])

    def close(self) -> None:
        if self._proxy:
            self._proxy[0].terminate()
            self._proxy[0].wait(timeout=10)

    @contextlib.contextmanager
    def namespace(self, hint: str = "test") -> Iterator[Namespace]:
        """A new namespace that is deleted afterwards, without waiting."""
        name = f"{re.sub('[^a-z0-9]+', '-', hint.lower())[:40].strip('-')}-{secrets.token_hex(3)}"
        self.kubectl("create", "namespace", name)
        try:
            yield Namespace(self, name)
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")

    def audit(self) -> Iterator[Object]:
        """Events of the audit log so far, in the order in which they were answered."""
        assert self.plane, "a cluster that the user named has no audit log for us"
        with self.plane.audit_log.open() as log:
            for line in log:
                if line.endswith("\n"):
                    yield json.loads(line)

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """Credentials of a ServiceAccount (TokenRequest)."""
        if self.plane:
            return self.plane.service_account_kubeconfig(namespace, name)
        token = self.kubectl("create", "token", name, f"--namespace={namespace}", "--duration=12h").strip()
        config = json.loads(self.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
        config["users"][0]["user"] = {"token": token}
        target = self.folder / f"{namespace}.{name}.kubeconfig"
        target.touch(mode=0o600)
        target.write_text(json.dumps(config))
        return target

    def stop_heartbeats(self, node: str) -> None:
        """From now on the node is dead: no heartbeat, and its pods neither end nor go away."""
        self.kubectl("label", "node", node, "thinkimg.dev/unplugged=true", "--overwrite")

    def resume_heartbeats(self, node: str) -> None:
        self.kubectl("label", "node", node, "thinkimg.dev/unplugged-")


class Namespace:
    """One namespace and what a test does in it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl(f"--namespace={self.name}", *arguments, stdin=stdin)

    def apply(self, *objects: Object | str) -> None:
        """Apply objects, or YAML text."""
        for item in objects:
            self.kubectl("apply", "-f", "-", stdin=item if isinstance(item, str) else json.dumps(item))

    def get(self, kind: str, name: str, *, subresource: str | None = None) -> Object | None:
        """The object; None when there is none."""
        arguments = [f"--subresource={subresource}"] if subresource else []
        try:
            return json.loads(self.kubectl("get", kind, name, "-o", "json", *arguments))
        except KubectlError as error:
            if "NotFound" in str(error):
                return None
            raise

    def list(self, kind: str, selector: str = "") -> list[Object]:
        return json.loads(self.kubectl("get", kind, "-o", "json", f"--selector={selector}"))["items"]

    @contextlib.contextmanager
    def watching(self, kind: str, name: str, jsonpath: str) -> Iterator[list[str]]:
        """Values that a part of an object takes while the context lasts, without repetitions; read them after it."""
        seen: list[str] = []
        log = self.cluster.folder / f"watch-{secrets.token_hex(3)}.log"
        arguments = ["get", kind, name, f"--namespace={self.name}", "--watch", "-o", f'jsonpath={jsonpath}{{"\\n"}}']
        with log.open("wb") as out:
            process = subprocess.Popen([*self.cluster.command(), *arguments], stdout=out, stdin=subprocess.DEVNULL)
        try:
            wait_for("the watch has begun", lambda: log.stat().st_size > 0)
            yield seen
        finally:
            process.terminate()
            process.wait(timeout=10)
            lines = log.read_text().splitlines()
            seen += [line for line, before in zip(lines, [None, *lines], strict=False) if line != before]

    def patch_status(self, kind: str, name: str, status: Object) -> None:
        """Write a status, as a controller does."""
        body = json.dumps({"status": status})
        self.kubectl("patch", kind, name, "--subresource=status", "--type=merge", "-p", body)

    def end_pod(self, name: str, *, exit_code: int = 0, reason: str = "", message: str = "") -> None:
        """Let the containers of a running, simulated pod end (hack/cluster/stages.yaml)."""
        marks = {"exit-code": str(exit_code), "reason": reason, "message": message, "finish-after": "0s"}
        pairs = [f"sim.thinkimg.dev/{key}={value}" for key, value in marks.items() if value]
        self.kubectl("annotate", "pod", name, "--overwrite", *pairs)

    def log_of_pod(self, pod: str) -> Path:
        """The file that `kubectl logs` of this simulated pod shows. Its lines are those of a container runtime: time,
        `stdout F`, text."""
        file = self.cluster.folder / f"{self.name}.{pod}.log"
        file.touch()
        logs = {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Logs", "metadata": {"name": pod}}
        self.apply(logs | {"spec": {"logs": [{"logsFile": str(file), "follow": True}]}})
        return file

    @contextlib.contextmanager
    def operator(
        self,
        service_account: str,
        *,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        ready: Callable[[], bool] | None = None,
    ) -> Iterator[Operator]:
        """The operator as a process with the rights of a ServiceAccount of this namespace, until the context ends.

        `ready` says when it works; without it the process is handed over as soon as it has started.
        """
        kubeconfig = self.cluster.service_account_kubeconfig(self.name, service_account)
        operator = Operator(
            kubeconfig, self.cluster.folder / f"operator-{secrets.token_hex(3)}.log", arguments, environment
        )
        operator.start()
        try:
            if ready:
                wait_for(f"the operator is ready; its log is {operator.log}", lambda: operator.check() or ready())
            yield operator
        finally:
            operator.stop()


class Operator:
    """`thinkimg-operator run` as a process that tests stop, kill, pause and start again."""

    def __init__(
        self,
        kubeconfig: Path,
        log: Path,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        *,
        command: Sequence[str] = (str(Path(sys.executable).with_name("thinkimg-operator")),),
    ) -> None:
        self.command = list(command)
        self.kubeconfig = kubeconfig
        self.log = log
        self.arguments = list(arguments)
        self.environment = dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [*self.command, "run", *self.arguments]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), **self.environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                preexec_fn=controlplane.die_with_parent,
            )

    def check(self) -> bool:
        """False; fails the test with the end of the log when the process has ended by itself."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the operator ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}")
        return False

    def metric(self, name: str) -> float:
        """The metric's value, summed over its labels; 0 while the process does not answer yet."""
        address = re.search(r"probes and metrics at ([\d.]+:\d+)", self.log.read_text())
        if address is None:
            return 0.0
        try:
            with urllib.request.urlopen(f"http://{address[1]}/metrics", timeout=10) as page:
                lines = page.read().decode().splitlines()
        except OSError:
            return 0.0
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    def send(self, number: signal.Signals) -> None:
        """SIGKILL, SIGSTOP, SIGCONT …"""
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> int:
        """The exit code of a process that was told to end, or ends by itself."""
        assert self.process is not None
        return self.process.wait(timeout=60)

    def stop(self) -> int:
        """End it in order; its exit code. SIGKILL after a minute, which fails the test."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the operator did not end within 60 s of SIGTERM; log: {self.log}") from None

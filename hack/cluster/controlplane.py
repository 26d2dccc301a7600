"""A Kubernetes control plane on this machine: etcd, API server, controllers, scheduler, and nodes that KWOK simulates.

Everything is a plain process on 127.0.0.1 with free ports and one folder; nothing needs root, and nothing is left
when it ends. Pods are real objects that are really scheduled, but no container runs: `stages.yaml` says what becomes
of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import random
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import binaries

HERE = Path(__file__).parent
IDENTITIES = {
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "kwok": "system:masters",
}
"""Users of the static token file and their group. Each has its own, so that the audit log tells them apart."""


class ClusterError(Exception):
    """The control plane could not be started; the text holds the end of the guilty component's log."""


@dataclass(frozen=True)
class Options:
    """What kind of cluster."""

    nodes: int = 3
    """Simulated nodes, `node-0` and so on."""
    gpus: int = 8
    """`nvidia.com/gpu` of each."""
    arguments: dict[str, list[str]] = field(default_factory=dict)
    """More flags by component, as in `{"kube-controller-manager": ["--node-monitor-grace-period=8s"]}`."""
    audit_policy: str = str(HERE / "audit-policy.yaml")
    """Policy of the audit log: a file."""


class ControlPlane:
    """A running control plane, seen from its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def kubeconfig(self) -> Path:
        """Credentials of `admin`, who may do everything."""
        return self.folder / "admin.kubeconfig"

    @property
    def audit_log(self) -> Path:
        """One JSON object per request: user, user agent, verb, object, decision, response code."""
        return self.folder / "audit.log"

    @property
    def log_folder(self) -> Path:
        """One log per component."""
        return self.folder / "logs"

    @property
    def url(self) -> str:
        return str(json.loads(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])

    @property
    def certificate(self) -> Path:
        """The API server's own certificate, which is its authority too."""
        return self.folder / "pki" / "apiserver.crt"

    def request(self, method: str, path: str, body: Any = None, *, content_type: str = "application/json") -> Any:
        """One call of the API as admin; the decoded answer. Raises urllib.error.HTTPError."""
        token = json.loads(self.kubeconfig.read_text())["users"][0]["user"]["token"]
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        request.add_header("Authorization", f"Bearer {token}")
        if body is not None:
            request.add_header("Content-Type", content_type)
            request.data = json.dumps(body).encode()
        trust = ssl.create_default_context(cafile=str(self.certificate))
        with urllib.request.urlopen(request, timeout=30, context=trust) as answer:
            text = answer.read().decode()
        return json.loads(text) if answer.headers.get_content_type() == "application/json" else text

    def service_account_kubeconfig(self, namespace: str, name: str, *, hours: float = 12) -> Path:
        """A kubeconfig with a token of the ServiceAccount (TokenRequest); its file is private to the user."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        spec = {"expirationSeconds": int(hours * 3600)}
        answer = self.request(
            "POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        )
        target = self.folder / f"{namespace}.{name}.kubeconfig"
        self._write_kubeconfig(target, name, answer["status"]["token"], namespace)
        return target

    def add_nodes(self, count: int, gpus: int, *, first: int = 0) -> None:
        """Add simulated nodes and wait until they are Ready."""
        for index in range(first, first + count):
            self.request("POST", "/api/v1/nodes", _node(f"node-{index}", gpus))
        _wait_for(f"{first + count} nodes Ready", lambda: self._ready_nodes() >= first + count, seconds=60)

    def _ready_nodes(self) -> int:
        nodes = self.request("GET", "/api/v1/nodes")["items"]
        ready = {"type": "Ready", "status": "True"}
        return sum(
            any(ready.items() <= condition.items() for condition in node["status"].get("conditions", []))
            for node in nodes
        )

    def _write_kubeconfig(self, target: Path, user: str, token: str, namespace: str = "default", url: str = "") -> None:
        """JSON is YAML, so kubectl reads it."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "thinkimg",
                    "cluster": {"server": url or self.url, "certificate-authority": str(self.certificate)},
                }
            ],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": user, "context": {"cluster": "thinkimg", "user": user, "namespace": namespace}}],
            "current-context": user,
        }
        target.touch(mode=0o600)
        target.write_text(json.dumps(content, indent=2))


def _node(name: str, gpus: int) -> dict[str, Any]:
    resources = {"cpu": "64", "memory": "512Gi", "pods": "250", "ephemeral-storage": "1Ti", "nvidia.com/gpu": str(gpus)}
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"capacity": resources, "allocatable": resources},
    }


class Supervisor:
    """Starts the components of a control plane and ends them together; lives as long as they do."""

    def __init__(self, folder: Path, options: Options, programs: dict[str, Path], stop: threading.Event) -> None:
        self.plane = ControlPlane(folder)
        self.folder = folder
        self.options = options
        self.programs = programs
        self.stop_asked = stop
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start everything and wait until it works. Raises ClusterError; the caller then calls `stop`."""
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        pki = self.folder / "pki"
        pki.mkdir(exist_ok=True)
        command = [
            "openssl",
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            str(pki / "service-account.key"),
        ]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError:
            raise ClusterError(
                "openssl is missing; install it (it makes the key that signs ServiceAccount tokens)"
            ) from None
        client_port, peer_port, api_port, node_port = _free_ports(4)
        url = f"https://127.0.0.1:{api_port}"
        tokens = self._write_tokens(url)
        etcd = f"http://127.0.0.1:{client_port}"
        self._run("etcd", _etcd(self.folder, etcd, f"http://127.0.0.1:{peer_port}"))
        self._run("kube-apiserver", _api_server(self.folder, etcd, api_port, tokens, self.options.audit_policy))
        self._wait("the API server is ready", lambda: self.plane.request("GET", "/readyz") == "ok")
        self._run("kube-controller-manager", _controller_manager(self.folder))
        self._run("kube-scheduler", _scheduler(self.folder))
        default = "/api/v1/namespaces/default/serviceaccounts/default"
        if self.options.nodes:
            crd = json.loads((HERE / "logs-crd.json").read_text())
            self.plane.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
            self._run("kwok", _kwok(self.folder, node_port))
            self.plane.add_nodes(self.options.nodes, self.options.gpus)
        self._wait("the controllers work", lambda: bool(self.plane.request("GET", default)))

    def stop(self) -> None:
        """End every component, the API server's clients first."""
        for name in reversed(list(self.processes)):
            self.processes[name].terminate()
        for process in reversed(list(self.processes.values())):
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ended(self) -> str | None:
        """The first component that ended by itself, with the end of its log; None while all run."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                lines = (self.folder / "logs" / f"{name}.log").read_text(errors="replace").splitlines()
                return f"{name} ended with code {process.returncode}:\n" + "\n".join(lines[-15:])
        return None

    def _run(self, program: str, arguments: Sequence[str]) -> None:
        command = [str(self.programs[program]), *arguments, *self.options.arguments.get(program, [])]
        with (self.folder / "logs" / f"{program}.log").open("wb") as log:
            self.processes[program] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, preexec_fn=die_with_parent
            )

    def _write_tokens(self, url: str) -> Path:
        rows = []
        for user, group in IDENTITIES.items():
            token = secrets.token_hex(16)
            rows.append(f"{token},{user},{user}" + (f',"{group}"' if group else ""))
            self.plane._write_kubeconfig(
                self.folder / f"{user.removeprefix('system:')}.kubeconfig", user, token, url=url
            )
        target = self.folder / "pki" / "tokens.csv"
        target.touch(mode=0o600)
        target.write_text("\n".join(rows) + "\n")
        return target

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        def check() -> bool:
            if ended := self.ended():
                raise ClusterError(ended)
            if self.stop_asked.is_set():
                raise ClusterError("it was stopped before it was ready")
            return done()

        _wait_for(what, check, seconds=90)


def _etcd(folder: Path, client: str, peer: str) -> list[str]:
    return [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # nobody needs this data after a power cut
        "--log-level=warn",
    ]


def _api_server(folder: Path, etcd: str, port: int, tokens: Path, audit_policy: str) -> list[str]:
    key = folder / "pki" / "service-account.key"
    return [
        f"--etcd-servers={etcd}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'pki'}",  # makes its own certificate there
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-account-max-token-expiration=24h",
        # A node of KWOK answers for logs at its internal address.
        "--kubelet-preferred-address-types=InternalIP",
        # Owner references with blockOwnerDeletion are checked as on OpenShift and hardened clusters.
        "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
        f"--audit-policy-file={audit_policy}",
        f"--audit-log-path={folder / 'audit.log'}",
        "--audit-log-maxsize=4000",  # MB, so that it stays one file
        "--endpoint-reconciler-type=none",  # 127.0.0.1 is no address for Endpoints
    ]


def _controller_manager(folder: Path) -> list[str]:
    kubeconfig = folder / "kube-controller-manager.kubeconfig"
    return [
        f"--kubeconfig={kubeconfig}",
        "--secure-port=0",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={folder / 'pki' / 'service-account.key'}",
        f"--root-ca-file={folder / 'pki' / 'apiserver.crt'}",
        # The defaults suit a shared cluster, and would make tests wait.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--concurrent-deployment-syncs=10",
        "--horizontal-pod-autoscaler-sync-period=2s",
    ]


def _scheduler(folder: Path) -> list[str]:
    configuration = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": str(folder / "kube-scheduler.kubeconfig"), "qps": 500, "burst": 1000},
        "leaderElection": {"leaderElect": False},
        "podInitialBackoffSeconds": 1,
        "podMaxBackoffSeconds": 2,
    }
    target = folder / "kube-scheduler.json"
    target.write_text(json.dumps(configuration))
    return [f"--config={target}", "--secure-port=0"]


def _kwok(folder: Path, port: int) -> list[str]:
    return [
        f"--kubeconfig={folder / 'kwok.kubeconfig'}",
        f"--config={HERE / 'stages.yaml'}",
        "--manage-nodes-with-label-selector=!thinkimg.dev/unplugged",
        "--node-lease-duration-seconds=40",
        "--enable-crds=Logs",  # `kubectl logs` reads the file that a Logs object names
        "--node-ip=127.0.0.1",
        f"--node-port={port}",
        f"--server-address=127.0.0.1:{port}",
        f"--tls-cert-file={folder / 'pki' / 'apiserver.crt'}",
        f"--tls-private-key-file={folder / 'pki' / 'apiserver.key'}",
    ]


def _free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has, below those that the kernel gives to outgoing connections."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            if port not in ports:
                ports.append(port)
    return ports


def die_with_parent() -> None:
    """In a component, before it begins: end when the supervisor ends, even by SIGKILL (Linux only)."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_for(what: str, done: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if done():
                return
            reason = "not yet"
        except OSError as error:  # URLError and HTTPError are OSErrors
            reason = str(error)
        if time.monotonic() > deadline:
            raise ClusterError(f"after {seconds:.0f} s still not so: {what} ({reason})")
        time.sleep(0.1)


def serve(folder: Path, options: Options, programs: dict[str, Path], *, until_stdin_closes: bool) -> int:
    """Be the supervisor of a cluster in `folder` until a signal, a dead component or, if so asked, the end of stdin.

    Writes `ready` or `failed` (with the reason) there. Returns an exit code.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    if until_stdin_closes:  # whoever started us ended, however: the kernel closes its end of the pipe
        threading.Thread(target=lambda: (sys.stdin.buffer.read(), stop.set()), daemon=True).start()
    supervisor = Supervisor(folder, options, programs, stop)
    reason: str | None = None
    try:
        supervisor.start()
        (folder / "ready").touch()
        while not stop.wait(0.5) and not (reason := supervisor.ended()):
            pass
    except ClusterError as error:
        reason = str(error)
    finally:
        supervisor.stop()
        if reason:
            (folder / "failed").write_text(reason)
            print(f"cluster: {reason}", file=sys.stderr, flush=True)
    return 1 if reason else 0


def launch(folder: Path, options: Options, *, detached: bool = False) -> subprocess.Popen[bytes]:
    """Start a supervisor for a new cluster in `folder` (empty) and wait until it is ready.

    Without `detached` the cluster ends with this process or when the returned process' stdin is closed. Raises
    ClusterError, and BinariesError when a program has to be built and cannot be.
    """
    names = [name for name in binaries.CONTROL_PLANE if options.nodes or name != "kwok"]
    programs = {name: str(path) for name, path in binaries.ensure(names).items()}
    folder.mkdir(parents=True, exist_ok=True)
    description = {"options": asdict(options), "programs": programs}
    (folder / "cluster.json").write_text(json.dumps(description, indent=2))
    command = [
        sys.executable,
        str(HERE / "cluster"),
        "serve",
        str(folder),
        *([] if detached else ["--until-stdin-closes"]),
    ]
    with (folder / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # the terminal's Ctrl-C is for the caller, who ends us in order
        )
    while not (folder / "ready").exists():
        if process.poll() is not None:
            failed = folder / "failed"
            raise ClusterError(failed.read_text() if failed.exists() else (folder / "supervisor.log").read_text())
        time.sleep(0.05)
    return process


@contextlib.contextmanager
def running(folder: Path, options: Options) -> Iterator[ControlPlane]:
    """A new cluster in `folder` for as long as the context lasts, or this process."""
    supervisor = launch(folder, options)
    try:
        yield ControlPlane(folder)
    finally:
        assert supervisor.stdin is not None
        supervisor.stdin.close()
        supervisor.wait(timeout=60)

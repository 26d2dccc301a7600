"""The programs of a control plane: found in KUBEBUILDER_ASSETS or the cache, otherwise built from pinned Go modules.

Each folder with a `go.mod` below this one is a build: `kubernetes` (one program that is etcd, the API server, its
controllers, kubelet, kube-proxy and kubectl, by the name it is called), `kwok`, `helm`, and what
kind needs or what checks rules, charts and workflows.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import toolchain

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Build:
    """One Go module and the programs that come from it."""

    folder: str
    package: str
    """What is built, as an import path."""
    programs: tuple[str, ...]
    minutes: float
    """About how long it takes on two cores."""
    tags: str = ""
    """Build tags of Go."""

    @property
    def source(self) -> Path:
        return HERE / self.folder

    def version(self, module: str) -> str:
        """The version of `module` that go.mod requires, as in `v1.37.2`."""
        found = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", (self.source / "go.mod").read_text(), re.M)
        assert found, f"{self.source}/go.mod does not require {module}"
        return found[1]

    def flags(self) -> list[str]:
        """Linker flags: no debug information, and the version that the programs report."""
        if self.folder != "kubernetes":
            return ["-s", "-w"]
        version = self.version("k8s.io/kubernetes")
        major, minor, _ = version.removeprefix("v").split(".")
        package = "k8s.io/component-base/version"  # without these, clients see v0.0.0
        return [
            "-s",
            "-w",
            f"-X {package}.gitVersion={version}",
            f"-X {package}.gitMajor={major}",
            f"-X {package}.gitMinor={minor}",
        ]

    def key(self) -> str:
        """Changes whenever the programs could: sources, versions, flags, toolchain, platform."""
        digest = hashlib.sha256()
        for file in sorted(self.source.iterdir()):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
        digest.update(repr((self.package, self.flags(), toolchain.VERSION, toolchain.platform_name())).encode())
        digest.update(self.tags.encode())
        return digest.hexdigest()[:16]


BUILDS = (
    Build(
        "kubernetes",
        ".",
        (
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
            "kubeadm",
        ),
        minutes=7,
    ),
    Build("kwok", "sigs.k8s.io/kwok/cmd/kwok", ("kwok",), minutes=1),
    Build("helm", "helm.sh/helm/v4/cmd/helm", ("helm",), minutes=1.5),
    Build("kind", "sigs.k8s.io/kind", ("kind",), minutes=0.5),
    Build("promtool", "github.com/prometheus/prometheus/cmd/promtool", ("promtool",), minutes=2, tags="remove_all_sd"),
    Build("helm-docs", "github.com/norwoodj/helm-docs/cmd/helm-docs", ("helm-docs",), minutes=0.5),
    Build("actionlint", "github.com/rhysd/actionlint/cmd/actionlint", ("actionlint",), minutes=0.3),
    Build("coredns", "github.com/coredns/coredns", ("coredns",), minutes=2),
    Build("kube-router", "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router", ("kube-router",), minutes=2),
    Build("buildx", "github.com/docker/buildx/cmd/buildx", ("buildx",), minutes=1.5),
    Build("crane", "github.com/google/go-containerregistry/cmd/crane", ("crane",), minutes=0.5),
    Build("metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server", ("metrics-server",), minutes=1.5),
)
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok")
FOR_TESTS = (*CONTROL_PLANE, "helm", "promtool", "helm-docs", "actionlint")


class BinariesError(Exception):
    """A program is neither here nor can it be built; the text says why and what to do."""


def cache_folder() -> Path:
    """Where built programs stay: THINKIMG_CLUSTER_CACHE, or `thinkimg/cluster` in the user's cache."""
    if folder := os.environ.get("THINKIMG_CLUSTER_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thinkimg" / "cluster"


def find(program: str) -> Path | None:
    """The program, if it is in KUBEBUILDER_ASSETS or has been built before."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (Path(assets) / program).exists():
        return Path(assets) / program
    built = _built(_build_of(program)) / program
    return built if built.exists() else None


def ensure(programs: Iterable[str] = CONTROL_PLANE, say: Callable[[str], None] | None = None) -> dict[str, Path]:
    """Path of each program, built now if need be. Raises BinariesError."""
    say = say or _to_stderr
    found: dict[str, Path] = {}
    for program in programs:
        path = find(program)
        if path is None:
            _make(_build_of(program), say)
            path = find(program)
        assert path is not None
        found[program] = path
    return found


def _build_of(program: str) -> Build:
    for build in BUILDS:
        if program in build.programs:
            return build
    known = ", ".join(name for build in BUILDS for name in build.programs)
    raise BinariesError(f'there is no program "{program}"; there are {known}')


def _built(build: Build) -> Path:
    return cache_folder() / f"{build.folder}-{build.key()}"


def _make(build: Build, say: Callable[[str], None]) -> None:
    """Build into the cache; of several who want the same at once, one builds and the others wait."""
    target = _built(build)
    with _lock(cache_folder() / f"{build.folder}.lock", say):
        if target.exists():
            return
        try:
            go = toolchain.go(cache_folder(), say)
        except toolchain.ToolchainError as error:
            raise BinariesError(f"{build.folder} cannot be built: {error}") from None
        say(f"building {', '.join(build.programs)} (once; about {build.minutes:g} minutes on 2 cores)")
        started = time.monotonic()
        unfinished = target.with_name(f"{target.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        _compile(build, go, unfinished / build.folder)
        for program in build.programs:
            if program != build.folder:
                (unfinished / program).symlink_to(build.folder)
        unfinished.rename(target)
        say(f"built {build.folder} in {time.monotonic() - started:.0f} s: {target}")


def _compile(build: Build, go: Path, output: Path) -> None:
    command = [str(go), "build", "-trimpath", "-tags", build.tags, "-ldflags", " ".join(build.flags())]
    command += ["-o", str(output), build.package]
    # Static programs run in any image; the toolchain is the one that was chosen, and a go.work above does not count.
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "-buildvcs=false",
    }
    result = subprocess.run(command, cwd=build.source, env=environment, stderr=subprocess.PIPE, text=True)
    if result.returncode:
        raise BinariesError(f"{build.folder} cannot be built: `go build` said\n{result.stderr[-3000:]}")


@contextlib.contextmanager
def _lock(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is building; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _to_stderr(text: str) -> None:
    print(f"cluster: {text}", file=sys.stderr, flush=True)

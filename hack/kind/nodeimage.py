"""kind's node image where it cannot be pulled: Kubernetes from its Go modules, the rest from Debian's packages."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "cluster"))

import binaries  # noqa: E402
import toolchain  # noqa: E402

DOCKER = os.environ.get("DOCKER", "docker")
_REGISTRY = "registry.k8s.io"


def ensure(base_image: str) -> str:
    """Name of the node image, built now if this machine does not have it for these versions."""
    programs = binaries.ensure(("kubelet", "coredns"))
    tag = f"thinkimg.local/kindest-node:{kubernetes_version()}-{_key()}"
    if subprocess.run([DOCKER, "image", "inspect", tag], capture_output=True).returncode == 0:
        return tag
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        shutil.copy(programs["kubelet"].resolve(), context / "kubernetes")
        shutil.copy(programs["coredns"].resolve(), context / "coredns")
        _build_pause(context / "pause")
        shutil.copytree(_kind_files(), context / "files")
        _make_writable(context / "files")
        names = _component_images(programs["kubelet"].parent / "kubeadm")
        _build_components(context, base_image, names)
        say(f"building {tag}")
        pause = names["pause"][0]
        docker_build(HERE / "Dockerfile.node", context, tag, base_image, VERSION=kubernetes_version(), PAUSE=pause)
    return tag


def kubernetes_version() -> str:
    return next(build for build in binaries.BUILDS if build.folder == "kubernetes").version("k8s.io/kubernetes")


def say(text: str) -> None:
    print(f"kind: {text}", file=sys.stderr, flush=True)


def _key() -> str:
    """Changes with every program and file that goes into the image."""
    digest = hashlib.sha256()
    for build in binaries.BUILDS:
        if build.folder in ("kubernetes", "coredns", "kind"):
            digest.update(build.key().encode())
    for file in ("Dockerfile.components", "Dockerfile.node", "nodeimage.py", "pause/main.go"):
        digest.update((HERE / file).read_bytes())
    return digest.hexdigest()[:12]


def _component_images(kubeadm: Path) -> dict[str, list[str]]:
    """Names that kubeadm wants, by the target of Dockerfile.components that makes them."""
    command = [str(kubeadm), "config", "images", "list", "--kubernetes-version", kubernetes_version()]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    images: dict[str, list[str]] = {"kubernetes": [], "kube-proxy": [], "coredns": [], "pause": []}
    for image in listed:
        name = re.sub(r":[^:]*$", "", image).rpartition("/")[2]
        images[name if name in images else "kubernetes"].append(image)
    return images


def _build_components(context: Path, base_image: str, names: dict[str, list[str]]) -> None:
    say("building the images of the control plane")
    for target, images in names.items():
        docker_build(HERE / "Dockerfile.components", context, images[0], base_image, target=target)
        for other in images[1:]:
            subprocess.run([DOCKER, "tag", images[0], other], check=True)
    everything = [image for images in names.values() for image in images]
    subprocess.run([DOCKER, "save", "--output", str(context / "images.tar"), *everything], check=True)


def docker_build(
    dockerfile: Path, context: Path, tag: str, base_image: str, target: str = "", **arguments: str
) -> None:
    """An image on `base_image`, with the network of the host."""
    command = [DOCKER, "build", "--quiet", "--network", "host", "--file", str(dockerfile), "--tag", tag]
    for name, value in {"BASE_IMAGE": base_image, **arguments}.items():
        command += ["--build-arg", f"{name}={value}"]
    if target:
        command += ["--target", target]
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    subprocess.run([*command, str(context)], check=True, env=environment, stdout=subprocess.DEVNULL)


def _build_pause(target: Path) -> None:
    _go("build", "-trimpath", "-ldflags", "-s -w", "-o", str(target), ".", folder=HERE / "pause")


def _kind_files() -> Path:
    """The folder images/base/files of the module of kind."""
    version = next(build for build in binaries.BUILDS if build.folder == "kind").version("sigs.k8s.io/kind")
    shown = _go("mod", "download", "-json", f"sigs.k8s.io/kind@{version}", folder=HERE.parent / "cluster" / "kind")
    return Path(json.loads(shown)["Dir"]) / "images" / "base" / "files"


def _go(*arguments: str, folder: Path) -> str:
    go = toolchain.go(binaries.cache_folder(), say)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    command = [str(go), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def _make_writable(folder: Path) -> None:
    """Files of the module cache are read-only, and a temporary folder wants to be removed."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)

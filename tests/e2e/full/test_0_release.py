"""The build and push steps of the release workflow, against a registry on this machine: images by bake, charts by Helm.

Provenance, list of contents and signature come from GitHub's runners and are not made here.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import binaries
import pytest
import yaml

from tests.support import REPOSITORY
from tests.support.e2e.e2ecluster import DOCKER

IMAGES = ["runtime", "operator", "tool"]
VERSION = "9.9.9"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an empty registry."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"localhost:{free.getsockname()[1]}"
    crane = binaries.ensure(["crane"])["crane"]
    with (tmp_path_factory.mktemp("registry") / "log").open("wb") as log:
        process = subprocess.Popen([crane, "registry", "serve", "--address", address], stdout=log, stderr=log)
    try:
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def crane(*arguments: str) -> str:
    program = binaries.ensure(["crane"])["crane"]
    return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def pushed(registry: str) -> str:
    """The images of the bake file, built and pushed as the workflow does it."""
    buildx = binaries.ensure(["buildx"])["buildx"]
    environment = {**os.environ, "REGISTRY": f"{registry}/thinkimg", "VERSION": VERSION, "REVISION": "abc"}
    # Packages come through the host's network here; attestations need a builder of their own, not the daemon's.
    command = [buildx, "bake", "--push", "--set=*.network=host", "--allow=network.host", "--provenance=false"]
    server = subprocess.run(
        [DOCKER, "version", "--format", "{{.Server.Version}}"], check=True, capture_output=True, text=True
    ).stdout
    if int(server.partition(".")[0]) >= 23:
        subprocess.run([*command, *IMAGES], cwd=REPOSITORY, env=environment, check=True)
        return registry
    # The BuildKit in older daemons, as Debian's, cannot build one image on another that is being built.
    subprocess.run([*command, "runtime", "operator"], cwd=REPOSITORY, env=environment, check=True)
    subprocess.run(["hack/docker/build.sh", "tool"], cwd=REPOSITORY, env=environment, check=True)
    subprocess.run([DOCKER, "push", f"{registry}/thinkimg/tool:{VERSION}"], check=True)
    return registry


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_in_the_registry(pushed: str, image: str) -> None:
    config = json.loads(crane("config", f"{pushed}/thinkimg/{image}:{VERSION}"))["config"]
    assert config["User"] == "65532:65532"
    assert config["Labels"]["org.opencontainers.image.version"] == VERSION
    assert config["Labels"]["org.opencontainers.image.revision"] == "abc"


def test_a_tool_begins_with_the_layers_of_the_runtime(pushed: str) -> None:
    def layers(image: str) -> list[str]:
        manifest = json.loads(crane("manifest", f"{pushed}/thinkimg/{image}:{VERSION}"))
        return [layer["digest"] for layer in manifest["layers"]]

    assert layers("tool")[: len(layers("runtime"))] == layers("runtime")


def test_charts_are_in_the_registry_and_name_the_images_of_their_version(registry: str, tmp_path: Path) -> None:
    helm = str(binaries.ensure(["helm"])["helm"])
    environment = {**os.environ, "HELM": helm, "PLAIN_HTTP": "1"}
    command = ["hack/release_charts.sh", VERSION, f"oci://{registry}/charts"]
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True)
    for chart in ("thinkimg-crds", "thinkimg-operator", "thinkimg-tools", "thinkimg"):
        pulled = [helm, "pull", f"oci://{registry}/charts/{chart}", "--version", VERSION, "--plain-http", "--untar"]
        subprocess.run(pulled, cwd=tmp_path, check=True)
    for chart in tmp_path.rglob("Chart.yaml"):  # those within the umbrella, too
        assert yaml.safe_load(chart.read_text())["appVersion"] == VERSION
    shown = [helm, "template", "x", str(tmp_path / "thinkimg-operator")]
    rendered = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
    assert f"ghcr.io/thinkimg/operator:{VERSION}" in rendered
    assert f"--image-tag={VERSION}" in rendered


@pytest.mark.parametrize("image", ["runtime", "tool", "trainer", "operator"])
def test_the_list_of_contents_comes_from_the_lock(image: str) -> None:
    command = ["bash", "-c", f'python={sys.executable}; . hack/find_uv.sh; UV="$uv" hack/docker/sbom.sh {image}']
    listed = json.loads(subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout)
    names = {component["name"] for component in listed["components"]}
    assert ("torch" in names) == (image == "trainer")
    assert ("kopf" in names) == (image == "operator")

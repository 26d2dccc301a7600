"""What a cluster can have besides, built from Go modules like everything else: see addons/."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import nodeimage
from nodeimage import DOCKER, binaries, say

HERE = Path(__file__).parent / "addons"
PROGRAMS = {"network-policies": "kube-router", "metrics": "metrics-server"}
"""Name of each add-on, as `hack/kind/kind add` takes it, and the program that it runs."""


def ensure(addon: str, base_image: str) -> str:
    """Name of the add-on's image, built now if this machine does not have it for these versions."""
    program = PROGRAMS[addon]
    path = binaries.ensure([program])[program]
    tag = f"thinkimg.local/{program}:{path.parent.name.rpartition('-')[2]}"
    if subprocess.run([DOCKER, "image", "inspect", tag], capture_output=True).returncode == 0:
        return tag
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path.resolve(), Path(folder) / program)
        say(f"building {tag}")
        nodeimage.docker_build(HERE / "Dockerfile", Path(folder), tag, base_image, target=program)
    return tag


def manifest(addon: str, image: str) -> str:
    """The objects of the add-on, in YAML."""
    return (HERE / f"{addon}.yaml").read_text().replace("IMAGE", image)

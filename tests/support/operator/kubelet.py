"""A kubelet of one machine: it starts the container of a rendered pod as a process, with exactly the pod's command,
environment and files, and leaves the pod's body as the API server would have it afterwards.

Paths of the pod are folders of this machine. Nothing is known here of what the container is to be told or to say.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Body = dict[str, Any]

KEPT = ("PATH", "LANG", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "HYPOTHESIS_STORAGE_DIRECTORY")
"""Of this machine's environment, what an image would bring."""


@dataclass
class Kubelet:
    """What a pod's volumes hold is below `root`."""

    root: Path
    config_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    image: Mapping[str, str] = field(default_factory=dict)
    """Variables that the image brings."""

    def claim(self, name: str) -> Path:
        """The folder of a PersistentVolumeClaim."""
        return _made(self.root / "claims" / name)

    def run(self, job: Body, index: int = 0, seconds: float = 280) -> Ended:
        """One pod of an Indexed Job, to its end."""
        pod = self.pod_of(job, index)
        container = self.place(pod)
        environment = container.environment | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        process = subprocess.run(
            container.command, env=environment, cwd=self.root, capture_output=True, text=True, timeout=seconds
        )
        log = process.stdout + process.stderr
        message = container.termination_log.read_text() or log
        terminated = {
            "exitCode": process.returncode,
            "reason": "Error" if process.returncode else "Completed",
            "message": message[-4096:],
            "finishedAt": "2026-11-30T12:00:00Z",
        }
        state = {"name": container.name, "ready": False, "state": {"terminated": terminated}}
        phase = "Failed" if process.returncode else "Succeeded"
        return Ended(pod | {"status": {"phase": phase, "containerStatuses": [state]}}, log, container.name)

    def pod_of(self, job: Body, index: int) -> Body:
        """The pod that the Job's controller makes."""
        name, template = f"{job['metadata']['name']}-{index}", job["spec"]["template"]
        mark = {"batch.kubernetes.io/job-completion-index": str(index)}
        metadata = {
            "name": name,
            "uid": f"uid-of-{name}",
            "creationTimestamp": "2026-11-30T11:00:00Z",
            "labels": template["metadata"].get("labels", {}) | mark,
            "annotations": template["metadata"].get("annotations", {}) | mark,
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}

    def place(self, pod: Body) -> Container:
        """The pod's only container with its volumes mounted and its variables filled in."""
        (container,) = pod["spec"]["containers"]
        volumes = {volume["name"]: self._volume(volume, pod) for volume in pod["spec"]["volumes"]}
        tree = Tree(fresh(self.root / "trees" / pod["metadata"]["name"]))
        for mount in container["volumeMounts"]:
            tree.mount(mount["mountPath"], volumes[mount["name"]])
        termination_log = self.root / f"{pod['metadata']['name']}.termination-log"
        termination_log.write_text("")
        tree.mount(container.get("terminationMessagePath", "/dev/termination-log"), termination_log)
        values = {variable["name"]: self._value(variable, pod) for variable in container["env"]}
        for source in container.get("envFrom", ()):
            values = {**self.secrets[source["secretRef"]["name"]], **values}
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment = kept | self.image | {name: tree.mapped(value) for name, value in values.items()}
        command = [tree.mapped(word) for word in [*container["command"], *container.get("args", ())]]
        command[0] = str(Path(sys.executable).parent / command[0])
        return Container(container["name"], command, environment, termination_log)

    def _volume(self, volume: Body, pod: Body) -> Path:
        folder = _made(self.root / "volumes" / pod["metadata"]["name"] / volume["name"])
        if "persistentVolumeClaim" in volume:
            return self.claim(volume["persistentVolumeClaim"]["claimName"])
        if "configMap" in volume:
            for name, text in self.config_maps[volume["configMap"]["name"]].items():
                (folder / name).write_text(text)
        for item in volume.get("downwardAPI", {}).get("items", ()):
            (folder / item["path"]).write_text(_field(item["fieldRef"], pod))
        return folder

    def _value(self, variable: Body, pod: Body) -> str:
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            return _field(source["fieldRef"], pod)
        if "secretKeyRef" in source:
            return self.secrets[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]]
        return str(variable["value"])


@dataclass(frozen=True)
class Container:
    """A container, ready to be started."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    termination_log: Path


@dataclass(frozen=True)
class Ended:
    """A pod that has ended."""

    body: Body
    """As the API server has it."""
    log: str
    container: str


def _field(reference: Body, pod: Body) -> str:
    """A pod's field as the downward API has it; only `metadata.annotations['…']` is known."""
    start, path, end = "metadata.annotations['", reference["fieldPath"], "']"
    assert path.startswith(start), path
    assert path.endswith(end), path
    return str(pod["metadata"]["annotations"][path[len(start) : -len(end)]])


class Tree:
    """The pod's file system, as far as something is mounted in it: a folder of links."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mounts: list[str] = []

    def mount(self, path: str, target: Path) -> None:
        link = self.root / path.lstrip("/")
        _made(link.parent)
        link.symlink_to(target)
        self.mounts.append(path)

    def mapped(self, text: str) -> str:
        """A path at, below or above a mount as a path of this machine; other texts as they are."""
        if not text.startswith("/") or text == "/":
            return text
        near = any(f"{text}/".startswith(f"{mount}/") or mount.startswith(f"{text}/") for mount in self.mounts)
        return f"{self.root}{text}" if near else text


def fresh(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    return _made(folder)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder

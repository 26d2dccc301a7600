"""Applies a manifest to a cluster, checked before anything is sent."""

from collections.abc import Iterator
from pathlib import Path

from thinkimg.api import Manifest, ManifestError, Problem, load_manifest, read_yaml, scheme_of
from thinkimg.cluster.place import PLURALS, Place


def apply_manifest(place: Place, file: Path) -> list[str]:
    """Apply the file's VisionTools and ToolRLJobs, tools first; what was applied, as `ToolRLJob/demo`.

    Raises:
        ManifestError: the file, with every problem in it; data that only this machine has.
    """
    manifest = load_manifest(file)
    problems = [*_data_of_this_machine(manifest), *_models_of_this_machine(manifest)]
    if problems:
        raise ManifestError(problems, manifest.source)
    ours = [document for document in read_yaml(file) if document.get("kind") in PLURALS]
    ours.sort(key=lambda document: document["kind"] == "ToolRLJob")
    for document in ours:
        place.apply(document)
    return [f"{document['kind']}/{document['metadata']['name']}" for document in ours]


def _data_of_this_machine(manifest: Manifest) -> Iterator[Problem]:
    for job in manifest.jobs:
        for split in ("train", "validation", "test", "trajectories"):
            source = getattr(job.spec.data, split)
            if source is None or scheme_of(source.uri):
                continue
            remedy = (
                "Put it on a claim and name it as pvc://CLAIM/PATH, or on the hub as hf://OWNER/NAME. If it already is "
                "below the root of the job's storage, `kubectl apply -f` takes the file as it is."
            )
            yield manifest.problem(
                f"ToolRLJob/{job.name}", ("spec", "data", split, "uri"),
                f'"{source.uri}" is a path of this machine, and pods do not see it', remedy,
            )  # fmt: skip


def _models_of_this_machine(manifest: Manifest) -> Iterator[Problem]:
    for job in manifest.jobs:
        if not scheme_of(job.spec.model.uri):
            remedy = "Put it on a claim and name it as pvc://CLAIM/PATH, or on the hub as hf://OWNER/NAME."
            yield manifest.problem(
                f"ToolRLJob/{job.name}", ("spec", "model", "uri"),
                f'"{job.spec.model.uri}" is a path of this machine, and pods do not see it', remedy,
            )  # fmt: skip

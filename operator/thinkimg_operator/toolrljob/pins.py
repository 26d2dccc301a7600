"""What a job keeps from its start to its end, whatever becomes of the operator: names of objects, images, the contract.

A new operator brings another default image, and writes another manifest. A trainer of the old image would not read it,
and one of the new image would be another experiment.
"""

from __future__ import annotations

from collections.abc import Sequence

from thinkimg.api import ImageStatus, Pinned, StageStatus
from thinkimg.api.pod_contract import VERSION

from ..settings import VERSION as OPERATOR_VERSION
from .attempts import PodSeen
from .case import Case
from .render import image_of, legacy_names, new_names


def pin_start(case: Case) -> None:
    """For a job that starts now: what it begins with."""
    case.status.names = new_names(case.job)
    case.status.pinned = Pinned(
        image=case.world.default_image, operator_version=OPERATOR_VERSION, contract_version=VERSION
    )


def pin_started(case: Case) -> None:
    """For a job that an operator started which noted nothing: what its objects say, before they are replaced."""
    status, world = case.status, case.world
    if status.start_time is None:
        return
    if status.names is None:
        old, new = legacy_names(case.job), new_names(case.job)
        status.names = old.model_copy(
            update={
                **({"service": new.service} if {"Service", "NetworkPolicy"} & world.taken else {}),
                **({"manifest": new.manifest} if "ConfigMap" in world.taken else {}),
            }
        )
    if status.pinned is None:
        latest = max(world.jobs, key=lambda job: (job.created or case.now, job.attempt), default=None)
        named = latest is not None and latest.image and not case.job.spec.image
        status.pinned = Pinned(
            image=latest.image if latest is not None and named else world.default_image,
            contract_version=(latest.contract if latest else 0) or VERSION,
        )


def note_image(case: Case, stage: StageStatus, pods: Sequence[PodSeen]) -> None:
    """Note the digest of the stage's image, as soon as a node says it. The first that is said stays."""
    ran = next((pod for pod in sorted(pods, key=lambda pod: pod.index) if pod.image_id), None)
    image = image_of(case.job.model_copy(update={"status": case.status}), stage.name, case.world.default_image)
    if ran is None or "@" in image or any(known.image == image and known.digest for known in case.status.images):
        return
    digest = digest_in(ran.image_id, image)
    why = "" if digest else "not pinned: the node names no digest by which it can be pulled again"
    others = [known for known in case.status.images if known.image != image]
    case.status.images = [*others, ImageStatus(image=image, digest=digest, message=why)]


def digest_in(image_id: str, image: str) -> str:
    """The digest of a pod's `imageID`; empty when `image` cannot be pulled by it: loaded by hand, or from a mirror."""
    name, _, digest = image_id.removeprefix("docker-pullable://").partition("@")
    return digest if digest.startswith("sha256:") and _repository(name) == _repository(image) else ""


def _repository(image: str) -> str:
    """`ocr:1` → `docker.io/library/ocr`."""
    name = image.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    path = f"{folder}{slash}{last.partition(':')[0]}"
    host, slash, _ = path.partition("/")
    if not slash:
        return f"docker.io/library/{path}"
    return path if {".", ":"} & set(host) or host == "localhost" else f"docker.io/{path}"

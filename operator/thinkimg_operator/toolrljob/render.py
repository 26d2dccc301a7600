"""What a ToolRLJob looks like as Kubernetes objects. Pure: the same job gives the same bodies.

Per job one ConfigMap (the manifest that the stages read), one headless Service (the name of rank 0), one NetworkPolicy
and one claim; per attempt of a stage one Indexed Job. A pod runs `thinkimg stage`, the same command as everywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from thinkimg.api import API_VERSION, BASE, ChildNames, EnvVar, SecretRef, Stage, ToolRLJob, VisionTool, scheme_of
from thinkimg.api.pod_contract import (
    CONTAINER,
    MASTER_PORT,
    PROGRAM,
    UNDERSTOOD,
    USER,
    VERSION,
    Annotation,
    Label,
    Place,
    Variable,
    misunderstanding,
    stage_arguments,
)

from ..kinds import KUEUE_PREFIX
from ..network import open_egress
from ..strategic_merge import merge_pod_template

Body = dict[str, Any]

LONGEST_JOB = 57
"""Characters of a Job's name: its pods' host names add their index and have at most 63."""
GRACE_SECONDS = 60
"""What a stage has after SIGTERM to save and end."""
_MANIFEST_FOLDER, _, _MANIFEST_NAME = Place.MANIFEST.rpartition("/")


class ContractError(Exception):
    """A job's stages and this operator do not understand each other."""


@dataclass(frozen=True)
class ToolEndpoint:
    """A VisionTool as a stage sees it."""

    name: str
    url: str
    key: SecretRef | None = None
    """Where the key is that its server wants."""


def plan(job: ToolRLJob) -> list[str]:
    """Names of everything that is run, in order: a preset's base model is made first."""
    first = [BASE] if scheme_of(job.spec.model.uri) == "preset" else []
    return first + [stage.name for stage in job.spec.stages]


def stage_of(job: ToolRLJob, name: str) -> Stage | None:
    """The stage; None for `base`, which has no settings."""
    return None if name == BASE else job.spec.stage(name)


def calls_tools(job: ToolRLJob, name: str) -> bool:
    """Whether the stage asks tools while it runs."""
    stage = stage_of(job, name)
    if stage is None or not job.spec.tools:
        return False
    gated = stage.sft is not None and stage.sft.gate is not None and stage.sft.tool_use == "Enabled"
    return stage.uses_tools or gated or stage.evaluate is not None


def pods_of(job: ToolRLJob, name: str) -> int:
    """How many pods the stage has. Stages that do not train are one process."""
    stage = stage_of(job, name)
    return stage.nodes if stage is not None and stage.type in ("SFT", "GRPO") else 1


def job_name(job: ToolRLJob, stage: str, attempt: int) -> str:
    """Name of an attempt's Job. With the uid: job `exp` may have a stage `text-sft`, job `exp-text` a stage `sft`."""
    rest = f"-{stage}-{attempt}-{_short_uid(job)}"
    return f"{job.name[: LONGEST_JOB - len(rest)].rstrip('-')}{rest}"


def new_names(job: ToolRLJob) -> ChildNames:
    """Names of the objects of a job that starts now. With the uid: a VisionTool may have the job's name."""
    name = f"{job.name}-{_short_uid(job)}"
    return ChildNames(service=name, manifest=name)


def legacy_names(job: ToolRLJob) -> ChildNames:
    """Names of the objects of a job that was started before names had the uid."""
    return ChildNames(service=job.name, manifest=f"{job.name}-manifest")


def names_of(job: ToolRLJob) -> ChildNames:
    """Names of the job's own objects: those in its status, else what they will be."""
    return (job.status.names if job.status else None) or new_names(job)


def _short_uid(job: ToolRLJob) -> str:
    return (job.metadata.uid or "")[:5]


def image_of(job: ToolRLJob, stage: str, default: str) -> str:
    """The image of a stage as it is named. `default`: for stages of a job that has not started yet."""
    pinned = job.status.pinned if job.status else None
    return job.spec.image or (pinned.image if pinned else default)


def _pinned_image(job: ToolRLJob, stage: str, default: str) -> str:
    """The same image as in the attempts before, as far as that is known."""
    image = image_of(job, stage, default)
    seen = job.status.images if job.status else []
    digest = next((known.digest for known in seen if known.image == image), "")
    return f"{image}@{digest}" if digest and "@" not in image else image


def claim_name(job: ToolRLJob) -> str:
    """The claim that all stages share."""
    return job.spec.storage.claim_name or f"{job.name}-storage"


def foreign_claims(job: ToolRLJob) -> list[str]:
    """Claims that must exist already: the storage's if it is named, and those of `pvc://` URIs."""
    named = [job.spec.storage.claim_name] if job.spec.storage.claim_name else []
    return sorted({*named, *_mounted_claims(job)})


def contract_of(job: ToolRLJob) -> int:
    """Version of the contract that the job's stages speak: the one that the job started with."""
    pinned = job.status.pinned if job.status else None
    return pinned.contract_version or VERSION if pinned else VERSION


def run_folder(job: ToolRLJob) -> str:
    """The job's folder below the storage root. With the uid, so that a new job of an old name starts afresh."""
    return f"runs/{job.name}-{(job.metadata.uid or '')[:8]}"


def labels_of(job: ToolRLJob, stage: str | None = None, attempt: int | None = None) -> dict[str, str]:
    labels = {
        "app.kubernetes.io/name": "thinkimg",
        "app.kubernetes.io/component": "stage",
        "app.kubernetes.io/instance": job.name,
        Label.JOB: job.name,
        Label.JOB_UID: job.metadata.uid or "",
    }
    if stage is not None:
        labels[Label.STAGE] = stage
    if attempt is not None:
        labels[Label.ATTEMPT] = str(attempt)
    return labels


# ---- objects of the whole job ----------------------------------------------------------------------------------------


def render_service(job: ToolRLJob) -> Body:
    """The name of rank 0, also before it is ready: the other ranks look for it while they start.

    Of no other rank, as nothing asks for one: each address of a Service costs writes of Endpoints and EndpointSlices
    whenever its pod changes, more of them than all else that a starting job writes.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(job, names_of(job).service),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {Label.JOB: job.name, Annotation.COMPLETION_INDEX: "0"},
            "ports": [{"name": "rendezvous", "port": MASTER_PORT, "protocol": "TCP"}],
        },
    }


def render_network_policy(job: ToolRLJob) -> Body:
    """Trainers hear each other and nobody else: torch's rendezvous and collectives ask no one who they are."""
    ours = {"podSelector": {"matchLabels": {Label.JOB: job.name}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(job, names_of(job).service),
        "spec": {
            **ours,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [ours]}],
            "egress": open_egress(),
        },
    }


def render_manifest(job: ToolRLJob, tools: Sequence[VisionTool]) -> Body:
    """The manifest with every default written out, as stages read it.

    Only what decides the experiment is in it: fields that may be changed while the job runs would change the file
    under the feet of a running stage.
    """
    spec = job.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    for field in ("failurePolicy", "suspend", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "managedBy"):
        spec.pop(field, None)
    documents: list[Body] = [_document("ToolRLJob", job.name, spec)]
    for tool in sorted(tools, key=lambda tool: tool.name):
        given = tool.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        kept = ("tool", "backend", "image", "callTimeoutSeconds")
        documents.append(_document("VisionTool", tool.name, {name: given[name] for name in kept if name in given}))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(job, names_of(job).manifest),
        "immutable": True,
        "data": {_MANIFEST_NAME: yaml.safe_dump_all(documents, sort_keys=True, allow_unicode=True)},
    }


def render_claim(job: ToolRLJob) -> Body | None:
    """The claim to make; None when the job names one."""
    storage = job.spec.storage
    if storage.claim_name is not None:
        return None
    spec: Body = {
        "accessModes": list(storage.access_modes),
        "resources": {"requests": {"storage": storage.size or "100Gi"}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    metadata = _metadata(job, claim_name(job))
    metadata["labels"].pop(Label.JOB_UID)  # a retained claim serves the next job of this name too
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


# ---- one attempt -----------------------------------------------------------------------------------------------------


def render_attempt(job: ToolRLJob, stage: str, attempt: int, endpoints: Sequence[ToolEndpoint], image: str) -> Body:
    """The Indexed Job of one attempt. It never restarts anything itself: that is decided by `attempts`, for all ranks
    together.

    Raises:
        PatchError: `spec.podTemplatePatch` cannot be merged.
        ContractError: the job's stages speak a version of the contract that this operator does not.
    """
    name, pods = job_name(job, stage, attempt), pods_of(job, stage)
    kueue = {key: value for key, value in job.metadata.labels.items() if key.startswith(KUEUE_PREFIX)}
    template = merge_pod_template(_template(job, stage, attempt, endpoints, image), job.spec.pod_template_patch)
    spec: Body = {
        "completionMode": "Indexed",
        "completions": pods,
        "parallelism": pods,
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "template": template,
    }
    if kueue:
        spec["suspend"] = True  # from here on it is Kueue that starts and stops it
    metadata = _metadata(job, name, stage, attempt)
    metadata["labels"] |= kueue
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _template(job: ToolRLJob, stage: str, attempt: int, endpoints: Sequence[ToolEndpoint], image: str) -> Body:
    lost = job.spec.failure_policy.node_lost_seconds
    spec: Body = {
        "restartPolicy": "Never",
        "subdomain": names_of(job).service,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [
            {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute",
             "tolerationSeconds": lost} for taint in ("not-ready", "unreachable")
        ],
        "containers": [_container(job, stage, attempt, endpoints, image)],
        "volumes": _volumes(job),
    }  # fmt: skip
    if job.spec.service_account_name:
        spec["serviceAccountName"] = job.spec.service_account_name
    if job.spec.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": reference.name} for reference in job.spec.image_pull_secrets]
    return {"metadata": {"labels": labels_of(job, stage, attempt)}, "spec": spec}


def _container(job: ToolRLJob, stage: str, attempt: int, endpoints: Sequence[ToolEndpoint], image: str) -> Body:
    settings = stage_of(job, stage)
    if contract_of(job) not in UNDERSTOOD:
        raise ContractError(misunderstanding("the job, since it started,", "this operator", contract_of(job)))
    container: Body = {
        "name": CONTAINER,
        "image": _pinned_image(job, stage, image),
        "command": [PROGRAM],
        "args": stage_arguments(Place.MANIFEST, stage, f"{Place.STORAGE}/{run_folder(job)}", Place.STORAGE),
        "env": _environment(job, stage, attempt, endpoints),
        "terminationMessagePath": Place.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(job),
    }
    if settings is not None:
        resources = {"limits": settings.resources.limits, "requests": settings.resources.requests}
        container["resources"] = {name: dict(amounts) for name, amounts in resources.items() if amounts}
    if job.spec.secret_refs:
        container["envFrom"] = [{"secretRef": {"name": reference.name}} for reference in job.spec.secret_refs]
    return container


def _environment(job: ToolRLJob, stage: str, attempt: int, endpoints: Sequence[ToolEndpoint]) -> list[Body]:
    values = {
        "HOME": Place.TEMPORARY,
        # Downloaded once for all stages, attempts and jobs of this claim.
        Variable.HUB_CACHE: f"{Place.STORAGE}/.cache/huggingface",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "NCCL_DEBUG": "WARN",
        Variable.CONTRACT: str(contract_of(job)),
        Variable.ATTEMPT: str(attempt),
        Variable.CLAIMS: Place.CLAIMS,
        Variable.TERMINATION_LOG: Place.TERMINATION_LOG,
    }
    if job.spec.code is not None:
        values["PYTHONPATH"] = Place.CODE
    secrets: dict[str, SecretRef] = {}
    if job.spec.model.secret_ref is not None:
        secrets[Variable.HUB_TOKEN] = job.spec.model.secret_ref
    settings = stage_of(job, stage)
    planner = settings.synthesize.planner if settings and settings.synthesize else None
    if planner and planner.model and planner.model.secret_ref is not None:
        secrets[Variable.PLANNER_KEY] = planner.model.secret_ref
    if calls_tools(job, stage):
        values[Variable.TOOL_ENDPOINTS] = ",".join(tool.url for tool in endpoints)
        secrets |= {Variable.tool_key(n): tool.key for n, tool in enumerate(endpoints) if tool.key is not None}
    variables = [{"name": name, "value": value} for name, value in values.items()]
    variables += [_from_secret(name, reference) for name, reference in secrets.items()]
    given = {variable.name for variable in job.spec.env}
    ours = [variable for variable in variables if variable["name"] not in given]
    return ours + _ranks(job, stage, attempt) + [_given(variable) for variable in job.spec.env]


def _ranks(job: ToolRLJob, stage: str, attempt: int) -> list[Body]:
    """What torchrun reads: the pod's index is the node's rank, and pod 0 is the master."""
    settings = stage_of(job, stage)
    if settings is None or settings.world_size == 1:
        return []
    values = {
        Variable.NODES: str(settings.nodes),
        Variable.PROCESSES: str(settings.procs_per_node),
        Variable.MASTER_ADDRESS: f"{job_name(job, stage, attempt)}-0.{names_of(job).service}",
        Variable.MASTER_PORT: str(MASTER_PORT),
    }
    index = {"fieldRef": {"fieldPath": f"metadata.annotations['{Annotation.COMPLETION_INDEX}']"}}
    return [{"name": n, "value": v} for n, v in values.items()] + [{"name": Variable.NODE_RANK, "valueFrom": index}]


def _given(variable: EnvVar) -> Body:
    if variable.value_from is not None:
        return {"name": variable.name, "valueFrom": variable.value_from}
    return {"name": variable.name, "value": variable.value or ""}


def _from_secret(name: str, reference: SecretRef) -> Body:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": reference.name, "key": reference.key}}}


def _volumes(job: ToolRLJob) -> list[Body]:
    volumes: list[Body] = [
        {"name": "storage", "persistentVolumeClaim": {"claimName": claim_name(job)}},
        {"name": "manifest", "configMap": {"name": names_of(job).manifest}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},  # NCCL and data loaders; the runtime's 64 MiB are too few
    ]
    if job.spec.code is not None:
        volumes.append({"name": "code", "configMap": {"name": job.spec.code.config_map_ref.name}})
    volumes += [
        {"name": f"claim-{n}", "persistentVolumeClaim": {"claimName": claim}}
        for n, claim in enumerate(_mounted_claims(job))
    ]
    return volumes


def _mounts(job: ToolRLJob) -> list[Body]:
    mounts: list[Body] = [
        {"name": "storage", "mountPath": Place.STORAGE},
        {"name": "manifest", "mountPath": _MANIFEST_FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": Place.TEMPORARY},
        {"name": "shm", "mountPath": Place.SHARED_MEMORY},
    ]
    if job.spec.code is not None:
        mounts.append({"name": "code", "mountPath": Place.CODE, "readOnly": True})
    mounts += [
        {"name": f"claim-{n}", "mountPath": f"{Place.CLAIMS}/{claim}", "readOnly": True}
        for n, claim in enumerate(_mounted_claims(job))
    ]
    return mounts


def _mounted_claims(job: ToolRLJob) -> list[str]:
    """Claims of `pvc://` URIs, sorted."""
    sources = [job.spec.data.train, job.spec.data.validation, job.spec.data.trajectories, job.spec.data.test]
    uris = [job.spec.model.uri, *(source.uri for source in sources if source is not None)]
    return sorted({uri.split("://", 1)[1].split("/")[0] for uri in uris if scheme_of(uri) == "pvc"})


def _metadata(job: ToolRLJob, name: str, stage: str | None = None, attempt: int | None = None) -> Body:
    return {"name": name, "namespace": job.metadata.namespace or "", "labels": labels_of(job, stage, attempt)}


def _document(kind: str, name: str, spec: Mapping[str, Any]) -> Body:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}

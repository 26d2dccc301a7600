"""Can this machine run the manifest? What is refused before anything starts, and what will not have its effect."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from .errors import Problem
from .fields import Row, row_of
from .manifest import Manifest, Resource
from .pods import EnvVar, SecretRef
from .resource import suggestion
from .toolrljob import ToolRLJob
from .uris import scheme_of
from .visiontool import CUSTOM, VisionTool

Loc = tuple[str | int, ...]


@dataclass(frozen=True)
class LocalCheck:
    """What `check_local` found."""

    problems: list[Problem] = field(default_factory=list)
    """Reasons not to start."""
    warnings: list[Problem] = field(default_factory=list)
    """Fields that are set and have no effect here."""


def check_local(
    manifest: Manifest, *, available_tools: Mapping[str, Collection[str]] | None = None, secrets_dir: Path | None = None
) -> LocalCheck:
    """Compare a manifest with what a local run can do.

    `available_tools` are the built-in tools that this installation can serve, each with its backends (None: not
    checked). Secrets are files
    `secrets_dir/<name>/<key>`. Relative data paths are looked up below the manifest's folder.
    """
    found = LocalCheck()
    for tool in manifest.tools.values():
        _sort_fields(manifest, tool, found)
        found.problems.extend(_tool_problems(manifest, tool, available_tools))
        found.warnings.extend(_other_sources(manifest, tool))
    for job in manifest.jobs:
        _sort_fields(manifest, job, found)
        found.problems.extend(_job_problems(manifest, job))
        found.warnings.extend(_single_process_stages(manifest, job))
        found.warnings.extend(_other_sources(manifest, job))
    resources: list[Resource] = [*manifest.tools.values(), *manifest.jobs]
    for resource in resources:
        found.problems.extend(_secret_problems(manifest, resource, secrets_dir))
    for name in manifest.others:
        found.warnings.append(
            Problem(name, "", "it is passed over: a local run knows ThinkIMG's resources only", "kubectl applies it.")
        )
    return found


def _document(resource: Resource) -> str:
    return f"{resource.kind}/{resource.name}"


def _sort_fields(manifest: Manifest, resource: Resource, found: LocalCheck) -> None:
    """Put every field that was set and is not honoured here where it belongs: warnings or problems."""
    for loc, row in _unhonoured(type(resource), resource.spec, ("spec",), "spec"):
        if row.local == "ignored":
            found.warnings.append(
                manifest.problem(_document(resource), loc, "it is ignored in a local run", row.reason)
            )
        else:
            remedy = f"{row.reason} Remove {loc[-1]} for a local run."
            found.problems.append(
                manifest.problem(_document(resource), loc, "it cannot be used in a local run", remedy)
            )


def _unhonoured(kind: type[Resource], block: BaseModel, loc: Loc, path: str) -> Iterator[tuple[Loc, Row]]:
    """Every field that differs from its default and is not honoured here, without what is below it."""
    for name, info in type(block).model_fields.items():
        value = getattr(block, name)
        if not info.is_required() and value == info.get_default(call_default_factory=True):
            continue
        alias = info.alias or name
        here, here_path = (*loc, alias), f"{path}.{alias}"
        row = row_of(kind, here_path)
        if row is not None and row.local != "honoured":
            yield here, row
        elif isinstance(value, BaseModel):
            yield from _unhonoured(kind, value, here, here_path)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _unhonoured(kind, item, (*here, index), f"{here_path}[]")


def _tool_problems(
    manifest: Manifest, tool: VisionTool, available: Mapping[str, Collection[str]] | None
) -> Iterator[Problem]:
    loc: Loc = ("spec", "tool")
    if tool.spec.tool == CUSTOM:
        remedy = "A Custom tool is a container: run this file on a cluster, or use a built-in tool."
        yield manifest.problem(_document(tool), loc, "it cannot be used in a local run", remedy)
    elif available is not None and tool.spec.tool not in available:
        message = f'"{tool.spec.tool}" cannot be served by this installation'
        yield manifest.problem(_document(tool), loc, message, f"Available are: {', '.join(sorted(available))}.")
    elif available is not None and tool.spec.backend is not None and tool.spec.backend not in available[tool.spec.tool]:
        message = f'{tool.spec.tool} has no backend "{tool.spec.backend}" in this installation'
        remedy = suggestion(tool.spec.backend, available[tool.spec.tool])
        yield manifest.problem(_document(tool), ("spec", "backend"), message, remedy)
    if tool.spec.weights is not None and tool.spec.weights.uri and scheme_of(tool.spec.weights.uri) == "pvc":
        remedy = "Name a hub repository, or give the path of a folder as options.weights."
        message = "a volume of a cluster cannot be read here"
        yield manifest.problem(_document(tool), ("spec", "weights", "uri"), message, remedy)


def _job_problems(manifest: Manifest, job: ToolRLJob) -> Iterator[Problem]:
    for index, reference in enumerate(job.spec.tools):
        if reference.name not in manifest.tools:
            loc: Loc = ("spec", "tools", index, "name")
            message = f'this file has no VisionTool "{reference.name}"'
            near = f"{suggestion(reference.name, manifest.tools)} " if manifest.tools else ""
            remedy = f"{near}A local run starts the VisionTools of its own file: add it there."
            yield manifest.problem(_document(job), loc, message, remedy)
    for loc, uri in _uris(job):
        if scheme_of(uri) == "pvc":
            message = f'"{uri}" is a volume of a cluster'
            yield manifest.problem(_document(job), loc, message, "Name a hf:// repository or a path for a local run.")
        elif loc[1] == "model":
            continue  # a stage of a run or a name of the hub is no path; whoever loads models says what is wrong
        elif scheme_of(uri) == "" and not (manifest.folder / uri.partition("?")[0]).exists():
            message = f'there is no "{uri}" in {manifest.folder.resolve()}'
            remedy = "A relative path is below the manifest's folder."
            yield manifest.problem(_document(job), loc, message, remedy)

    for index, stage in enumerate(job.spec.stages):
        uri = (job.spec.data.trajectories or job.spec.data.train).uri
        if stage.sft and job.spec.data_stage(stage) is None and not _may_hold_trajectories(uri):
            message = f'"{uri}" is not a file of trajectories, and no stage makes any'
            remedy = (
                "Put a stage of type Synthesize before this one, or name in data.trajectories a .jsonl file that one "
                "has written, or conversations as a .json file or hub data set."
            )
            yield manifest.problem(_document(job), ("spec", "stages", index, "sft"), message, remedy)


def _may_hold_trajectories(uri: str) -> bool:
    return scheme_of(uri) == "hf" or (scheme_of(uri) == "" and uri.endswith((".jsonl", ".json")))


def _uris(job: ToolRLJob) -> Iterator[tuple[Loc, str]]:
    yield ("spec", "model", "uri"), job.spec.model.uri
    for split in ("train", "validation", "trajectories", "test"):
        dataset = getattr(job.spec.data, split)
        if dataset:
            yield ("spec", "data", split, "uri"), dataset.uri


def _single_process_stages(manifest: Manifest, job: ToolRLJob) -> Iterator[Problem]:
    for index, stage in enumerate(job.spec.stages):
        if stage.nodes * stage.procs_per_node > 1 and stage.type == "Synthesize":
            loc: Loc = ("spec", "stages", index, "nodes" if stage.nodes > 1 else "procsPerNode")
            message = "it is ignored in a local run"
            yield manifest.problem(_document(job), loc, message, f"{stage.type} runs as one process here.")


def _other_sources(manifest: Manifest, resource: Resource) -> Iterator[Problem]:
    """Variables whose value comes from something that only a cluster has."""
    for index, variable in enumerate(resource.spec.env):
        if variable.value_from is not None and variable.secret_ref is None:
            loc: Loc = ("spec", "env", index, "valueFrom")
            remedy = "Only a required secretKeyRef is read here; export the variable in the shell before the start."
            yield manifest.problem(_document(resource), loc, "it is ignored in a local run", remedy)


def _secret_problems(manifest: Manifest, resource: Resource, secrets_dir: Path | None) -> Iterator[Problem]:
    for loc, path, reference in _secret_refs(resource.spec, ("spec",), "spec"):
        row = row_of(type(resource), path)
        if row is None or row.local != "honoured":
            continue
        where = f"{reference.name}/{reference.key}"
        if secrets_dir is None:
            remedy = f"Write the secret to a file DIR/{where} and give --secrets-dir DIR."
            yield manifest.problem(_document(resource), loc, "a local run has no Secrets", remedy)
        elif not (secrets_dir / where).is_file():
            message = f"there is no file {secrets_dir / where}"
            yield manifest.problem(_document(resource), loc, message, "Write the secret to that file.")
    if isinstance(resource, ToolRLJob):
        for index, whole in enumerate(resource.spec.secret_refs):
            loc = ("spec", "secretRefs", index)
            if secrets_dir is None:
                remedy = f"Write one file DIR/{whole.name}/VARIABLE for each variable and give --secrets-dir DIR."
                yield manifest.problem(_document(resource), loc, "a local run has no Secrets", remedy)
            elif not (secrets_dir / whole.name).is_dir():
                message = f"there is no folder {secrets_dir / whole.name}"
                yield manifest.problem(_document(resource), loc, message, "Write one file for each variable there.")


def _secret_refs(value: Any, loc: Loc, path: str) -> Iterator[tuple[Loc, str, SecretRef]]:
    if isinstance(value, SecretRef):
        yield loc, path, value
    elif isinstance(value, EnvVar):
        if value.secret_ref is not None:
            yield (*loc, "valueFrom"), f"{path}.valueFrom", value.secret_ref
    elif isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            alias = info.alias or name
            yield from _secret_refs(getattr(value, name), (*loc, alias), f"{path}.{alias}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _secret_refs(item, (*loc, index), f"{path}[]")

"""Environment variables that a manifest gives to its processes, secrets included (files `DIR/<name>/<key>` here)."""

from collections.abc import Iterable
from pathlib import Path

from thinkimg.api.v1alpha1.pods import EnvVar, SecretRef
from thinkimg.api.v1alpha1.toolrljob import ToolRLJobSpec
from thinkimg.errors import UserError

PLANNER_KEY = "THINKIMG_PLANNER_API_KEY"
"""The planner's API key, for the Synthesize stage that asks it."""


def environment_of(variables: Iterable[EnvVar], secrets: Path | None) -> dict[str, str]:
    """The variables with their values; sources that only a cluster has are left out (`check_local` warned of them)."""
    environment = {}
    for variable in variables:
        if variable.secret_ref is not None:
            environment[variable.name] = read_secret(variable.secret_ref, secrets)
        elif variable.value_from is None:
            environment[variable.name] = variable.value or ""
    return environment


def environment_of_stage(spec: ToolRLJobSpec, name: str, secrets: Path | None) -> dict[str, str]:
    """What the processes of stage `name` (or `base`) get beside the shell's own variables: `secretRefs`, the hub's
    token, the planner's key, and `env`, which wins."""
    environment = {}
    for reference in spec.secret_refs:
        for file in sorted((_folder(secrets) / reference.name).iterdir()):
            if file.is_file():  # what Kubernetes mounts has folders too, ..data
                environment[file.name] = _text(file)
    if spec.model.secret_ref is not None:
        environment["HF_TOKEN"] = read_secret(spec.model.secret_ref, secrets)
    stage = next((stage for stage in spec.stages if stage.name == name), None)
    planner = stage.synthesize.planner if stage and stage.synthesize else None
    if planner and planner.model and planner.model.secret_ref is not None:
        environment[PLANNER_KEY] = read_secret(planner.model.secret_ref, secrets)
    return environment | environment_of(spec.env, secrets)


def read_secret(reference: SecretRef, secrets: Path | None) -> str:
    """Raises `UserError` naming the file."""
    return _text(_folder(secrets) / reference.name / reference.key)


def _folder(secrets: Path | None) -> Path:
    if secrets is None:
        raise UserError("the manifest names secrets; say which folder has them", "--secrets-dir")
    return secrets


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").rstrip("\n")  # editors end a file with a line end; secrets have none
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the secret cannot be read: {error}", str(file)) from error

"""Environment variables that a manifest gives to its processes, secrets included (files `DIR/<name>/<key>` here)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from thinkimg.api import ToolRLJobSpec
from thinkimg.errors import UserError
from thinkimg.serving.vision_tools import environment_of, read_secret, secret_files

PLANNER_KEY = "THINKIMG_PLANNER_API_KEY"
"""The planner's API key, for the Synthesize stage that asks it."""
TOOL_KEY = "THINKIMG_TOOL_KEY_"
"""Prefix of the tool servers' keys: `THINKIMG_TOOL_KEY_0` is that of the first address in THINKIMG_TOOL_ENDPOINTS."""
CLAIMS = "THINKIMG_CLAIMS"
"""Folder below which a pod has the claims of `pvc://` URIs, each under its name."""


def tool_keys(endpoints: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Endpoint -> key, for the servers that want one."""
    names = {endpoint: f"{TOOL_KEY}{number}" for number, endpoint in enumerate(endpoints)}
    return {endpoint: environment[name] for endpoint, name in names.items() if environment.get(name)}


def claims_folder() -> Path | None:
    """Below which claims are mounted; None outside of pods."""
    return Path(os.environ[CLAIMS]) if CLAIMS in os.environ else None


def mounted_path(uri: str, field: str) -> Path:
    """Where `pvc://claim/path` is in this pod. Raises `UserError` anywhere else."""
    root = os.environ.get(CLAIMS)
    if root is None or not uri.startswith("pvc://"):
        raise UserError(f"{uri} cannot be read here: claims are mounted in pods only", field)
    return Path(root) / uri.removeprefix("pvc://")


def environment_of_stage(spec: ToolRLJobSpec, name: str, secrets: Path | None) -> dict[str, str]:
    """What the processes of stage `name` (or `base`) get beside the shell's own variables: `secretRefs`, the hub's
    token, the planner's key, and `env`, which wins."""
    environment: dict[str, str] = {}
    for reference in spec.secret_refs:
        environment |= secret_files(reference.name, secrets)
    if spec.model.secret_ref is not None:
        environment["HF_TOKEN"] = read_secret(spec.model.secret_ref, secrets)
    stage = next((stage for stage in spec.stages if stage.name == name), None)
    planner = stage.synthesize.planner if stage and stage.synthesize else None
    if planner and planner.model and planner.model.secret_ref is not None:
        environment[PLANNER_KEY] = read_secret(planner.model.secret_ref, secrets)
    return environment | environment_of(spec.env, secrets)

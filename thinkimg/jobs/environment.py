"""Environment variables that a manifest gives to its processes, secrets included (files `DIR/<name>/<key>` here)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from thinkimg.api import ToolRLJobSpec
from thinkimg.api.pod_contract import Variable, misunderstanding
from thinkimg.errors import UserError
from thinkimg.serving.vision_tools import environment_of, read_secret, secret_files


def check_contract(environment: Mapping[str, str]) -> None:
    """To be called before a stage reads anything that whoever started it has written.

    Raises:
        UserError: the operator speaks a version of the contract that this program does not know.
    """
    given = environment.get(Variable.CONTRACT)
    if problem := misunderstanding("the operator", "this image", given):
        raise UserError(problem, Variable.CONTRACT)


def tool_endpoints(environment: Mapping[str, str]) -> list[str]:
    """Addresses of the tool servers that the stage may call."""
    return [url for url in environment.get(Variable.TOOL_ENDPOINTS, "").split(",") if url]


def tool_keys(endpoints: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Endpoint -> key, for the servers that want one."""
    names = {endpoint: Variable.tool_key(number) for number, endpoint in enumerate(endpoints)}
    return {endpoint: environment[name] for endpoint, name in names.items() if environment.get(name)}


def claims_folder() -> Path | None:
    """Below which claims are mounted; None outside of pods."""
    root = os.environ.get(Variable.CLAIMS)
    return None if root is None else Path(root)


def mounted_path(uri: str, field: str) -> Path:
    """Where `pvc://claim/path` is in this pod. Raises `UserError` anywhere else."""
    root = os.environ.get(Variable.CLAIMS)
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
        environment[Variable.HUB_TOKEN] = read_secret(spec.model.secret_ref, secrets)
    stage = next((stage for stage in spec.stages if stage.name == name), None)
    planner = stage.synthesize.planner if stage and stage.synthesize else None
    if planner and planner.model and planner.model.secret_ref is not None:
        environment[Variable.PLANNER_KEY] = read_secret(planner.model.secret_ref, secrets)
    return environment | environment_of(spec.env, secrets)

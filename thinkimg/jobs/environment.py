"""Environment variables that a manifest gives to its processes, secrets included (files `DIR/<name>/<key>` here)."""

from pathlib import Path

from thinkimg.api.v1alpha1.toolrljob import ToolRLJobSpec
from thinkimg.serving.vision_tools import environment_of, read_secret, secret_files

PLANNER_KEY = "THINKIMG_PLANNER_API_KEY"
"""The planner's API key, for the Synthesize stage that asks it."""


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

"""What the models of a table are: which stage trained each, and from what it started. From that follow the rows that
stand out and the differences that are computed."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from thinkimg.api import ManifestError, Stage, load_manifest
from thinkimg.results import Origin, RunResults
from thinkimg.tools.registry import own_tools

MODEL_NAMES = {
    "base": "Base (zero-shot)",
    "text-sft": "SFT, no tools",
    "text-rl": "Text-only RL",
    "sft": "SFT",
    "sft-long": "SFT, continued",
    "v-toolrl": "V-ToolRL",
}
"""What the demo's models are called in tables, in their order; other models follow under their own names."""

Origins = Mapping[str, Origin]


def display_name(model: str) -> str:
    return MODEL_NAMES.get(model, model)


def ordered_models(models: Iterable[str]) -> list[str]:
    """The table's order: the demo's ones first, then the others as they came."""
    names = list(models)
    return [name for name in MODEL_NAMES if name in names] + [name for name in names if name not in MODEL_NAMES]


def origins_of_stages(stages: Sequence[Stage]) -> dict[str, Origin]:
    """Of a manifest's stages, in their order."""
    return {stage.name: _origin(stage) for stage in stages}


def _origin(stage: Stage) -> Origin:
    trained = stage.sft or stage.grpo
    if trained is None:
        return Origin(type=stage.type)
    return Origin(type=stage.type, started_from=stage.from_, tools=trained.tool_use == "Enabled")


def origins_of_run(run: Path, results: RunResults) -> dict[str, Origin]:
    """As the results say, or those of an earlier version do not: as the run's manifest says. Empty if neither does."""
    if results.stages:
        return results.stages
    try:
        job = load_manifest(run / "manifest.yaml", own_tools()).job(results.job)
    except (OSError, ManifestError):
        return {}
    return origins_of_stages(job.spec.stages)


def trained_models(origins: Origins, models: Sequence[str]) -> list[str]:
    """Those of `models` that the run is about: what GRPO trained with tools; if there is none, what GRPO trained; if
    there is none either, what SFT trained.

    Nothing is known of some runs of earlier versions: of these it is the demo's `v-toolrl`.
    """
    if not origins:
        return [model for model in models if model == "v-toolrl"]
    known = {model: origins[model] for model in models if model in origins}
    with_tools = [model for model, origin in known.items() if origin.type == "GRPO" and origin.tools]
    by_type = {kind: [model for model, origin in known.items() if origin.type == kind] for kind in ("GRPO", "SFT")}
    return with_tools or by_type["GRPO"] or by_type["SFT"]


def pairs_of(origins: Origins, models: Sequence[str]) -> list[tuple[str, str]]:
    """The differences of a table, first minus second: each of `trained_models` minus what it started from and minus all
    others, in the table's order. Two of them are compared once, the one that was trained later minus the other."""
    subjects = trained_models(origins, models)
    order = [name for name in origins if name in subjects]
    return [
        (subject, other)
        for subject in subjects
        for other in models
        if other != subject and not (other in subjects and order.index(other) > order.index(subject))
    ]

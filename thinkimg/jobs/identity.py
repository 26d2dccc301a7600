"""What a stage is made of. Its result is reused as long as that is the same, and made again when it has changed.

It is the stage's block, the agent's, the seed, the data and the tools that it uses, what says whether an answer is
right, the user's rewards, and the stages that it comes from; of files it is what they hold. A field that nobody has
written is not part of it, so that a release with new fields makes nothing out of date. Fields that change no result are
left out (`CHANGES_NO_RESULT`).
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from thinkimg.api import BASE, Dataset, Manifest, Stage, ToolRLJob, scheme_of
from thinkimg.errors import UserError
from thinkimg.evaluation.scorers import RULES
from thinkimg.identity import Identity, content_of, digest_of, module_content, weights_of
from thinkimg.jobs.stages.questions import source_of
from thinkimg.models.reference import Adapter, Folder, Reader, Source
from thinkimg.models.trained import trained_with_tools
from thinkimg.tools.registry import TOOLS

CHANGES_NO_RESULT: dict[str, str] = {
    "agent.maxSecondsPerTrajectory": "It detects hangs.",
    "grpo.maxSecondsPerTrajectory": "It detects hangs.",
    "synthesize.concurrency": "How many at the same time.",
    "grpo.concurrency": "How many at the same time.",
    "grpo.toolConcurrency": "How many at the same time.",
    "evaluate.concurrency": "How many at the same time.",
    "grpo.microBatch": "The gradient is the same.",
    "grpo.tokensPerPass": "The gradient is the same.",
    "grpo.resampleLimit": "A rollout is run again with its seed.",
    "synthesize.planner.model.secretRef": "A key.",
    "grpo.rewards[].judge.apiKeyVariable": "A key.",
    "evaluate.bootstrap": "Only `thinkimg table` resamples.",
    "sft.dataFrom": "The stage that it names is part by itself.",
    "sft.maxSeconds.fromStage": "The stage that it names is part by itself.",
    "evaluate.models": "Each is part by itself.",
    "scorer.judge.apiKeyVariable": "A key.",
}
"""Fields of a stage's blocks and the agent's that are no part of an identity, with the reasons. Besides, of a stage:
name, `nodes`, `procsPerNode` and `resources`."""

USUAL_SCORER = "relaxed_normalised"
"""Of a manifest that names none."""

_RUNNING_ARGUMENTS = re.compile(
    r"(logging|save|dataloader|gradient_checkpointing|torch_empty_cache|ddp|log_level|push_to_hub|hub)(_|$)"
    r"|(gradient_accumulation_steps|report_to|run_name|disable_tqdm)$"
)
"""Arguments of TRL that say how a training runs and reports, not what it computes."""


def identities(manifest: Manifest, job: ToolRLJob, seed: int, folder: Path) -> dict[str, Identity]:
    """Of the base and every stage, in order. Relative paths are below `folder`."""
    made = _Made(manifest, job, seed, folder)
    found = {BASE: made.base()}
    for stage in job.spec.stages:
        origins = {field: f"{name}@{digest_of(found[name])}" for field, name in _origins(job, stage).items()}
        found[stage.name] = made.stage(stage) | origins
    return found


class _Made:
    """Reads each file once."""

    def __init__(self, manifest: Manifest, job: ToolRLJob, seed: int, folder: Path) -> None:
        self.manifest, self.job, self.seed, self.folder = manifest, job, seed, folder
        data = job.spec.data
        named = {source.uri for source in (data.train, data.validation, data.trajectories, data.test) if source}
        self.contents = {uri: _content(folder, uri) for uri in named if "://" not in uri}

    def base(self) -> Identity:
        spec = self.job.spec
        found = _flat("model", _dump(spec.model), ("model.secretRef", "model.imageCacheSize")) | self._model()
        if spec.model.uri.startswith("preset://"):  # made for the job's words and call syntax
            found |= {"seed": self.seed, "agent.format": spec.agent.format} | self._tools()
        return found

    def stage(self, stage: Stage) -> Identity:
        spec = self.job.spec
        found: Identity = {"type": stage.type, "seed": self.seed}
        for name in ("synthesize", "sft", "grpo", "evaluate"):
            if (block := getattr(stage, name)) is not None:
                found |= _flat(name, _dump(block))
        found |= _flat("agent", _dump(spec.agent))
        if stage.evaluate or stage.name == BASE or trained_with_tools(self.job, stage.name) or stage.uses_tools:
            found |= self._tools()
        for split, data in self._data(stage).items():
            found |= self._content(f"data.{split}", data)
        return found | self._scorer(stage) | self._code(stage)

    def _data(self, stage: Stage) -> dict[str, Dataset]:
        data = self.job.spec.data
        splits = ["train"] if stage.synthesize or stage.grpo else []
        if stage.evaluate:
            splits.append(stage.evaluate.split)
        if stage.sft and stage.sft.gate:
            splits.append("validation")
        found: dict[str, Dataset] = {
            split: source for split in splits if (source := source_of(data, split)) is not None
        }
        if stage.sft and self.job.spec.data_stage(stage) is None:
            found["trajectories"] = data.trajectories or data.train
        return found

    def _content(self, field: str, data: Dataset) -> Identity:
        found = _flat(field, _dump(data))
        if data.uri in self.contents:
            found[f"{field}.content"] = self.contents[data.uri]
        return found

    def _model(self) -> Identity:
        spec = self.job.spec.model
        if scheme_of(spec.uri) in ("hf", "preset", "pvc"):
            return {}
        try:
            source = Reader("", self.folder, revision=spec.revision).read(spec.uri).source
        except UserError:
            return {}  # refused before anything starts
        return {f"model.content[{number}]": weights_of(folder) for number, folder in enumerate(_folders(source))}

    def _tools(self) -> Identity:
        found: Identity = {}
        for tool in self.manifest.tools_of(self.job):
            spec = _dump(tool.spec)
            kept: Identity = {name: spec[name] for name in ("tool", "backend", "options", "weights") if name in spec}
            kept["version"] = _version(tool.spec.tool)
            kept["env"] = {one["name"]: one["value"] for one in spec.get("env", []) if "value" in one}
            found |= _flat(f"tools[{tool.name}]", kept, (f"tools[{tool.name}].weights.secretRef",))
        return found

    def _scorer(self, stage: Stage) -> Identity:
        """What says whether an answer is right, where a stage asks. A rule that has changed makes an evaluation out of
        date, whose answers it scores anew, and no training."""
        assert stage.scorer is not None, "inherited from the job"
        if not _asks_what_is_right(stage):
            return {}
        found = _flat("scorer", _dump(stage.scorer)) if stage.scorer.name != USUAL_SCORER else {}
        rule = RULES.get(stage.scorer.name)
        if stage.evaluate and rule is not None and rule.version != "1":
            found["scorer.version"] = rule.version
        return found

    def _code(self, stage: Stage) -> Identity:
        """The modules of the user's own rewards and scorer."""
        names = [reward.name for reward in stage.grpo.rewards] if stage.grpo else []
        if stage.scorer is not None and _asks_what_is_right(stage):
            names.append(stage.scorer.name)
        modules = {name.partition(":")[0] for name in names if ":" in name}
        return {f"code.{module}": found for module in sorted(modules) if (found := module_content(module))}


def _asks_what_is_right(stage: Stage) -> bool:
    if stage.synthesize:
        return stage.synthesize.filters.require_correct
    if stage.sft:
        return stage.sft.gate is not None
    rewards = stage.grpo.rewards if stage.grpo else ()
    return stage.evaluate is not None or any(_may_ask(reward.name) for reward in rewards)


def _may_ask(reward: str) -> bool:
    """`accuracy` is the scorer's verdict, and a function of the user's own may take it."""
    return reward == "accuracy" or ":" in reward or "/" in reward


def _origins(job: ToolRLJob, stage: Stage) -> dict[str, str]:
    """The stages that it comes from, by what it takes from them."""
    found: dict[str, str] = {}
    if stage.sft or stage.grpo:
        found["from"] = stage.from_
    if stage.sft and (data := job.spec.data_stage(stage)) is not None:
        found["sft.dataFrom"] = data.name
    if stage.sft and stage.sft.max_seconds:
        found["sft.maxSeconds.fromStage"] = stage.sft.max_seconds.from_stage
    if stage.sft and stage.sft.max_tokens:
        found["sft.maxTokens.fromStage"] = stage.sft.max_tokens.from_stage
    if stage.evaluate:
        found |= {f"evaluate.models[{model}]": model for model in stage.evaluate.models}
    return found


# ---- values and files -----------------------------------------------------------------------------------------------


def _dump(block: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = block.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return dumped


def _flat(path: str, value: Any, without: tuple[str, ...] = ()) -> Identity:
    """The values below `path`, each under its whole path."""
    if re.sub(r"\[.*?\]", "[]", path) in CHANGES_NO_RESULT or path in without or _is_running_argument(path):
        return {}
    if isinstance(value, Mapping) and value:
        parts: Iterator[tuple[str, Any]] = ((f"{path}.{name}", part) for name, part in value.items())
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        parts = ((f"{path}[{_name(part, number)}]", part) for number, part in enumerate(value))
    else:
        return {} if value in (None, {}, []) else {path: value}
    return {name: one for where, part in parts for name, one in _flat(where, part, without).items()}


def _name(part: Any, number: int) -> str:
    return str(part.get("name", number)) if isinstance(part, Mapping) else str(number)


def _is_running_argument(path: str) -> bool:
    block, _, name = path.partition(".args.")
    return block in ("sft", "grpo") and _RUNNING_ARGUMENTS.match(name) is not None


def _content(folder: Path, uri: str) -> str:
    """Of a data set; behind its address stands how it is read."""
    file = folder / uri.partition("?")[0]
    allowed = dict(parse_qsl(uri.partition("?")[2])).get("pictures")
    return content_of(file, file.parent / Path(allowed).expanduser() if allowed else None)


def _version(tool: str) -> str | None:
    """Of a built-in tool; None for its first one, so that nothing is out of date that says none."""
    version = TOOLS[tool].schema.version if tool in TOOLS else "1"
    return None if version == "1" else version


def _folders(source: Source) -> Iterator[Path]:
    while isinstance(source, Adapter):
        yield source.path
        source = source.base
    if isinstance(source, Folder):
        yield source.path

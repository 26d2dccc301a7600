"""What answers depend on, found from the options of an evaluation or a synthesis (`thinkimg.evaluation.claim`)."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinkimg.agent.agent import Agent
from thinkimg.data.questions import told_apart
from thinkimg.identity import Identity, address_of, digest_of, weights_of, without_secrets
from thinkimg.models.backends import backend_of
from thinkimg.models.loading import loading_of
from thinkimg.models.reference import Adapter, Endpoint, Folder, Hub, Model, Source
from thinkimg.models.trained import Asking
from thinkimg.tools.tool import ToolSchema
from thinkimg.trajectory import Task
from thinkimg.trajectory import store as stores

CHANGES_NO_ANSWER: dict[str, str] = {
    "api_key_variable": "A key.",
    "backoff_seconds": "How long a retry waits.",
    "cpu_offload_gb": "Where the engine keeps its weights.",
    "disable_log_stats": "What the engine says.",
    "download_dir": "Where weights are kept.",
    "enable_prefix_caching": "The engine computes less, and the same.",
    "gpu_memory_utilization": "How much memory the engine takes.",
    "max_batch": "How many at the same time.",
    "max_concurrency": "How many at the same time.",
    "max_num_batched_tokens": "How many at the same time.",
    "max_num_seqs": "How many at the same time.",
    "requests_per_minute": "How many at the same time.",
    "retries": "What the infrastructure lost is asked again, with its seed.",
    "swap_space": "Where the engine keeps what waits.",
    "timeout_seconds": "What the infrastructure lost is asked again, with its seed.",
}
"""`--model-args` that are no part of an identity, with the reasons. All others are: also those that are new."""
OF_THE_MODEL = ("revision", "base", "base_url", "min_pixels", "max_pixels", "thinking")
"""`--model-args` that are in fields of their own."""


def model_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those that answers depend on, without keys."""
    kept = {name: value for name, value in given.items() if name not in (*CHANGES_NO_ANSWER, *OF_THE_MODEL)}
    return {name: _said(value) for name, value in without_secrets(kept).items()}


def _said(value: Any) -> Any:
    """With a word for what is empty: `extra={seed: null}` leaves a field out, and not to say so is something else."""
    if isinstance(value, Mapping) and value:
        return {name: _said(part) for name, part in value.items()}
    return json.dumps(value) if value in (None, [], {}) else value


def source_of(source: Source) -> list[str]:
    """The model itself, whatever it was called: see `EvaluationSettings.source`. Asked for after it was loaded, when
    the hub's commit is known."""
    return list(_parts(source))


def _parts(source: Source) -> Iterator[str]:
    while isinstance(source, Adapter):
        yield weights_of(source.path)
        source = source.base
    if isinstance(source, Folder):
        yield weights_of(source.path)
    elif isinstance(source, Hub):
        revision = _commit(source) or source.revision
        yield f"{source.name}@{revision}" if revision else source.name
    elif isinstance(source, Endpoint):
        yield source.name
    else:
        yield str(source)


def _commit(source: Hub) -> str | None:
    """Which commit of the hub's a name means on this machine; None if nothing of it is here."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.name, "config.json", revision=source.revision)
    return Path(found).parent.name if isinstance(found, str) else None


def endpoint_of(source: Source, arguments: Mapping[str, Any]) -> str | None:
    """The address that answers, or None for weights in this process."""
    url = source.base_url if isinstance(source, Endpoint) else arguments.get("base_url")
    return None if url is None else address_of(str(url))


def asked_with(
    model: Model, backend: str | None, arguments: Mapping[str, Any], asking: Asking, agent: Agent
) -> Identity:
    """The fields of `AskedSettings`, but for the seed."""
    how = loading_of(arguments)
    least, most = how.pixels(model)
    return {
        "backend": backend_of(model, backend),
        "model": model.written,
        "source": source_of(model.source),
        "base_url": endpoint_of(model.source, arguments),
        "model_args": model_arguments(arguments),
        "min_pixels": least,
        "max_pixels": most,
        "thinking": how.thinks(model),
        **told_with(asking, agent),
    }


def told_with(asking: Asking, agent: Agent) -> Identity:
    """Those of them that any planner has, also a scripted one."""
    return {
        "format": asking.format,
        "prompt": asking.prompt,
        "system_prompt": asking.system_prompt,
        "wording": digest_of(agent.system),
        "max_rounds": asking.max_rounds,
        "max_tokens": asking.max_tokens,
        "max_context": asking.max_context,
        "tools": sorted(agent.tools.schemas),
        "tool_versions": tool_versions(agent.tools.schemas),
    }


def named(model: Model, arguments: Mapping[str, Any]) -> list[str]:
    """A model that judges, and what its verdicts depend on, in words."""
    kept = model_arguments({name: value for name, value in arguments.items() if name != "model"})
    told = [endpoint_of(model.source, arguments), json.dumps(kept, sort_keys=True, default=str) if kept else None]
    return [*source_of(model.source), *(one for one in told if one is not None)]


def tool_versions(schemas: Mapping[str, ToolSchema]) -> dict[str, str]:
    """Tool to its version, and a digest of its declaration."""
    return {
        name: f"{schema.version} {schema.computed_by} ({digest_of(schema.model_dump(mode='json'))})"
        for name, schema in sorted(schemas.items())
    }


@dataclass(frozen=True)
class Asked:
    """The questions of an evaluation, read once before anything is asked: bad rows are found, and other data than
    before.

    Attributes:
        names: of all questions, in order; those of one name are told apart.
        content: digest of all that they say and show.
    """

    names: tuple[str, ...]
    content: str

    @classmethod
    def of(cls, tasks: Iterable[Task]) -> "Asked":
        names, parts = [], []
        for task in told_apart(tasks):
            names.append(task.id)
            parts.append(digest_of([stores.digest_of(task), task.meta]))
        return cls(tuple(names), digest_of([names, parts]))

"""A job with a stage of each type that takes a minute, and what its end is compared by."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from thinkimg.agent.formats import get_format
from thinkimg.api import load_manifest
from thinkimg.jobs.layout import Run
from thinkimg.jobs.stages import tiny_preset
from thinkimg.results import BaseDone
from thinkimg.tools.registry import TOOLS
from thinkimg.training.checkpoints import mark_of, newest_checkpoint
from thinkimg.trajectory import Trajectory, read_trajectories

VERSION = "thinkimg.dev/v1alpha1"


def variety(trajectory: Trajectory) -> float:
    """A reward in which rollouts of a model that has learned nothing differ."""
    tokens = [token for token, own in zip(trajectory.tokens, trajectory.mask, strict=True) if own]
    return len({token % 7 for token in tokens}) / 7


def documents() -> list[dict[str, Any]]:
    """The tool and the job."""
    charts = "charts://?questions={}&difficulty=1"
    spec = {
        "model": {"uri": "preset://tiny"},
        "tools": [{"name": "zoom"}],
        "data": {split: {"uri": charts.format(count)} for split, count in (("train", 12), ("test", 6))},
        "agent": {"prompt": "compact", "maxRounds": 2, "maxTokensPerTurn": 16},
        "checkpoint": {"everySteps": 2, "keep": 1},
        "stages": [
            {
                "name": "cold",
                "type": "Synthesize",
                "synthesize": {
                    "trajectories": 24,
                    "planner": {"chains": {"zoom": 1, "none": 1}},
                    "filters": {"requireCorrect": False},
                },
            },
            {"name": "sft", "type": "SFT", "sft": {"maxSteps": 9, "batchSize": 4, "learningRate": 1e-3}},
            {
                "name": "rl",
                "type": "GRPO",
                "from": "sft",
                "grpo": {
                    "maxSteps": 7,
                    "promptsPerStep": 2,
                    "numGenerations": 4,
                    "learningRate": 1e-4,
                    "rewards": [{"name": "tests.support.jobs.reached:variety"}],
                },
            },
            {"name": "table", "type": "Evaluate", "evaluate": {"models": ["base", "sft", "rl"]}},
        ],
    }
    tool = {"apiVersion": VERSION, "kind": "VisionTool", "metadata": {"name": "zoom"}}
    tool |= {"spec": {"tool": "ZoominSubplot", "backend": "layout"}}
    return [tool, {"apiVersion": VERSION, "kind": "ToolRLJob", "metadata": {"name": "reached"}, "spec": spec}]


def write_job(path: Path, change: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """The manifest; `change` is put into the blocks of stages."""
    made = documents()
    for stage in made[-1]["spec"]["stages"]:
        (block,) = (stage[name] for name in ("synthesize", "sft", "grpo", "evaluate") if name in stage)
        block.update((change or {}).get(stage["name"], {}))
    path.write_text(yaml.safe_dump_all(made, sort_keys=False))
    return path


def make_base(folder: Path, manifest: Path) -> None:
    """A base that has hardly been trained, as a finished one: pre-training is a matter of minutes."""
    loaded = load_manifest(manifest)
    spec = loaded.job().spec
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_preset, "STEPS", 2)
        patch.setattr(tiny_preset, "BATCH", 4)
        schemas = [TOOLS[loaded.tools[tool.name].spec.tool].schema for tool in spec.tools]
        tiny_preset.build_base(
            Run(folder).base, spec.seed, schemas, get_format(spec.agent.format), lambda step, loss: None
        )
    Run(folder).finish("base", BaseDone(seconds=1.0))


def end_of(folder: Path) -> dict[str, Any]:
    """What must be the same however often the run was interrupted: weights, figures, what was learned from."""
    run, found = Run(folder), {}
    for name in ("sft", "rl"):
        weights = (run.model(name) / "model.safetensors").read_bytes()
        found[f"weights of {name}"] = hashlib.sha256(weights).hexdigest()
        log = [json.loads(line) for line in (run.stage(name) / "log.jsonl").read_text().splitlines()]
        found[f"steps of {name}"] = [(line["step"], line["loss"]) for line in log]
    results = json.loads(run.results.read_text())
    found["figures"] = {name: {**figures, "seconds": None} for name, figures in results["models"].items()}
    for name in ("cold", "sft"):
        done = json.loads((run.stage(name) / "done.json").read_text())
        found[f"findings of {name}"] = {**done, "seconds": None}
    kept = read_trajectories(run.stage("cold") / "trajectories" / "cold-start.jsonl")
    found["trajectories"] = [[turn.message.text for turn in one.turns] for one in kept]
    return found


def progress_of(folder: Path) -> float:
    """How much of the work is done, 0 to 1; each stage is a quarter."""
    run, done = Run(folder), 0.0
    files = {"cold": ("trajectories/*.jsonl", 24), "sft": ("log.jsonl", 9), "rl": ("log.jsonl", 7)}
    for name, (pattern, lines) in {**files, "table": ("*/*.jsonl", 36)}.items():
        found = sum(path.read_bytes().count(b"\n") for path in run.stage(name).glob(pattern))
        done += 1.0 if (run.stage(name) / "done.json").exists() else min(found / lines, 0.99)
    return done / 4


def saved_steps(folder: Path) -> dict[str, list[str]]:
    """Lines of each training's log, times and all, as far as its newest checkpoint reaches."""
    found = {}
    for name in ("sft", "rl"):
        stage = Run(folder).stage(name)
        log, newest = stage / "log.jsonl", newest_checkpoint(stage)
        if log.exists() and newest is not None:
            lines = [line for line in log.read_text().splitlines() if line.endswith("}")]
            found[name] = [line for line in lines if json.loads(line)["step"] <= mark_of(newest).step]
    return found

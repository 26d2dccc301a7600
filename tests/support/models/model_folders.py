"""Folders with models: a whole tiny Qwen3-VL, adapters made with peft, a run with stages."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from tests.support.models.tiny_world import processor
from thinkimg.models import tiny

MANIFEST = """\
apiVersion: thinkimg.dev/v1alpha1
kind: VisionTool
metadata: {name: ruler}
spec: {tool: DrawHorizontalLineByY, callTimeoutSeconds: 45}
---
apiVersion: thinkimg.dev/v1alpha1
kind: VisionTool
metadata: {name: cutter}
spec: {tool: Crop}
---
apiVersion: thinkimg.dev/v1alpha1
kind: ToolRLJob
metadata: {name: demo}
spec:
  model: {uri: "preset://tiny", minPixels: 4096, maxPixels: 9216}
  tools: [{name: ruler}, {name: cutter}]
  data: {train: {uri: "charts://?questions=8"}, test: {uri: "charts://?questions=8"}}
  agent:
    {format: hermes, prompt: compact, maxRounds: 3, maxTokensPerTurn: 24, maxSecondsPerTrajectory: 33,
     systemPrompt: "You see for yourself. {tools} Be brief."}
  stages:
    - {name: cold, type: Synthesize, synthesize: {trajectories: 4}}
    - {name: sft, type: SFT, sft: {epochs: 1}}
    - {name: plain, type: SFT, sft: {epochs: 1, toolUse: Disabled}}
    - {name: v-toolrl, type: GRPO, from: sft, grpo: {maxSteps: 1, promptsPerStep: 2, numGenerations: 2}}
    - {name: table, type: Evaluate, evaluate: {models: [base, sft]}}
"""


def save_model(folder: Path, seed: int = 0) -> Path:
    tiny.save(folder, tiny.build_model(processor().tokenizer, seed), processor())
    return folder


def save_adapter(folder: Path, base: Path | str, seed: int = 5, model: Any = None, **changes: Any) -> Any:
    """An adapter whose weights are far from none, made with peft; returns the model with the adapter in place."""
    changed = model if model is not None else tiny.build_model(processor().tokenizer, 0)
    targets = [
        name
        for name, module in changed.named_modules()
        if isinstance(module, torch.nn.Linear) and name.endswith(("q_proj", "down_proj"))
    ]
    adapted = get_peft_model(changed, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
    draw = torch.Generator().manual_seed(seed)
    for name, weights in adapted.named_parameters():
        if "lora_" in name:
            weights.data = torch.randn(weights.shape, generator=draw) * 0.1
    adapted.save_pretrained(folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings |= {"base_model_name_or_path": str(base), **changes}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return adapted


def save_run(folder: Path, model: Path, *stages: str) -> Path:
    """A run of MANIFEST with the base and these stages; the model is the same everywhere."""
    folder.mkdir(parents=True)
    (folder / "manifest.yaml").write_text(MANIFEST)
    (folder / "run.json").write_text(json.dumps({"manifest": MANIFEST, "job": "demo", "seed": 7}))
    shutil.copytree(model, folder / "base")
    for stage in stages:
        shutil.copytree(model, folder / "stages" / stage / "model")
    return folder

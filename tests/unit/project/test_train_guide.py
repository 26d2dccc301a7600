"""The stages that docs/guides/train.md shows are valid, and the files it names are there."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from thinkimg.api.v1alpha1 import load_manifest, parse_manifest
from thinkimg.training.configs import STAGES, zero_config

ROOT = Path(__file__).parent.parent.parent.parent
GUIDE = ROOT / "docs" / "guides" / "train.md"
BLOCKS = re.findall(r"<!-- stages -->\n```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", BLOCKS, ids=["sft", "grpo"])
def test_its_stages_are_valid(text: str) -> None:
    spec = {
        "model": {"uri": "hf://Qwen/Qwen2-VL-2B-Instruct"},
        "tools": [{"name": "ocr"}],
        "data": {"train": {"uri": "rl.json?question=query"}, "trajectories": {"uri": "sft.json"}},
        "stages": yaml.safe_load(text),
    }
    job = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "ToolRLJob", "metadata": {"name": "job"}, "spec": spec}
    (stage,) = parse_manifest(yaml.safe_dump(job)).job().spec.stages
    assert stage.procs_per_node == 8


def test_the_files_it_names_are_there() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (GUIDE.parent / target).exists(), target
    for name in re.findall(r"`(manifests/[\w.-]+)`", text):
        load_manifest(ROOT / name)
    assert subprocess.run(["bash", "-n", str(ROOT / "hack" / "train.slurm")]).returncode == 0


@pytest.mark.parametrize("stage", STAGES)
def test_configurations_of_deepspeed_and_accelerate_agree(stage: int) -> None:
    assert zero_config(stage)["zero_optimization"]["stage"] == stage
    file = ROOT / "thinkimg" / "training" / "configs" / f"accelerate-zero{stage}.yaml"
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert (ROOT / config["deepspeed_config"]["deepspeed_config_file"]).exists()

"""A GRPO stage of a manifest, as `thinkimg stage` runs it, with its rollouts on vLLM."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.engine.talkers import save_tiny
from thinkimg.jsonfile import write
from thinkimg.results import SFTDone

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(1300)
def test_text_rl_of_the_demo_runs_on_vllm(tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all((ROOT / "manifests" / "toolrljob-cpu.yaml").read_text()))
    stages = documents[-1]["spec"]["stages"]
    (rl,) = [stage for stage in stages if stage["name"] == "text-rl"]
    rl["grpo"] |= {
        "maxSteps": 2,
        "promptsPerStep": 2,
        "numGenerations": 4,
        "allowNoLearning": True,
        "args": {"vllm_max_model_length": 2048},
    }
    manifest = tmp_path / "job.yaml"
    manifest.write_text(yaml.safe_dump_all(documents))
    trained = tmp_path / "run" / "stages" / rl["from"]
    save_tiny(trained / "model")
    write(trained / "done.json", SFTDone(seconds=1.0))
    command = [sys.executable, "-m", "thinkimg.cli", "stage", str(manifest), "text-rl", "--run", str(tmp_path / "run")]
    environment = os.environ | {"THINKIMG_ENGINE": "vllm", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "Loading safetensors checkpoint shards" in done.stderr, "vLLM was not used"  # its words, on loading a model
    log = (tmp_path / "run" / "stages" / "text-rl" / "log.jsonl").read_text().splitlines()
    assert len(log) == 2
    assert [json.loads(line)["step"] for line in log] == [1, 2]
    assert (tmp_path / "run" / "stages" / "text-rl" / "model" / "model.safetensors").exists()

"""The rehearsal at full size, on a small model of the same kind: killed after RL's first step, resumed, exported, and
read by others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PYTHONPATH, REPOSITORY


def test_a_small_rehearsal_ends_well(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rehearsal", "--family", "qwen3-vl", "--small", "--run", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, timeout=1700)
    found = json.loads(done.stdout)
    assert found["problem"] is None
    assert done.returncode == 0
    assert [step["loss"] == pytest.approx(0.0, abs=1.0) for step in found["steps"]] == [True, True]
    assert found["logprobs"]["largest"] < 1e-4
    assert found["logits"]["largest"] < 1e-4
    assert found["moved"]["share_of_weights"] > 0.9
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    assert [phase["name"] for phase in found["phases"]][:2] == ["checkpoint", "cold start"]
    assert all(phase["gib"] > 0 for phase in found["phases"] if phase["seconds"] > 3)

"""`make gpu-check` where there is no GPU: what means something on a CPU runs there, on a tiny model."""

import json
import subprocess
import sys

from tests.support import REPOSITORY


def test_checks_that_need_no_gpu_pass_on_a_cpu() -> None:
    command = [sys.executable, "-m", "tests.gpu.gpu_check", "--device", "cpu", "--size", "tiny"]
    chosen = ["--only", "rollouts", "--only", "moving_weights", "--only", "step_memory", "--only", "flash_attention"]
    done = subprocess.run([*command, *chosen], capture_output=True, text=True, cwd=REPOSITORY, timeout=600)
    assert done.returncode == 3, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["left_out"] == {"flash_attention": "it needs a GPU"}
    assert found["checks"]["rollouts"]["dtype"] == "float32"
    assert found["checks"]["moving_weights"]["share_moved"] > 0.99
    assert found["checks"]["step_memory"]["gib_peak"] > 0

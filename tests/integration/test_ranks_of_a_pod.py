"""A pod of several ranks: torchrun starts them, and what they end with is what the pod ends with."""

import os
import subprocess
import sys
from pathlib import Path


def test_torchrun_passes_the_exit_code_of_its_ranks_on(tmp_path: Path) -> None:
    """Both ranks find that there is no manifest, which is the user's error."""
    variables = {"PET_NNODES": "1", "PET_NPROC_PER_NODE": "2", "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, "-m", "thinkimg.cli", "stage", "missing.yaml", "sft", "--run", str(tmp_path)]
    run = subprocess.run(
        command, env={**os.environ, **variables, "PET_MASTER_PORT": "0"}, capture_output=True, text=True, timeout=800,
        cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 2, run.stderr[-2000:]
    assert "there is no such file" in run.stderr

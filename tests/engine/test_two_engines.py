"""Several training processes, each rank with its own engine; collectives outside the turns."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY


@pytest.mark.timeout(400)
def test_two_ranks_with_an_engine_each_train_together(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "tests.support.engine.two_engines", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=360, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0]["weights"] == ranks[1]["weights"], "all ranks end with the same weights"
    assert [rank["turns"] for rank in ranks] == [2, 3]
    assert all(rank["masked"] == 0 and rank["difference"] <= 1e-3 for rank in ranks), ranks

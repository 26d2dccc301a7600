"""Tools in the environments of backends that exclude the others."""

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from tests.support import REPOSITORY

CALLER = Path(__file__).with_name("call_tool.py")


@cache
def python_of(extra: str) -> str:
    """The interpreter of the environment; it is made the first time, which takes a minute and a network."""
    made = subprocess.run(
        ["bash", "hack/environment.sh", extra], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, timeout=800
    )
    assert made.returncode == 0, f"the environment of {extra} cannot be made; see above"
    return made.stdout.strip().splitlines()[-1]


def call_tool(extra: str, request: dict[str, Any]) -> dict[str, Any]:
    """Runs `call_tool.py` there: {"details", "results": [data, ...]}, or {"refused"}."""
    done = subprocess.run(
        [python_of(extra), str(CALLER)], input=json.dumps(request), capture_output=True, text=True, timeout=800,
        cwd=CALLER.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer

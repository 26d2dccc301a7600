"""RL with live tools and no cache: every call goes over HTTP, none may fail.

    python hack/soak.py [--run runs/soak] [--steps 15]

Runs base, cold start, SFT and V-ToolRL of the demo's manifest, RL shortened to `--steps`, with `--no-tool-cache`. The
last line is one JSON object; the exit code is 1 if RL made fewer than 1,000 calls, if one of them was answered from a
cache, or if one failed by the infrastructure's fault.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from thinkimg.jsonfile import read
from thinkimg.results import RunResults, ToolFigures

DEMO = Path(__file__).parent.parent / "manifests" / "toolrljob-cpu.yaml"
STAGES = ("cold-start", "sft", "v-toolrl")
LEAST_CALLS = 1_000


def shortened(documents: list[dict[str, Any]], steps: int) -> list[dict[str, Any]]:
    """The demo's documents with the stages of `STAGES` only, and `steps` steps of RL."""
    (job,) = (document for document in documents if document["kind"] == "ToolRLJob")
    job["metadata"]["name"] = "soak"
    job["spec"]["stages"] = [stage for stage in job["spec"]["stages"] if stage["name"] in STAGES]
    job["spec"]["stages"][-1]["grpo"]["maxSteps"] = steps
    return documents


def verdict(tools: Mapping[str, ToolFigures]) -> dict[str, Any]:
    """Sums over the tools of one stage, and whether they are what a soak wants."""
    calls = sum(tool.http_calls for tool in tools.values())
    hits = sum(tool.cache_hits for tool in tools.values())
    failed = sum(tool.errors.infrastructure for tool in tools.values())
    passed = calls >= LEAST_CALLS and not hits and not failed
    return {"http_calls": calls, "cache_hits": hits, "infrastructure_errors": failed, "passed": passed}


def main() -> int:
    parser = argparse.ArgumentParser(description="RL with live tools and no cache.")
    parser.add_argument("--run", type=Path, default=Path("runs/soak"))
    parser.add_argument("--steps", type=int, default=15)
    options = parser.parse_args()
    options.run.mkdir(parents=True, exist_ok=True)
    manifest = options.run / "soak.yaml"
    manifest.write_text(yaml.safe_dump_all(shortened(list(yaml.safe_load_all(DEMO.read_text())), options.steps)))
    command = [sys.executable, "-m", "thinkimg.cli", "run", str(manifest), "--run", str(options.run), "--no-tool-cache"]
    if code := subprocess.run(command).returncode:
        return code
    result = verdict(read(options.run / "results.json", RunResults).tools_by_stage["v-toolrl"])
    print(json.dumps(result))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())

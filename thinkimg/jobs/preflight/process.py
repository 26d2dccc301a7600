"""The checks in a process of their own: torch, TRL and the user's modules are loaded as in a stage, with a stage's
variables, and are gone when it ends."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from thinkimg.api import Manifest, Problem, ToolRLJob, load_manifest
from thinkimg.errors import InfrastructureError
from thinkimg.jobs.environment import environment_of_stage
from thinkimg.jobs.layout import BASE
from thinkimg.jobs.preflight.findings import Finding, refuse

HUB_SECONDS = 10.0
"""Until the hub counts as out of reach."""


def check_before(
    manifest: Manifest, job: ToolRLJob, run: Path, waiting: Sequence[str], secrets: Path | None = None
) -> float:
    """Look at everything before the stages `waiting` run; the seconds that it took.

    Raises:
        ManifestError: with all that is wrong.
        InfrastructureError: the same, where nothing but endpoints, the hub or the disk is in the way.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "findings.json"
        asked = {
            "manifest": str(Path(manifest.source).resolve()),
            "source": manifest.source,
            "job": job.name,
            "seed": job.spec.seed,
            "run": str(run),
            "waiting": list(waiting),
            "secrets": str(secrets) if secrets else None,
            "answer": str(answer),
        }
        environment = {**os.environ, **environment_of_stage(job.spec, BASE, secrets), "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, "-m", "thinkimg.jobs.preflight", json.dumps(asked)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        if not answer.exists():
            raise InfrastructureError(
                f"the checks before the first stage ended with {ended.returncode}: {ended.stderr}"
            )
        found = [Finding(Problem(**one["problem"]), one["passing"]) for one in json.loads(answer.read_text())]
    refuse(found, manifest.source)
    return time.monotonic() - began


def main(argument: str) -> None:
    """What the process does."""
    asked = json.loads(argument)
    _without_a_hub_that_is_away(asked["manifest"])
    from thinkimg.jobs.preflight.check import check
    from thinkimg.jobs.preflight.findings import Plan
    from thinkimg.tools.registry import own_tools

    manifest = load_manifest(asked["manifest"], own_tools())
    job = manifest.job(asked["job"])
    job.spec.seed = asked["seed"]
    secrets = Path(asked["secrets"]) if asked["secrets"] else None
    found = check(Plan(manifest, job, Path(asked["run"]), asked["waiting"], secrets))
    partial = Path(asked["answer"] + ".partial")
    partial.write_text(json.dumps([asdict(one) for one in found]))
    partial.replace(asked["answer"])


def _without_a_hub_that_is_away(manifest: str) -> None:
    """Every file of a hub that does not answer would be waited for, half a minute each: what the cache has is taken
    instead, and the rest is missing at once."""
    if "hf://" not in Path(manifest).read_text(encoding="utf-8"):
        return
    import httpx

    try:
        httpx.head(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), timeout=HUB_SECONDS)
    except httpx.HTTPError:
        os.environ["HF_HUB_OFFLINE"] = "1"

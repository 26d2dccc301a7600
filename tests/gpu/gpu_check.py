"""What only a GPU can show, in tiers of installed packages: random weights, no network, one JSON object.

    make gpu-check                              # on a machine with a GPU; exits with 2 where there is none
    python -m tests.gpu.gpu_check [--size small] [--device cuda] [--only CHECK] [--without TIER] [--rehearsal]

With torch and transformers alone a part runs; with TRL, PEFT, accelerate and datasets all but DeepSpeed and vLLM. What
is left out is said, with what it lacks. `--device cpu --size tiny` runs what means something there, to see that the
checks themselves work. Each runs in a process of its own with a time limit; one that fails or is too slow is reported
as such and the others go on.

Exit code 0: all passed, and nothing was left out but by `--without`; 1: one did not pass; 2: nothing was checked, for
there is no GPU or not even transformers; 3: all that ran passed, others were left out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support import PYTHONPATH
from tests.support.gpu.tiers import TIERS, Check, left_out, missing

TOTAL_SECONDS = 540.0
"""Of all checks but the rehearsal, on a GPU."""
SECONDS_ON_A_CPU = 600.0
"""Of each check, where only hanging is to be noticed."""
PASSED, FAILED, NOTHING, LEFT_OUT = range(4)


def main() -> int:
    options = _options()
    absent = {tier: missing(tier) for tier in TIERS}
    if reason := _impossible(options.device, absent):
        print(f"gpu-check: {reason}, so nothing was checked", file=sys.stderr)
        return NOTHING
    from tests.support.gpu.checks import CHECKS

    if options.inside:
        with tempfile.TemporaryDirectory() as folder:
            result = CHECKS[options.inside].work(Path(folder), options.size)
        print(json.dumps(result))
        return PASSED if result["ok"] else FAILED
    chosen = {name: check for name, check in CHECKS.items() if _is_chosen(name, check, options)}
    skipped = {
        name: reason for name, check in chosen.items()
        if (reason := left_out(check, options.device, absent, options.without))
    }  # fmt: skip
    began = time.monotonic()
    found = {}
    for name, check in chosen.items():
        if name not in skipped:
            spent = time.monotonic() - began
            found[name] = _in_a_process(name, check, options, spent)
            print(f"{name}: {'ok' if found[name]['ok'] else 'NOT OK'}", file=sys.stderr)
    for name, reason in skipped.items():
        print(f"{name}: left out: {reason}", file=sys.stderr)
    code = verdict(found, skipped)
    report = {"ok": code in (PASSED, LEFT_OUT), "exit_code": code, "seconds": round(time.monotonic() - began, 1)}
    report |= {"size": options.size, **here(options.device), "missing": {t: m for t, m in absent.items() if m}}
    print(json.dumps(report | {"left_out": skipped, "checks": found}, indent=1))
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.gpu_check", description="What only a GPU can show.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--size", choices=("tiny", "small", "2b"), default="small", help="of the models (2b: see models)"
    )
    parser.add_argument("--only", action="append", default=[], metavar="CHECK", help="this check; may be repeated")
    parser.add_argument("--without", action="append", default=[], choices=TIERS, help="leave a tier out on purpose")
    parser.add_argument("--rehearsal", action="store_true", help="also `make rehearsal`, at size (half an hour)")
    parser.add_argument("--inside", metavar="CHECK", help=argparse.SUPPRESS)
    return parser.parse_args()


def _impossible(device: str, absent: dict[str, list[str]]) -> str | None:
    if absent["plain"]:
        return f"{', '.join(absent['plain'])} not installed"
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return "torch sees no GPU here"
    return None


def _is_chosen(name: str, check: Check, options: argparse.Namespace) -> bool:
    if options.only:
        return name in options.only
    return not check.asked or (name == "rehearsal" and options.rehearsal)


def verdict(found: dict[str, dict[str, Any]], skipped: dict[str, str]) -> int:
    """The exit code: see the beginning of the file."""
    if not all(check["ok"] for check in found.values()):
        return FAILED
    if not found:
        return NOTHING
    return LEFT_OUT if any("as asked" not in reason for reason in skipped.values()) else PASSED


def _in_a_process(name: str, check: Check, options: argparse.Namespace, spent: float) -> dict[str, Any]:
    seconds = check.seconds if check.asked else min(check.seconds, TOTAL_SECONDS - spent)
    if options.device == "cpu":
        seconds = max(check.seconds, SECONDS_ON_A_CPU)
    if seconds < 5:
        return {"ok": False, "reason": "no time left"}
    command = [sys.executable, "-m", "tests.gpu.gpu_check", "--inside", name, "--size", options.size]
    command += ["--device", options.device]
    paths = [PYTHONPATH, os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if options.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment)
        found = json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode in (0, 1) and done.stdout else None
        result = found or {"ok": False, "reason": f"exit code {done.returncode}", "stderr": done.stderr[-2000:]}
    except (subprocess.TimeoutExpired, ValueError) as error:
        result = {"ok": False, "reason": str(error)[:500]}
    return {"seconds": round(time.monotonic() - began, 1), **result}


def here(device: str) -> dict[str, Any]:
    """What the figures belong to."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    versions = {}
    for package in ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "vllm"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    if device == "cpu":
        return {"device": "cpu", "versions": versions}
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "gpus": torch.cuda.device_count(),
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "versions": versions,
    }


if __name__ == "__main__":
    sys.exit(main())

"""Whether a run's results depend on what else the machine does: the same manifest twice, the second time beside busy
processes, and every figure but times compared.

    python hack/busy_run.py manifests/toolrljob-smoke.yaml OUT --busy 8
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TIMES = (
    "seconds",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "latency_buckets",
    "training_seconds",
    "http_calls",
    "retries",
    "cache_hits",
)
"""Keys whose values are of the clock, or of who asked first among those that share a request."""
SPIN = "while True: pass"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--busy", type=int, default=8)
    options = parser.parse_args()
    quiet = run(options.manifest, options.out / "quiet", 0)
    busy = run(options.manifest, options.out / "busy", options.busy)
    same = json.dumps(quiet, sort_keys=True) == json.dumps(busy, sort_keys=True)
    print(json.dumps({"busy": options.busy, "same": same, "models": accuracies(quiet), "beside": accuracies(busy)}))
    return 0 if same else 1


def run(manifest: Path, folder: Path, busy: int) -> Any:
    """Its results without times."""
    beside = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(busy)]
    try:
        subprocess.run([sys.executable, "-m", "thinkimg.cli", "run", str(manifest), "--run", str(folder)], check=True)
    finally:
        for one in beside:
            one.kill()
            one.wait()
    return without_times(json.loads((folder / "results.json").read_text()))


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def accuracies(results: Any) -> dict[str, Any]:
    return {name: [one["accuracy"], one["accuracy_sampled"]] for name, one in results["models"].items()}


if __name__ == "__main__":
    sys.exit(main())

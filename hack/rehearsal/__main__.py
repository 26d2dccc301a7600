"""python -m rehearsal [--family qwen2-vl] [--small] [--run DIR]

One family's rehearsal: JSON on standard output, a table on standard error. Exit code 0: all is as it should be and
within the limits; 1: not.
"""

import argparse
import json
import shutil
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from rehearsal.experiment import Failed, rehearse
from rehearsal.measure import Meter, Phase
from rehearsal.shapes import SHAPES

MINUTES = 60
GIB = 16


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rehearsal", description="A whole experiment at full size.")
    parser.add_argument("--family", choices=SHAPES, default="qwen2-vl")
    parser.add_argument("--small", action="store_true", help="two layers of each sort: to see that it runs")
    parser.add_argument("--run", type=Path, help="folder, emptied first (default: runs/rehearsal-FAMILY)")
    parser.add_argument(
        "--keep", action="store_true", help="leave the weights (25 GB); otherwise logs and figures stay"
    )
    options = parser.parse_args()
    shape = SHAPES[options.family].small() if options.small else SHAPES[options.family]
    folder = (options.run or Path("runs") / f"rehearsal-{shape.name}").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))  # so that the run is killed on the way out
    meter = Meter()
    found: dict[str, object] = {"model": shape.name}
    try:
        found |= rehearse(shape, folder, meter)
        problem = None
    except Failed as failure:
        problem = str(failure)
    finally:
        meter.close()
    seconds, gib = sum(phase.seconds for phase in meter.phases), max(phase.gib for phase in meter.phases)
    if problem is None and (seconds > 60 * MINUTES or gib > GIB):
        problem = f"{seconds / 60:.0f} minutes and {gib:.1f} GiB; the limits are {MINUTES} minutes and {GIB} GiB"
    found |= {"ok": problem is None, "problem": problem, "seconds": round(seconds), "gib": gib}
    found["phases"] = [asdict(phase) for phase in meter.phases]
    text = json.dumps(found, indent=1)
    (folder / "rehearsal.json").write_text(text + "\n")
    print(table(meter.phases), file=sys.stderr)
    print(text)
    if not options.keep:
        _remove_weights(folder)
    return 0 if problem is None else 1


def table(phases: list[Phase]) -> str:
    """Markdown, with a line for all of them."""
    whole = Phase(
        "all", sum(each.seconds for each in phases), sum(each.cpu_seconds for each in phases),
        max((each.gib for each in phases), default=0.0),
    )  # fmt: skip
    lines = ["| Phase | Seconds | Of processors | GiB |", "|---|---:|---:|---:|"]
    for each in (*phases, whole):
        lines.append(f"| {each.name} | {each.seconds:.0f} | {each.cpu_seconds:.0f} | {each.gib:.1f} |")
    return "\n".join(lines)


def _remove_weights(folder: Path) -> None:
    for path in [*folder.rglob("*.safetensors"), *folder.rglob("*.pt")]:
        path.unlink()


if __name__ == "__main__":
    sys.exit(main())

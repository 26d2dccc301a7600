"""The way of a newcomer, from the wheel to the playground, in an environment of its own: `hack/first_minutes.sh`."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
STEPS = (
    "build the wheel",
    "make an environment",
    "pip install 'thinkimg[tools]'",
    "first tool call: OCR of an example",
    "serve OCR and Crop until they are ready",
    "pip install 'thinkimg[gateway]'",
    "open a gateway until it is ready",
    "call OCR through it with curl",
    "thinkimg play until its page is there",
)


def test_each_step_works_and_says_what_it_took(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "hack/first_minutes.sh", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    took = re.findall(r"^(\S.*?) +[\d.]+ s$", done.stdout, re.MULTILINE)
    assert tuple(took) == STEPS
    sizes = [int(size) for size in re.findall(r"the environment is now +(\d+) MB", done.stdout)]
    assert all(0 < size < 700 for size in sizes), "torch alone has more"
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert wheel.stat().st_size < 2_000_000

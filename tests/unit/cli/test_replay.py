"""`thinkimg replay`: recorded calls against a live tool server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image as Pillow

from thinkimg.image import Image
from thinkimg.message import ImageBlock, TextBlock, ToolCallBlock, ToolResultBlock
from thinkimg.tools.registry import load_tool
from thinkimg.trajectory import Trajectory, write_trajectories

pytestmark = pytest.mark.slow


def cropped(id: str, text: str | None = None) -> Trajectory:
    """Asks for a crop and shows what came back; `text` is what the record says instead."""
    trajectory = Trajectory(id=id, question="Q", answer="1", status="answered")
    picture = Image.from_pixels(Pillow.effect_noise((80, 40), 50).convert("RGB"))
    arguments = {"image": trajectory.add_image(picture), "box": [0, 0, 50, 50]}
    trajectory.add("user", TextBlock(text="Q"), ImageBlock(handle="img_1"))
    call = ToolCallBlock(id="call-1", name="Crop", arguments=arguments)
    trajectory.add("assistant").message.content.append(call)
    result = load_tool("Crop").run(arguments, {"img_1": picture})
    shown = trajectory.add_image(result.images[0])
    recorded = ToolResultBlock(call_id="call-1", name="Crop", text=text or result.text, data=result.data)
    trajectory.add("tool", recorded, ImageBlock(handle=shown))
    trajectory.add("assistant", TextBlock(text="1"))
    return trajectory


def replay(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "thinkimg.cli", "replay", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)


def test_a_true_record_is_confirmed(sample_url: str, tmp_path: Path) -> None:
    write_trajectories([cropped("a"), cropped("b")], tmp_path / "true.jsonl")
    done = replay("true.jsonl", "--server", sample_url, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 calls of 2 trajectories: all came back as they are recorded\n"


def test_what_is_not_true_is_named_and_told_by_the_exit_code(sample_url: str, tmp_path: Path) -> None:
    write_trajectories([cropped("a"), cropped("b", "It is blue."), cropped("c")], tmp_path / "calls.jsonl")
    done = replay("calls.jsonl", "--server", sample_url, folder=tmp_path)
    assert done.returncode == 3, done.stderr
    said, total = done.stdout.splitlines()
    assert said.startswith("calls.jsonl, b, turn 1, Crop: ")
    assert said.endswith("'It is blue.' then")
    assert total == "3 calls of 3 trajectories: 1 came back differently"

    done = replay("calls.jsonl", "--server", sample_url, "--json", folder=tmp_path)
    found = json.loads(done.stdout)
    assert done.returncode == 3
    assert (found["trajectories"], found["calls"]) == (3, 3)
    (difference,) = found["differences"]
    assert (difference["file"], difference["trajectory"], difference["turn"], difference["tool"]) == (
        "calls.jsonl", "b", 1, "Crop",
    )  # fmt: skip

    assert replay("calls.jsonl", "--server", sample_url, "--limit", "1", folder=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("lines", "code", "said"),
    [("no JSON\n", 2, "broken.jsonl, line 1"), (None, 2, "broken.jsonl: it cannot be read")],
)
def test_a_file_that_cannot_be_read_is_refused(lines: str | None, code: int, said: str, tmp_path: Path) -> None:
    if lines is not None:
        (tmp_path / "broken.jsonl").write_text(lines)
    done = replay("broken.jsonl", "--server", "http://127.0.0.1:9", folder=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_a_server_that_does_not_answer_is_no_difference(tmp_path: Path) -> None:
    write_trajectories([cropped("a")], tmp_path / "calls.jsonl")
    done = replay("calls.jsonl", "--server", "http://127.0.0.1:9", folder=tmp_path)
    assert done.returncode == 70
    assert "127.0.0.1:9" in done.stderr

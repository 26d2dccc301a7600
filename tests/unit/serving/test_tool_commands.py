"""`thinkimg tools`: listing, schemas, and calls on files, here and at a server."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image as Pillow
from rich.console import Console

from thinkimg.cli.tool_call import Call, listing, print_listing, run, schema_of
from thinkimg.errors import UserError
from thinkimg.image import Image
from thinkimg.tools.drawing import draw_result
from thinkimg.tools.registry import TOOLS
from thinkimg.tools.tool import ToolResult


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    path = tmp_path / "chart.png"
    Pillow.new("RGB", (200, 100), "white").save(path)
    return path


def printed(server: str | None = None) -> str:
    console = Console(record=True, width=300)
    with console.capture() as capture:
        print_listing(listing(server), console)
    return capture.get()


def test_every_tool_is_listed_with_its_backends() -> None:
    text = printed()
    for declaration in TOOLS.values():
        assert f"{declaration.name} ({', '.join(declaration.backends)}): " in text


def test_a_call_writes_the_tools_picture(chart: Path, tmp_path: Path) -> None:
    out = tmp_path / "corner.png"
    assert "50" in run(Call("crop", ["box=[0, 0, 50, 50]"], [chart]), out).text
    assert Image.from_file(out).width == 100
    other = tmp_path / "corner.jpg"
    run(Call("Crop", ["box=[0, 0, 50, 50]"], [chart]), other)
    assert Image.from_file(other).media_type == "image/jpeg"


def test_a_call_at_a_server_is_the_same(sample_url: str, chart: Path) -> None:
    assert re.search(r"^Echo: Say the same again", printed(sample_url), re.MULTILINE)
    assert schema_of("Echo", sample_url).name == "Echo"
    there = run(Call("Crop", ["box=[0, 0, 50, 50]"], [chart], server=sample_url))
    here = run(Call("Crop", ["box=[0, 0, 50, 50]"], [chart]))
    assert (there.text, there.data) == (here.text, here.data)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (Call("Corp", ["a=1"]), "Did you mean Crop"),
        (Call("Crop", ["box"]), "is not KEY=VALUE"),
        (Call("Crop", ["box=[0, 0, 50, 50]"]), "is missing"),
        (Call("Crop", ["boxx=1"], [Path("chart.png")]), 'Did you mean "box"'),
        (Call("Crop", ["box=[0, 0, 50, 50]"], [Path("absent.png")]), "absent.png"),
        (Call("Crop", ["box=[0, 0, 50, 50]"], [Path("chart.png")], "no"), "no backend 'no'"),
    ],
)
def test_a_wrong_call_is_refused_in_words(call: Call, said: str, chart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chart.parent)
    with pytest.raises(UserError) as caught:
        run(call)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        {"boxes": [[10, 20, 50, 60]], "strings": ["Mango"]},
        {"boxes": [{"box": [10, 20, 50, 60], "label": "Mango"}]},
        {"detections": [{"box": [10, 20, 50, 60], "label": "Mango"}]},
        {"box": [10, 20, 50, 60]},
        {"points": [{"x": 10, "y": 20, "label": "Mango"}]},
        {"points": [[10, 20]]},
    ],
)
def test_what_a_tool_found_is_drawn_where_it_is(data: dict[str, object]) -> None:
    white = Image.from_pixels(Pillow.new("RGB", (400, 200), "white"))
    drawn = draw_result(white, ToolResult("", data)).pixels()
    assert drawn.size == (400, 200)
    assert drawn.getpixel((40, 40)) == (214, 39, 40)
    assert drawn.getpixel((399, 199)) == (255, 255, 255)


def test_the_command_draws_what_was_read(tmp_path: Path) -> None:
    from PIL import ImageDraw, ImageFont

    picture = Pillow.new("RGB", (400, 120), "white")
    ImageDraw.Draw(picture).text((40, 30), "Total 1234", fill="black", font=ImageFont.load_default(48))
    picture.save(tmp_path / "text.png")
    command = [sys.executable, "-m", "thinkimg.cli", "tools", "OCR", "--image", "text.png", "--out", "read.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert "1234" in done.stdout, done.stderr
    colors = Image.from_file(tmp_path / "read.png").pixels().getcolors(100_000) or []
    assert (214, 39, 40) in {color for _, color in colors}

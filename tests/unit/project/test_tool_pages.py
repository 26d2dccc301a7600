"""Every tool has a page in docs/tools, as `hack/generate_tool_pages.py` writes it, with a picture of its result."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image as Pillow

from thinkimg.tools.registry import TOOLS
from thinkimg.tools.tool import ToolResult

ROOT = Path(__file__).parents[3]
PAGES = ROOT / "docs" / "tools"
PICTURES = ROOT / "docs" / "images" / "tools"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
REMEDY = "run `python hack/generate_tool_pages.py`"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return importlib.import_module("generate_tool_pages")


def shown_result(page: str) -> ToolResult:
    """What the page says of the result: its text, and the names of its data."""
    text = re.search(r"```text\n(.*?)\n```", page, re.DOTALL)
    names = re.search(r"`ToolResult\.data`\): (.*)\.\n", page)
    assert text is not None
    assert names is not None
    return ToolResult(text[1], dict.fromkeys(re.findall(r"`(\w+)`", names[1])))


@pytest.mark.parametrize("name", TOOLS)
def test_a_page_follows_from_the_declaration(generator, name):
    page = (PAGES / f"{name}.md").read_text()
    assert page == generator.tool_page(TOOLS[name], generator.EXAMPLES[name], shown_result(page)), REMEDY
    with Pillow.open(PICTURES / f"{name}.png") as picture:
        assert min(picture.size) > 200


def test_the_list_and_the_folders_hold_the_tools_and_nothing_else(generator):
    assert (PAGES / "index.md").read_text() == generator.index_page(), REMEDY
    assert {path.stem for path in PAGES.iterdir()} == {*TOOLS, "index"}
    assert {path.stem for path in PICTURES.iterdir()} == {*TOOLS}


def test_tools_without_weights_still_give_the_result_that_is_shown(generator, tmp_path):
    names = [name for name, example in generator.EXAMPLES.items() if not example.models]
    generator.generate(tmp_path, names)
    for name in names:
        now, then = (folder / f"{name}.md" for folder in (tmp_path / "tools", PAGES))
        texts = [shown_result(path.read_text()).text for path in (now, then)]
        assert NUMBER.sub("#", texts[0]) == NUMBER.sub("#", texts[1]), REMEDY
        numbers = [[float(number) for number in NUMBER.findall(text)] for text in texts]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.5), REMEDY
        pixels = [np.asarray(Pillow.open(path).convert("RGB"), np.int16) for path in pictures_of(name, tmp_path)]
        assert pixels[0].shape == pixels[1].shape, REMEDY
        assert np.abs(pixels[0] - pixels[1]).mean() < 2, REMEDY


def pictures_of(name: str, folder: Path) -> tuple[Path, Path]:
    return folder / "images" / "tools" / f"{name}.png", PICTURES / f"{name}.png"

"""Coordinates that are not percent are named as what they look like, by every tool that takes places."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from PIL import Image as Pillow

from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools.arguments import Points
from thinkimg.tools.registry import TOOLS, load_tool
from thinkimg.tools.tool import ToolResult, only_result, tool

WIDE = Image.from_pixels(Pillow.new("RGB", (800, 600), "white"))
LARGE = Image.from_pixels(Pillow.new("RGB", (4000, 2000), "white"))


PLACES = {
    "Crop": ("box", [100, 200, 500, 600], "[12.5, 33.33, 62.5, 100]", "[10, 20, 50, 60]"),
    "OCR": ("region", [0, 0, 512, 400], "[0, 0, 64, 66.67]", "[0, 0, 51.2, 40]"),
    "DrawHorizontalLineByY": ("y", 450, "75", "45"),
    "DrawVerticalLineByX": ("x", [40, 600], "75", "60"),
    "DrawLine": ("points", [[80, 60], [400, 300]], "[50, 50]", "[40, 30]"),
    "SegmentRegionAroundPoint": ("points", [[400, 300]], "[50, 50]", "[40, 30]"),
    "SAM": ("boxes", [[1, 2, 30, 40], [100, 200, 500, 550]], "[12.5, 33.33, 62.5, 91.67]", "[10, 20, 50, 55]"),
    "EstimateDepth": ("points", [{"x": 200, "y": 150}], "[25, 25]", "[20, 15]"),
}


def refused(name: str, arguments: Mapping[str, Any], picture: Image = WIDE) -> str:
    with pytest.raises(ModelError) as caught:
        TOOLS[name].bind({"image": "img_1", **arguments}, {"img_1": picture})
    assert caught.value.kind == "bad_arguments"
    return str(caught.value)


def test_every_tool_with_coordinates_is_in_this_file() -> None:
    assert {name for name, declared in TOOLS.items() if declared.places} == PLACES.keys()
    described = {
        name
        for name, declared in TOOLS.items()
        if any("percent of" in each["description"] for each in declared.schema.parameters["properties"].values())
    }
    assert described == {name for name, declared in TOOLS.items() if declared.places}


@pytest.mark.parametrize("name", PLACES)
def test_what_is_above_100_is_refused_with_what_it_is_in_percent(name: str) -> None:
    argument, value, from_pixels, from_thousandths = PLACES[name]
    said = refused(name, {argument: value})
    assert "above 100 percent" in said
    assert f"if these are pixels of this 800x600 picture, write {from_pixels};" in said
    assert f"if these are thousandths (0 to 1000), write {from_thousandths}." in said


@pytest.mark.parametrize("name", PLACES)
def test_what_is_said_to_write_is_accepted(name: str) -> None:
    argument, _, from_pixels, from_thousandths = PLACES[name]
    for written in (from_pixels, from_thousandths):
        if name == "DrawLine":
            written = [[0, 0], json.loads(written)]
        bound = TOOLS[name].bind({"image": "img_1", argument: written}, {"img_1": WIDE})
        assert bound[argument]


def test_only_what_fits_the_picture_is_called_pixels() -> None:
    assert "pixels" not in refused("Crop", {"box": [100, 200, 900, 500]})
    assert "write [10, 20, 90, 50]" in refused("Crop", {"box": [100, 200, 900, 500]})
    said = refused("Crop", {"box": [1000, 200, 3000, 1500]}, LARGE)
    assert "write [25, 10, 75, 75]" in said
    assert "thousandths" not in said
    assert "so does this 800x600 picture" in refused("Crop", {"box": [0, 0, 5000, 20]})


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ([-5, 0, 500, 600], "-5 is below 0"),
        ([0, 0, "wide", 600], "must be a number, not 'wide'"),
        ([0, 0, float("inf"), 600], "finite"),
        ([0, 0, True, 600], "must be a number"),
        ([0, 0, 10**400, 600], "box"),
        ("[100, 200, 500, 600]", "write [12.5, 33.33, 62.5, 100]"),
        (["100", "20%", "500", "600"], "write [12.5, 3.33, 62.5, 100]"),
    ],
)
def test_other_faults_are_said_as_before_and_texts_are_read_as_ever(box: Any, said: str) -> None:
    assert said in refused("Crop", {"box": box})


def test_without_the_picture_only_thousandths_can_be_told() -> None:
    said = refused("DrawHorizontalLineByY", {"image": "img_9", "y": 128})
    assert "128 is above 100 percent; if these are thousandths (0 to 1000), write 12.8" in said
    assert "pixels" not in said


def test_a_box_within_0_to_1_is_cut_as_percent_and_the_result_says_so() -> None:
    result = load_tool("Crop").run({"image": "img_1", "box": [0.1, 0.2, 0.5, 0.6]}, {"img_1": WIDE})
    assert (result.images[0].width, result.images[0].height) == (4, 3)
    assert "within 0 to 1 and was read as percent" in result.text
    assert "write [10, 20, 50, 60]" in result.text
    assert result.data["hint"] in result.text


def test_a_legal_small_box_works() -> None:
    result = load_tool("Crop").run({"image": "img_1", "box": [0, 0, 0.4, 0.8]}, {"img_1": LARGE})
    assert (result.images[0].width, result.images[0].height) == (16, 16)


@pytest.mark.parametrize(
    ("name", "arguments", "shares"),
    [
        ("DrawHorizontalLineByY", {"y": 0.25}, "25"),
        ("DrawVerticalLineByX", {"x": [0.25, 0.5]}, "[25, 50]"),
        ("OCR", {"region": [0, 0, 1, 1]}, "[0, 0, 100, 100]"),
        ("SegmentRegionAroundPoint", {"points": [[0.5, 0.125]]}, "[50, 12.5]"),
    ],
)
def test_other_tools_give_the_hint_too(name: str, arguments: Mapping[str, Any], shares: str) -> None:
    loaded = load_tool(name)
    images = {"img_1": WIDE}
    (batched,) = loaded.run_batch([loaded.bind({"image": "img_1", **arguments}, images)])
    for outcome in (loaded.run({"image": "img_1", **arguments}, images), batched):
        assert isinstance(outcome, ToolResult)
        assert f"write {shares}." in outcome.data["hint"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Crop", {"box": [0, 0, 1, 1.5]}),
        ("DrawHorizontalLineByY", {"y": 0}),
        ("SegmentRegionAroundPoint", {"points": [[0, 0]]}),
        ("SegmentRegionAroundPoint", {"points": [[0.5, 0.5], [40, 0.2]]}),
        ("OCR", {}),
    ],
)
def test_percent_gets_no_hint(name: str, arguments: Mapping[str, Any]) -> None:
    result = load_tool(name).run({"image": "img_1", **arguments}, {"img_1": WIDE})
    assert "Note" not in result.text
    assert "hint" not in result.data


def test_tools_of_others_have_it_from_the_type_and_batches_and_refusals_carry_it() -> None:
    class Found:
        def __init__(self, backend: str, options: Any) -> None: ...

        def load(self) -> None: ...

        def run(self, image: Image, points: Points | None = None) -> ToolResult:
            """Find."""
            return only_result(self.run_batch([{"image": image, "points": points}]))

        def run_batch(self, calls: Sequence[Mapping[str, Any]]) -> list[ToolResult | ModelError]:
            refusal = ModelError("Nothing is there.", kind="refused")
            return [refusal if call["points"] == [(0.5, 0.5)] else ToolResult("found") for call in calls]

    declared = tool(name="Found", version="1")(Found)
    loaded = declared.load()
    assert declared.places == ("points",)
    given: list[dict[str, Any]] = [{"points": [[0.5, 0.5]]}, {"points": [[0.5, 0.2]]}, {"points": [[50, 20]]}, {}]
    bound = [loaded.bind({"image": "img_1", **arguments}, {"img_1": WIDE}) for arguments in given]
    empty, small, plain, absent = loaded.run_batch(bound)
    assert isinstance(empty, ModelError)
    assert (empty.kind, str(empty).startswith("Nothing is there. Note: ")) == ("refused", True)
    assert isinstance(small, ToolResult)
    assert small.text.startswith('found\nNote: all of "points" lies within 0 to 1')
    assert plain == absent == ToolResult("found")
    with pytest.raises(ModelError, match=r"write \[50, 50\]"):
        loaded.run({"image": "img_1", "points": [[0.5, 0.5]]}, {"img_1": WIDE})

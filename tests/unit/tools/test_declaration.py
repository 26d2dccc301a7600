"""From one typed function: the schema that others see, and the checks on what a model wrote."""

import math
import subprocess
import sys

import pytest
from PIL import Image as Pillow

from thinkimg.errors import ModelError, UserError
from thinkimg.image import Image
from thinkimg.tools import markup
from thinkimg.tools.registry import TOOLS, find_tool, load_tool

PICTURE = Image.from_pixels(Pillow.new("RGB", (20, 10), "white"))
IMAGES = {"img_1": PICTURE, "img_2": PICTURE}


def test_the_schema_of_draw_horizontal_line_is_what_openai_expects():
    assert TOOLS["DrawHorizontalLineByY"].schema.as_function() == {
        "type": "function",
        "function": {
            "name": "DrawHorizontalLineByY",
            "description": "Draw a horizontal line across the whole image at a height. "
            "Returns the image with the line.",
            "parameters": {
                "type": "object",
                "properties": {
                    "image": {"type": "string", "description": "handle, e.g. img_1"},
                    "y": {
                        "type": "number",
                        "minimum": 0,
                        "maximum": 100,
                        "description": "Height of the line; percent of the height, 0 (top) to 100 (bottom)",
                    },
                },
                "required": ["image", "y"],
                "additionalProperties": False,
            },
        },
    }


def test_the_schema_of_ocr_has_an_optional_region():
    schema = TOOLS["OCR"].schema
    assert schema.image_parameters == ("image",)
    assert schema.parameters["required"] == ["image"]
    assert schema.parameters["properties"]["region"] == {
        "type": "array",
        "items": {"type": "number", "minimum": 0, "maximum": 100},
        "minItems": 4,
        "maxItems": 4,
        "description": "Only read this part of the image; [x1, y1, x2, y2], left, top, right, bottom in percent of "
        "width and height, 0 to 100",
    }


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_describes_itself_and_each_argument(name):
    schema = TOOLS[name].schema
    assert schema.description.endswith(".")
    assert all(argument["description"] for argument in schema.parameters["properties"].values())


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("DrawHorizontalLineByY", {"image": "img_1"}, 'argument "y" is missing'),
        ("DrawHorizontalLineByY", {"y": 5}, 'argument "image" is missing'),
        ("DrawHorizontalLineByY", {"image": "img_7", "y": 5}, 'no image "img_7". Images so far: img_1, img_2'),
        ("DrawHorizontalLineByY", {"image": 1, "y": 5}, 'argument "image" must be a text, not 1'),
        ("DrawHorizontalLineByY", {"image": "img_1", "y": 128}, "128 is above 100"),
        ("DrawHorizontalLineByY", {"image": "img_1", "y": "-1"}, "is below 0"),
        ("DrawHorizontalLineByY", {"image": "img_1", "y": math.nan}, "finite number"),
        ("DrawHorizontalLineByY", {"image": "img_1", "y": "inf"}, "finite number"),
        ("DrawHorizontalLineByY", {"image": "img_1", "y": True}, "must be a number"),
        ("DrawHorizontalLineByY", {"image": "img_1", "y": "high"}, "must be a number, not 'high'"),
        ("DrawHorizontalLineByY", {"image": "img_1", "y": "x=5"}, "must be a number"),
        ("DrawHorizontalLineByY", {"image": "img_1", "y": None}, 'argument "y"'),
        ("DrawHorizontalLineByY", {"image": "img_1", "Y": 5}, 'no argument "Y". Did you mean "y"?'),
        ("Crop", {"image": "img_1", "bbox": [1, 2, 3, 4]}, 'Did you mean "box"? Its arguments are: image, box'),
        ("Crop", {"image": "img_1", "box": [1, 2, 3]}, "must be four numbers"),
        ("Crop", {"image": "img_1", "box": [50, 2, 30, 4]}, "is empty: x1 must be below x2"),
        ("Crop", {"image": "img_1", "box": [0, 0, 512, 400]}, "above 100"),
        ("SegmentRegionAroundPoint", {"image": "img_1", "points": []}, "at least one point"),
        ("SegmentRegionAroundPoint", {"image": "img_1", "points": [[1, 2, 3]]}, 'argument "points"'),
        ("Point", {"image": "img_1", "description": ""}, 'argument "description"'),
        ("Point", {"image": "img_1", "description": 3}, "must be a text, not 3"),
    ],
)
def test_a_wrong_argument_is_named_with_what_would_be_right(tool, arguments, said):
    with pytest.raises(ModelError) as caught:
        TOOLS[tool].bind(arguments, IMAGES)
    assert caught.value.kind == "bad_arguments"
    assert tool in str(caught.value)
    assert said.casefold() in str(caught.value).casefold()


@pytest.mark.parametrize("y", [28.5, "28.5", " 28.5 ", "28.5%", "y=28.5", "y = 28.5", [28.5], "[28.5]"])
def test_a_number_may_be_written_in_every_safe_way(y):
    assert TOOLS["DrawHorizontalLineByY"].bind({"image": "img_1", "y": y}, IMAGES)["y"] == [28.5]


@pytest.mark.parametrize(
    ("tool", "param", "bound"),
    [
        ("DrawHorizontalLineByY", "y=28.5", {"y": [28.5]}),
        ("DrawHorizontalLineByY", '<point x="21.5" y="28.5" alt="y=5 is the limit">y=7</point>', {"y": [28.5]}),
        ("DrawVerticalLineByX", 'x="21.5" y="28.5"', {"x": [21.5]}),
        ("DrawVerticalLineByX", '<points x1="1.5" y1="2" x2="30" y2="4" alt="two">two</points>', {"x": [1.5, 30.0]}),
        ("SegmentRegionAroundPoint", "x=21.5, y=28.5", {"points": [(21.5, 28.5)]}),
        ("SegmentRegionAroundPoint", "[21.5, 28.5]", {"points": [(21.5, 28.5)]}),
        ("SegmentRegionAroundPoint", 'x1="1" y1="2" x2="3" y2="4"', {"points": [(1, 2), (3, 4)]}),
        ("Point", "the blue bar", {"description": "the blue bar"}),
        ("ZoominSubplot", "top left", {"description": "top left"}),
        ("OCR", "", {"region": None}),
    ],
)
def test_the_single_param_of_openthinkimg_is_understood(tool, param, bound):
    assert TOOLS[tool].bind({"image": "img_1", "param": param}, IMAGES) == {"image": PICTURE, **bound}


def test_param_out_of_range_is_an_error_too():
    with pytest.raises(ModelError, match="above 100"):
        TOOLS["DrawHorizontalLineByY"].bind({"image": "img_1", "param": "y=500"}, IMAGES)


def test_digits_of_an_unclosed_alt_text_are_no_coordinates():
    assert markup.axis_values('<point x="1" y="2" alt="y=5', "y") == [2]
    assert markup.points("<point x='1' y='2' alt='x=9 y=9 > 3'>") == [(1, 2)]
    assert markup.points('x2="3" x1="1" y1="2" y2="4"') == [(3, 4), (1, 2)]
    assert markup.axis_values("the year 1999", "y") == []


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("ZoomInSubfigure", "ZoominSubplot"),
        ("zoom_in_subplot", "ZoominSubplot"),
        ("SelectSubplot", "ZoominSubplot"),
        ("point", "Point"),
        ("ocr", "OCR"),
        ("draw_horizontal_line_by_y", "DrawHorizontalLineByY"),
    ],
)
def test_a_tool_is_found_in_every_spelling(spelling, name):
    assert find_tool(spelling).name == name


def test_an_unknown_tool_is_answered_with_the_names_and_the_nearest():
    with pytest.raises(ModelError, match=r'no tool "Corp". Did you mean Crop\? Tools: OCR, Crop') as caught:
        find_tool("Corp")
    assert caught.value.kind == "unknown_tool"


@pytest.mark.parametrize(
    ("backend", "options", "said"),
    [
        ("easyocr", {}, "OCR has no backend 'easyocr'; known: rapidocr"),
        (None, {"colour": 1}, "options.colour"),
        (None, {"text": "loud"}, "options.text"),
        (None, {"minConfidence": 2}, "options.minConfidence"),
    ],
)
def test_a_wrong_backend_or_option_is_the_users_error_before_anything_loads(backend, options, said):
    with pytest.raises(UserError, match=said):
        load_tool("OCR", backend, options)


def test_declarations_are_cheap_and_bring_no_library_of_a_backend_in():
    heavy = ["torch", "transformers", "onnxruntime", "cv2", "rapidocr", "paddleocr", "segment_anything"]
    code = f"import sys, thinkimg.tools.registry; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_manifests_know_the_same_tools():
    from thinkimg.api.v1alpha1.visiontool import BUILT_IN_TOOLS

    assert set(BUILT_IN_TOOLS) == set(TOOLS)

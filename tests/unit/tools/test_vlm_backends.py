"""Point and ZoominSubplot with a vision-language model: over real HTTP, with answers written down beforehand."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from tests.support.evaluation.refusals import QUESTIONS
from tests.support.tools.vlm_endpoint import VLMEndpoint, serve_vlm
from thinkimg.data.chart_drawing import draw_chart
from thinkimg.data.charts import make_charts
from thinkimg.errors import InfrastructureError, ModelError, UserError
from thinkimg.image import Image
from thinkimg.tools.registry import load_tool
from thinkimg.tools.tool import Tool

FIGURE = next(chart for chart in make_charts("train", 16, seed=3, difficulty=2) if len(chart.panels) == 4)


@pytest.fixture
def endpoint() -> Iterator[VLMEndpoint]:
    with serve_vlm(models=["molmo", "other"]) as endpoint:
        yield endpoint


def load(tool: str, endpoint: VLMEndpoint, **options: object) -> Tool:
    return load_tool(tool, "vlm", {"endpoint": endpoint.url, "model": "molmo", **options})


def plain(width: int = 200, height: int = 100) -> Image:
    return Image.from_pixels(Pillow.new("RGB", (width, height), "white"))


@pytest.mark.parametrize(
    ("answer", "points"),
    [
        (' <point x="61.5" y="40.4" alt="the red bar">the red bar</point>', [(61.5, 40.4, "the red bar")]),
        (
            '<points x1="10.0" y1="20.0" x2="30.5" y2="40.0" alt="two 5s: y=99">two</points>',
            [(10.0, 20.0, "two 5s: y=99"), (30.5, 40.0, "two 5s: y=99")],
        ),
        ("It is at [12.5, 80].", []),
        ("[12.5, 80]", [(12.5, 80.0, "a bar")]),
        ('<points x1="10" y1="20" x2="130" y2="40" alt="bars">', [(10.0, 20.0, "bars")]),
    ],
    ids=["one", "several, digits in the text", "prose", "a bare pair", "one beyond the picture"],
)
def test_point_reads_molmos_markup(endpoint, answer, points):
    endpoint.answer = answer
    point = load("Point", endpoint)
    if not points:
        with pytest.raises(ModelError, match='Nothing matches "a bar"'):
            point.run({"image": "img_1", "description": "a bar"}, {"img_1": plain()})
        return
    result = point.run({"image": "img_1", "description": "a bar"}, {"img_1": plain()})
    assert [(p["x"], p["y"], p["label"]) for p in result.data["points"]] == points
    assert result.text.splitlines()[0] == f"{points[0][2]}: x={points[0][0]}, y={points[0][1]}"


@pytest.mark.parametrize(
    ("tool", "answer", "units"),
    [
        ("Point", '<point x="612" y="404" alt="a bar">', "pixels or thousandths"),
        ("Point", "[0.61, 0.4]", "shares of 1"),
        ("Point", '<points x1="0.1" y1="0.2" x2="612" y2="404" alt="bars">', "shares of 1"),
        ("ZoominSubplot", "[0, 0, 300, 200]", "pixels or thousandths"),
        ("ZoominSubplot", "It is [0.5, 0, 1, 0.5].", "shares of 1"),
    ],
)
def test_an_answer_in_other_units_is_no_place_and_not_the_callers_fault(endpoint, tool, answer, units):
    endpoint.answer = answer
    loaded = load(tool, endpoint)
    with pytest.raises(InfrastructureError, match=f"the model molmo answers .* looks like {units}"):
        loaded.run({"image": "img_1", "description": "a bar"}, {"img_1": plain()})


def test_the_model_gets_the_picture_upright_and_lossless_and_the_question_in_its_wording(endpoint):
    pixels = Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (40, 90, 3), np.uint8))
    exif = Pillow.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    pixels.save(file, "WEBP", lossless=True, exif=exif)
    endpoint.answer = '<point x="1" y="2">'
    point = load("Point", endpoint, question="Point to {description}")
    point.run({"image": "img_1", "description": "a {brace}"}, {"img_1": Image.from_bytes(file.getvalue())})
    assert endpoint.questions == ["Point to a {brace}"]
    assert (np.asarray(endpoint.pictures[0]) == np.asarray(pixels.transpose(Pillow.Transpose.ROTATE_270))).all()


def test_zoom_shows_the_model_numbered_sub_plots_and_cuts_out_what_it_names(endpoint):
    zoom = load("ZoominSubplot", endpoint)
    image = Image.from_pixels(draw_chart(FIGURE).image)
    endpoint.answer = "Number 3."
    result = zoom.run({"image": "img_1", "description": "where sales fall"}, {"img_1": image})
    assert [each["title"] for each in result.data["subplots"]] == [FIGURE.panels[2].title]
    assert "where sales fall" in endpoint.questions[0]
    shown = np.asarray(endpoint.pictures[0]).astype(int)
    changed = np.abs(shown - np.asarray(image.pixels())).max(axis=2) > 0
    for panel in FIGURE.panels:
        x1, y1, x2, y2 = (round(value * 2.56) for value in panel.box)
        assert changed[y1 : (y1 + y2) // 2, x1 : (x1 + x2) // 2].any()
        assert not changed[(y1 + y2) // 2 : y2, (x1 + x2) // 2 : x2].any()


@pytest.mark.parametrize(("answer", "count"), [("1, 4", 2), ("2 and 2", 1)])
def test_zoom_takes_several_each_once(endpoint, answer, count):
    endpoint.answer = answer
    arguments = {"image": "img_1", "description": "rising"}
    result = load("ZoominSubplot", endpoint).run(arguments, {"img_1": Image.from_pixels(draw_chart(FIGURE).image)})
    assert len(result.images) == len(result.data["subplots"]) == count


@pytest.mark.parametrize("answer", ["none", "Number 7", ""])
def test_zoom_says_what_there_is_when_the_model_names_nothing(endpoint, answer):
    endpoint.answer = answer
    arguments = {"image": "img_1", "description": "a cat"}
    with pytest.raises(ModelError, match=r'No sub-plot matches "a cat"\. Found: ".*top left') as caught:
        load("ZoominSubplot", endpoint).run(arguments, {"img_1": Image.from_pixels(draw_chart(FIGURE).image)})
    assert caught.value.kind == "refused"


@pytest.mark.parametrize(
    ("answer", "box"),
    [
        ("I see [1, 2] but the box is [50, 0, 100, 50].", [50, 0, 100, 50]),
        ("[0, 50, 25, 100]", [0, 50, 25, 100]),
        ("[90, 0, 10, 20]", None),
        ("none", None),
    ],
)
def test_zoom_asks_for_a_box_where_no_sub_plots_can_be_told_apart(endpoint, answer, box):
    picture = Pillow.new("RGB", (400, 200), "white")
    ImageDraw.Draw(picture).text((20, 20), "One", fill="black", font=ImageFont.load_default(24))
    endpoint.answer = answer
    zoom = load("ZoominSubplot", endpoint)
    arguments = {"image": "img_1", "description": "the right half"}
    if box is None:
        with pytest.raises(ModelError, match="No sub-plot matches"):
            zoom.run(arguments, {"img_1": Image.from_pixels(picture)})
        return
    result = zoom.run(arguments, {"img_1": Image.from_pixels(picture)})
    assert result.data["subplots"][0]["box"] == box
    assert max(result.images[0].width, result.images[0].height) == 400


@pytest.mark.parametrize("answer", [429, 503, 400, {"choices": []}], ids=str)
def test_trouble_of_the_endpoint_is_the_infrastructures(endpoint, answer):
    point = load("Point", endpoint)
    endpoint.answer = answer
    with pytest.raises(InfrastructureError, match=endpoint.url):
        point.run({"image": "img_1", "description": "a bar"}, {"img_1": plain()})


UNSAID = {"gemini's empty choices", "gemini without a message", "gemini says nothing", "fastapi's 422", "a firewall"}
"""Refusals that may as well be faults: whoever calls the tool tries elsewhere."""
SAYS_SO = [case for case in QUESTIONS if case.ends in ("refused", "tokens") and case.name not in UNSAID]


@pytest.mark.parametrize("case", SAYS_SO, ids=lambda case: case.name)
def test_a_refusal_is_one_that_the_model_reads_whatever_its_status(endpoint, case):
    point = load("Point", endpoint)
    endpoint.plays = case.answer
    with pytest.raises(ModelError, match="does not take this picture or this text") as caught:
        point.run({"image": "img_1", "description": "a bar"}, {"img_1": plain()})
    assert caught.value.kind == "refused"


@pytest.mark.parametrize(
    "case", [case for case in QUESTIONS if case.ends == "answered" or case.name in UNSAID], ids=lambda case: case.name
)
def test_a_fault_of_the_endpoint_is_nobodys(endpoint, case):
    point = load("Point", endpoint)
    endpoint.plays = case.answer
    arguments = {"image": "img_1", "description": "a bar"}
    if case.name == "a stream that is whole":
        with pytest.raises(ModelError, match="Nothing matches"):
            point.run(arguments, {"img_1": plain()})
        return
    with pytest.raises(InfrastructureError, match=endpoint.url):
        point.run(arguments, {"img_1": plain()})


def test_a_picture_that_the_endpoint_does_not_take_is_an_error_that_the_model_reads(endpoint):
    point = load("Point", endpoint)
    endpoint.answer = 413
    with pytest.raises(ModelError, match="does not take this picture") as caught:
        point.run({"image": "img_1", "description": "a bar"}, {"img_1": plain()})
    assert caught.value.kind == "refused"


def test_an_endpoint_that_is_gone_is_the_infrastructures():
    with serve_vlm() as endpoint:
        point = load("Point", endpoint)
    with pytest.raises(InfrastructureError, match="Connect"):
        point.run({"image": "img_1", "description": "a bar"}, {"img_1": plain()})
    with pytest.raises(InfrastructureError, match="Connect"):
        load("Point", endpoint)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "options.endpoint"),
        ({"endpoint": "host:8000", "model": "molmo"}, "options.endpoint"),
        ({"endpoint": "file:///etc/passwd", "model": "molmo"}, "options.endpoint"),
        ({"endpoint": "http://127.0.0.1:1/v1"}, "options.model"),
        ({"endpoint": "http://127.0.0.1:1/v1", "model": "molmo", "question": "Point!"}, "options.question"),
    ],
)
def test_missing_or_wrong_options_are_refused_before_anything_is_sent(options, field):
    with pytest.raises(UserError) as caught:
        load_tool("Point", "vlm", options)
    assert caught.value.field == field


def test_a_model_that_the_endpoint_does_not_have_is_refused(endpoint):
    with pytest.raises(UserError, match="has no model 'molm'; it has molmo, other"):
        load("Point", endpoint, model="molm")


def test_an_endpoint_that_lists_no_models_is_taken_at_its_word():
    with serve_vlm(models=None) as endpoint:
        assert load("Point", endpoint).details == {"endpoint": endpoint.url, "model": "molmo"}


def test_the_key_comes_from_the_environment_and_a_wrong_one_is_refused(monkeypatch):
    with serve_vlm(models=["molmo"], key="s3cret") as endpoint:
        monkeypatch.setenv("OWN_KEY", "s3cret\n")
        point = load("Point", endpoint, apiKeyVariable="OWN_KEY")
        endpoint.answer = '<point x="1" y="2">'
        point.run({"image": "img_1", "description": "a bar"}, {"img_1": plain()})
        assert set(endpoint.keys) == {"Bearer s3cret"}
        with pytest.raises(UserError, match="refuses the key: wrong key") as caught:
            load("Point", endpoint)
        assert caught.value.field == "THINKIMG_VLM_API_KEY"

"""GroundingDINO with transformers, on a model of the real class with random weights."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoTokenizer,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
)

from tests.support.tools.pictures import picture
from thinkimg.errors import ModelError
from thinkimg.tools.registry import load_tool
from thinkimg.tools.tool import Tool, ToolResult


@pytest.fixture(scope="module")
def detector(saved: Path) -> Tool:
    return load_tool("GroundingDINO", "transformers", {"weights": str(saved / "grounding-dino")})


def detect(tool: Tool, image, **arguments) -> ToolResult:
    return tool.run({"image": "img_1", "query": "a bar. legend", **arguments}, {"img_1": image})


def test_boxes_scores_and_labels_are_those_of_transformers_own_pipeline(saved, detector):
    """Pictures of the network's own size, so that both see the same tensor."""
    folder = saved / "grounding-dino"
    model = GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    processor = GroundingDinoProcessor(
        GroundingDinoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    )
    image = picture(96, 64)
    inputs = processor(images=image.pixels(), text="a bar. legend.", return_tensors="pt")
    with torch.inference_mode():
        out = model(**inputs)
    (wanted,) = processor.post_process_grounded_object_detection(
        out, inputs["input_ids"], threshold=0.2, text_threshold=0.2, target_sizes=[(64, 96)]
    )
    order = wanted["scores"].argsort(descending=True, stable=True)
    found = detect(detector, image, box_threshold=0.2, text_threshold=0.2)
    assert 3 < len(found.data["boxes"]) == len(order)
    assert found.data["scores"] == pytest.approx(wanted["scores"][order].tolist(), abs=1e-3)
    scale = torch.tensor([0.96, 0.64, 0.96, 0.64])
    limits = torch.tensor([96.0, 64.0, 96.0, 64.0])
    boxes = torch.minimum(wanted["boxes"][order].clamp(min=0), limits)
    assert torch.allclose(torch.tensor(found.data["boxes"]) * scale, boxes, atol=0.05)


def test_what_is_found_is_told_to_the_model_with_boxes_in_percent(detector):
    result = detect(detector, picture(120, 70), box_threshold=0.1)
    lines = result.text.splitlines()
    assert lines[0] == f"Found {len(result.data['boxes'])}:"
    assert len(lines) == 1 + len(result.data["boxes"])
    assert result.data["scores"] == sorted(result.data["scores"], reverse=True)
    assert all(0 <= value <= 100 for box in result.data["boxes"] for value in box)


def test_words_of_a_label_are_those_above_the_text_threshold(detector):
    all_words = detect(detector, picture(80, 80), box_threshold=0, text_threshold=0)
    assert set(all_words.data["labels"]) == {"a bar legend"}
    no_words = detect(detector, picture(80, 80), box_threshold=0, text_threshold=1)
    assert set(no_words.data["labels"]) == {"a bar, legend"}


def test_nothing_found_is_said_and_no_error(detector):
    result = detect(detector, picture(80, 80), query="Blue  BAR", box_threshold=1)
    assert result.data == {"labels": [], "boxes": [], "scores": []}
    assert result.text == 'Found no "blue bar" with a score above 1.'


def test_a_batch_equals_single_calls_whatever_the_sizes_and_queries(detector):
    images = [picture(96, 64), picture(96, 64, seed=1), picture(50, 90, seed=2), picture(300, 20)]
    queries = ["a bar", "legend. the title of a pie", "a cat", "axis"]
    calls = [
        detector.bind({"image": "img_1", "query": query, "box_threshold": 0.1}, {"img_1": image})
        for image, query in zip(images, queries, strict=True)
    ]
    for call, together in zip(calls, detector.run_batch(calls), strict=True):
        (alone,) = detector.run_batch([call])
        assert together.data["labels"] == alone.data["labels"]
        assert together.data["scores"] == pytest.approx(alone.data["scores"], abs=2e-3)
        for one, other in zip(together.data["boxes"], alone.data["boxes"], strict=True):
            assert one == pytest.approx(other, abs=0.1)


@pytest.mark.parametrize(
    ("query", "said"), [(" . ,", "names nothing"), ("a bar, " * 130, "is too long: 392 tokens, at most 256")]
)
def test_a_query_that_cannot_be_asked_is_the_models_fault(detector, query, said):
    with pytest.raises(ModelError, match=said):
        detect(detector, picture(30, 30), query=query)


def test_a_query_that_is_too_long_hurts_no_neighbour(detector):
    good = detector.bind({"image": "img_1", "query": "a bar"}, {"img_1": picture(30, 30)})
    results = detector.run_batch([good, {**good, "query": "a bar, " * 130}, {**good, "query": "..."}, good])
    assert [isinstance(result, ModelError) for result in results] == [False, True, True, False]

"""SAM, SegmentRegionAroundPoint and GroundedSAM on models of the real classes with random weights."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.support.tools.pictures import picture
from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools.registry import load_tool
from thinkimg.tools.tool import Tool, ToolResult
from thinkimg.tools.vision.masks import decode_rle

KINDS = {"segment-anything": "sam", "transformers": "sam2", "transformers SAM": "sam-transformers"}
POINTS = [[25, 25], [60, 70], [90, 10]]
BOXES = [[10, 10, 60, 60], [50, 40, 100, 100]]


def load(saved: Path, kind: str, tool: str = "SAM", **options: object) -> Tool:
    return load_tool(tool, kind.split()[0], {"weights": str(saved / KINDS[kind]), **options})


def call(tool: Tool, image: Image, **arguments: object) -> ToolResult:
    return tool.run({"image": "img_1", **arguments}, {"img_1": image})


def masks_of(result: ToolResult) -> np.ndarray:
    """bool, shape (n, height, width)."""
    return np.stack([decode_rle(rle) for rle in result.data["masks"]])


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    return float((one == other).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_masks_have_the_size_of_the_picture_and_say_something(saved, kind):
    sam = load(saved, kind)
    result = call(sam, picture(97, 61), points=POINTS)
    masks = masks_of(result)
    assert masks.shape == (3, 61, 97)
    assert 0 < masks.mean() < 1
    assert len(result.data["scores"]) == len(result.data["areas"]) == len(result.data["boxes"]) == 3
    assert result.data["areas"] == pytest.approx(100 * masks.mean(axis=(1, 2)), abs=0.01)
    (overlay,) = result.images
    assert (overlay.width, overlay.height) == (97, 61)
    assert result.text.startswith("Segmented 3 objects:\n1: ")


@pytest.mark.parametrize("prompts", [{"points": POINTS}, {"boxes": BOXES}], ids=["points", "boxes"])
def test_two_implementations_of_one_network_agree_to_the_pixel(saved, prompts):
    """At the network's own size nothing is resized, so that any difference would be one of loading or of prompts."""
    image = picture(64, 64, seed=3)
    ours, theirs = (call(load(saved, kind), image, **prompts) for kind in ("segment-anything", "transformers SAM"))
    assert 0.02 < masks_of(ours).mean() < 0.98
    assert agreement(masks_of(ours), masks_of(theirs)) > 0.999
    assert ours.data["scores"] == pytest.approx(theirs.data["scores"], abs=2e-4)


@pytest.mark.parametrize("size", [(150, 90), (40, 64), (300, 30)])
def test_two_implementations_agree_on_pictures_that_are_resized(saved, size):
    """The two resize in different ways (Pillow, torch), which a random network makes much of."""
    image = picture(*size, seed=4)
    ours, theirs = (call(load(saved, kind), image, boxes=BOXES) for kind in ("segment-anything", "transformers SAM"))
    assert masks_of(ours).shape == (2, size[1], size[0])
    assert agreement(masks_of(ours), masks_of(theirs)) > 0.97


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_equals_single_calls(saved, kind):
    images = [picture(97, 61), picture(40, 80, seed=1), picture(97, 61)]
    calls = [{"points": POINTS}, {"boxes": BOXES}, {"points": POINTS[:1]}]
    single = [call(load(saved, kind), image, **each) for image, each in zip(images, calls, strict=True)]
    together = load(saved, kind)
    assert together.batched
    bound = [
        together.bind({"image": "img_1", **each}, {"img_1": image}) for image, each in zip(images, calls, strict=True)
    ]
    for one, other in zip(single, together.run_batch(bound), strict=True):
        assert agreement(masks_of(one), masks_of(other)) > 0.999
        assert one.data["scores"] == pytest.approx(other.data["scores"], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_encoded_once_however_often_it_is_asked_about(saved, kind, monkeypatch):
    sam = load(saved, kind)
    segmenter = sam._implementation.run.__self__.segmenter
    encoded = []
    encode = segmenter.model.encode
    monkeypatch.setattr(
        segmenter.model, "encode", lambda pictures: encoded.append(len(pictures)) or encode(pictures), raising=True
    )
    first = call(sam, picture(97, 61), points=POINTS[:1])
    for _ in range(3):
        again = call(sam, picture(97, 61), points=POINTS[:1])
    call(sam, picture(97, 61), boxes=BOXES)
    assert encoded == [1]
    assert again == first
    same = sam.bind({"image": "img_1", "points": POINTS}, {"img_1": picture(30, 30, seed=9)})
    sam.run_batch([same, same])
    assert encoded == [1, 1]


def test_embeddings_are_dropped_oldest_first_when_memory_is_full(saved):
    sam = load(saved, "segment-anything", embeddingCacheBytes=20_000)
    cache = sam._implementation.run.__self__.segmenter.cache
    for seed in range(4):
        call(sam, picture(30, 30, seed), points=POINTS)
    assert len(cache) == 2  # one takes 32 x 8 x 8 x 4 bytes
    assert cache.bytes <= 20_000
    assert cache.get(picture(30, 30, 3).kept_as) is not None
    assert cache.get(picture(30, 30, 1).kept_as) is None


def test_embeddings_that_may_take_no_memory_are_not_kept(saved):
    sam = load(saved, "segment-anything", embeddingCacheBytes=0)
    image = picture(30, 30)
    assert call(sam, image, points=POINTS) == call(sam, image, points=POINTS)
    assert len(sam._implementation.run.__self__.segmenter.cache) == 0


@pytest.mark.parametrize(("given", "said"), [({}, "neither"), ({"points": POINTS, "boxes": BOXES}, "both")])
def test_sam_wants_boxes_or_points(saved, given, said):
    with pytest.raises(ModelError, match=f'give either "boxes" or "points", not {said}'):
        call(load(saved, "transformers"), picture(20, 20), **given)


def test_a_wrong_call_in_a_batch_is_its_own(saved):
    sam = load(saved, "transformers")
    good = sam.bind({"image": "img_1", "points": POINTS}, {"img_1": picture(20, 20)})
    results = sam.run_batch([good, {**good, "points": None}, good])
    assert [isinstance(result, ModelError) for result in results] == [False, True, False]


@pytest.mark.parametrize("kind", ["segment-anything", "transformers"])
def test_segment_region_gives_one_mask_for_all_points(saved, kind):
    tool = load(saved, kind, "SegmentRegionAroundPoint")
    assert tool.batched
    image = picture(97, 61)
    result = call(tool, image, points=POINTS)
    mask = decode_rle(result.data["mask"])
    assert mask.shape == (61, 97)
    assert result.data["area"] == pytest.approx(100 * mask.mean(), abs=0.01)
    assert (result.images[0].width, result.images[0].height) == (97, 61)
    assert tool.details["weights"].endswith(KINDS[kind])


def test_opencvs_segmenter_has_no_batches_and_no_weights():
    tool = load_tool("SegmentRegionAroundPoint", "opencv")
    assert not tool.batched
    assert tool.details == {}


def test_grounded_sam_segments_what_was_found(saved):
    options = {
        "detector": {"weights": str(saved / "grounding-dino"), "most": 3},
        "segmenter": {"weights": str(saved / "sam2")},
    }
    tool = load_tool("GroundedSAM", options=options)
    assert tool.details["detector weights"].endswith("grounding-dino")
    assert tool.details["segmenter device"] == "cpu"
    image = picture(90, 60)
    result = call(tool, image, query="a bar. legend", box_threshold=0.0, text_threshold=0.0)
    assert len(result.data["labels"]) == len(result.data["masks"]) == len(result.data["boxes"]) == 3
    assert masks_of(result).shape == (3, 60, 90)
    alone = load_tool("SAM", "transformers", options["segmenter"])
    box = result.data["boxes"][0]  # rounded to a hundredth of a percent, which a network hardly sees
    assert agreement(masks_of(call(alone, image, boxes=[box]))[0], masks_of(result)[0]) > 0.95
    nothing = call(tool, image, query="a bar", box_threshold=1.0)
    assert nothing.data["masks"] == nothing.data["boxes"] == []
    assert nothing.text == 'Found no "a bar" with a score above 1.'


def test_pictures_of_extreme_shapes_are_segmented(saved):
    for kind in KINDS:
        for size in ((1, 1), (400, 2), (3, 500)):
            image = Image.from_pixels(Pillow.new("RGB", size, "white"))
            assert masks_of(call(load(saved, kind), image, points=[[50, 50]])).shape == (1, size[1], size[0])

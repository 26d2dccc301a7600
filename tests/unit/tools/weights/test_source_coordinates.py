"""Boxes, masks and points come back to the source picture, whatever its size, shape and file.

The network is replaced by one that sees: it is given the tensor that the real one would get, and finds the dark
rectangle in it. All that is before and after the network is the product's own.
"""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from thinkimg.image import Image
from thinkimg.tools.backends.neural.depth import DepthEstimator
from thinkimg.tools.backends.neural.segment_anything import SegmentAnything
from thinkimg.tools.backends.neural.transformers_sam import TransformersSAM
from thinkimg.tools.backends.options import SegmenterOptions, WeightsOptions
from thinkimg.tools.crop import box_to_percent, box_to_pixels
from thinkimg.tools.registry import load_tool
from thinkimg.tools.vision.geometry import fitted_size, with_room
from thinkimg.tools.vision.masks import decode_rle, encode_rle, mask_box

FILES = ("png", "jpeg", "palette", "transparent", "transparent palette", "16 bit", "turned webp", "bmp", "tiff")
EXAMPLES = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Scene(SimpleNamespace):
    """A dark rectangle on white: `image` in some file, `box` in pixels of the upright picture."""

    image: Image
    box: tuple[int, int, int, int]


def encoded(picture: Pillow.Image, file: str, orientation: int) -> Image:
    """The picture in a file whose pixels are turned, with an EXIF entry that turns them back."""
    undo = {1: None, 3: Pillow.Transpose.ROTATE_180, 6: Pillow.Transpose.ROTATE_90, 8: Pillow.Transpose.ROTATE_270}
    turns = file in ("png", "jpeg", "turned webp")
    stored = picture.transpose(undo[orientation]) if turns and undo[orientation] is not None else picture
    exif = Pillow.Exif()
    if turns:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    if file == "png":
        stored.save(buffer, "PNG", exif=exif)
    elif file == "jpeg":
        stored.save(buffer, "JPEG", quality=95, subsampling=0, exif=exif)
    elif file == "turned webp":
        stored.save(buffer, "WEBP", lossless=True, exif=exif)
    elif file == "palette":
        stored.quantize(8).save(buffer, "PNG")
    elif file.startswith("transparent"):
        see_through = stored.convert("RGBA")
        see_through.putalpha(stored.convert("L").point(lambda value: 0 if value > 128 else 255))
        made = see_through.quantize(8) if "palette" in file else see_through
        made.save(buffer, "PNG")
    elif file == "16 bit":
        Pillow.fromarray(np.asarray(stored.convert("L")).astype(np.uint16) * 257).save(buffer, "PNG")
    else:
        stored.save(buffer, file.upper())
    return Image.from_bytes(buffer.getvalue())


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    width, height = draw(st.integers(8, 700)), draw(st.integers(8, 700))
    if draw(st.booleans()):  # a strip
        thin = max(2, -(-max(width, height) // 25))
        width, height = (width, thin) if width > height else (thin, height)
    # At least a quarter of each side and a 25th of the longer one, so that it is still there at the network's size.
    longest = max(width, height)
    least = [min(side, max(-(-side // 4), -(-longest // 25))) for side in (width, height)]
    left, top = draw(st.integers(0, width - least[0])), draw(st.integers(0, height - least[1]))
    right, bottom = draw(st.integers(left + least[0], width)), draw(st.integers(top + least[1], height))
    picture = Pillow.new("RGB", (width, height), "white")
    picture.paste((0, 0, 0), (left, top, right, bottom))
    image = encoded(picture, draw(st.sampled_from(FILES)), draw(st.sampled_from((1, 3, 6, 8))))
    assert (image.width, image.height) == (width, height)
    return Scene(image=image, box=(left, top, right, bottom))


def tolerance(image: Image, longest: int) -> float:
    """Source pixels to a pixel of the network, and one for rounding."""
    return max(1.0, max(with_room(image.pixels()).size) / longest) + 1


def dark(pixels: torch.Tensor) -> torch.Tensor:
    """Normalised pixels (n, 3, h, w) -> bool (n, h, w); padding is grey, not dark."""
    return pixels.mean(dim=1) < -0.5


def close(found: tuple[float, ...], true: tuple[float, ...], most: float) -> bool:
    return max(abs(a - b) for a, b in zip(found, true, strict=True)) <= most


# ---- detection ------------------------------------------------------------------------------------------------------


def seeing_detector(pixels: torch.Tensor, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """`GroundingModel.predict`: one box, around what is dark."""
    boxes = []
    for mask in dark(pixels).numpy():
        x1, y1, x2, y2 = mask_box(mask) or (0, 0, 1, 1)
        height, width = mask.shape
        boxes.append([[(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]])
    return torch.full((len(boxes), 1, 256), 0.9), torch.tensor(boxes)


@pytest.fixture(scope="module")
def detector(saved: Path):
    tool = load_tool("GroundingDINO", "transformers", {"weights": str(saved / "grounding-dino")})
    tool._implementation.run.__self__.detector.model.predict = seeing_detector
    return tool


@EXAMPLES
@given(scene=scenes())
def test_boxes_of_a_detector(detector, scene):
    result = detector.run({"image": "img_1", "query": "a bar"}, {"img_1": scene.image})
    (box,) = result.data["boxes"]
    width, height = scene.image.width, scene.image.height
    found = (box[0] * width / 100, box[1] * height / 100, box[2] * width / 100, box[3] * height / 100)
    assert close(found, scene.box, tolerance(scene.image, 96))
    assert 0 <= box[0] < box[2] <= 100
    assert 0 <= box[1] < box[3] <= 100


# ---- segmentation ---------------------------------------------------------------------------------------------------


class SeeingSam(torch.nn.Module):
    """The networks of segment-anything: the embedding is the picture's darkness, the mask is it again."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[torch.Tensor] = []

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.where(dark(pixels), 8.0, -8.0)[:, None]

    def prompt(self, points=None, boxes=None, masks=None):
        self.shown.append(points[0] if points is not None else boxes)
        count = len(self.shown[-1])
        return torch.zeros(count, 1, 1), torch.zeros(count, 1, 1, 1)

    def decode(self, image_embeddings, multimask_output, **rest) -> tuple[torch.Tensor, torch.Tensor]:
        count = len(self.shown[-1])
        return image_embeddings.expand(count, 1, -1, -1), torch.ones(count, 1)


class Named(torch.nn.Module):
    def __init__(self, function, **attributes) -> None:
        super().__init__()
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *arguments, **named):
        return self.function(*arguments, **named)


@pytest.fixture(scope="module")
def segment_anything(saved: Path) -> tuple[SegmentAnything, list[torch.Tensor]]:
    model, seeing = SegmentAnything(SegmenterOptions(weights=str(saved / "sam"))), SeeingSam()
    model.sam.image_encoder = Named(seeing.encode, img_size=64)
    model.sam.prompt_encoder = Named(seeing.prompt, get_dense_pe=lambda: torch.zeros(1))
    model.sam.mask_decoder = Named(seeing.decode)
    return model, seeing.shown


def seeing_transformers(saved: Path, name: str) -> tuple[TransformersSAM, list[torch.Tensor]]:
    model, shown = TransformersSAM(SegmenterOptions(weights=str(saved / name))), []

    class Seeing:
        def get_image_embeddings(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.where(dark(pixels), 8.0, -8.0)[:, None]

        def __call__(self, image_embeddings, multimask_output, **prompts):
            shown.append(prompts["input_points" if "input_points" in prompts else "input_boxes"][0])
            count = len(shown[-1])
            masks = image_embeddings[None].expand(1, count, 1, -1, -1)
            return SimpleNamespace(pred_masks=masks, iou_scores=torch.ones(1, count, 1))

    model.model = Seeing()
    return model, shown


@pytest.fixture(scope="module")
def segmenters(saved: Path, segment_anything):
    return [segment_anything, seeing_transformers(saved, "sam-transformers"), seeing_transformers(saved, "sam2")]


@pytest.mark.parametrize("number", range(3), ids=["segment-anything", "transformers SAM", "transformers SAM 2"])
@EXAMPLES
@given(scene=scenes())
def test_masks_and_prompts_of_a_segmenter(segmenters, number, scene):
    from thinkimg.tools.backends.segmentation import Prompt, Segmenter

    model, shown = segmenters[number]
    x1, y1, x2, y2 = scene.box
    middle = ((x1 + x2) / 2, (y1 + y2) / 2)
    prompts = [Prompt(points=(middle,)), Prompt(box=tuple(map(float, scene.box)))]
    segmenter = Segmenter(model, 0)
    shown.clear()
    ((by_point, by_box),) = segmenter.segment([(scene.image, prompts)])
    assert by_point.pixels.shape == by_box.pixels.shape == (scene.image.height, scene.image.width)
    assert (by_point.pixels == by_box.pixels).all()
    box = mask_box(by_point.pixels)
    assert box is not None
    assert close(box, scene.box, tolerance(scene.image, 64))
    # Where the network was shown point and box, there is the rectangle.
    (seen,) = model.encode([with_room(scene.image.pixels())])
    there = mask_box((seen.features[0, 0] > 0).numpy())
    assert there is not None
    enlarged = max(new / old for new, old in zip(seen.fitted, seen.size, strict=True))
    assert close(tuple(shown[1].flatten().tolist()), there, 1.5 + enlarged / 2)
    x, y = shown[0].flatten().tolist()
    assert there[0] - 1 <= x <= there[2] + 1
    assert there[1] - 1 <= y <= there[3] + 1


# ---- depth ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def estimator(saved: Path) -> DepthEstimator:
    estimator = DepthEstimator(WeightsOptions(weights=str(saved / "depth")))
    estimator.model = lambda pixel_values: SimpleNamespace(predicted_depth=-pixel_values.mean(dim=1))
    return estimator


@EXAMPLES
@given(scene=scenes())
def test_depth_maps(estimator, scene):
    (near,) = estimator.nearness([scene.image])
    assert near.shape == (scene.image.height, scene.image.width)
    assert near.min() == 0
    whole = scene.box == (0, 0, scene.image.width, scene.image.height)
    assert whole or near.max() == 1
    if not whole:
        found = mask_box(near > 0.5)
        assert found is not None
        assert close(found, scene.box, tolerance(scene.image, 168))


# ---- pure geometry --------------------------------------------------------------------------------------------------


@EXAMPLES
@given(st.integers(1, 5000), st.integers(1, 5000), st.data())
def test_boxes_of_whole_pixels_survive_percent_and_back(width, height, data):
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = (left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height)))
    percent = box_to_percent(box, width, height)
    if percent[0] < percent[2] and percent[1] < percent[3]:  # thinner than a hundredth of a percent is nothing
        assert box_to_pixels(tuple(percent), width, height) == box


@EXAMPLES
@given(st.integers(1, 3000), st.integers(1, 3000))
def test_a_picture_gets_room_on_the_right_and_below_only(width, height):
    picture = Pillow.new("1", (width, height)).convert("RGB")
    ground = with_room(picture)
    assert ground.size >= picture.size
    assert max(ground.size) == max(picture.size)
    assert max(ground.size) <= 16 * min(ground.size)
    assert ground.getpixel((0, 0)) == ground.getpixel((width - 1, height - 1)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((640, 480), (1066, 800)),
        ((480, 640), (800, 1066)),
        ((2000, 500), (1332, 333)),
        ((800, 800), (800, 800)),
        ((1, 1), (800, 800)),
        ((500, 8000), (83, 1328)),
    ],
)
def test_the_rule_of_sizes_is_that_of_detr(size, fitted):
    """The values that `groundingdino.datasets.transforms` gives for 800 and 1333."""
    assert fitted_size(size, 800, 1333) == fitted


@EXAMPLES
@given(st.integers(1, 40), st.integers(1, 40), st.randoms(use_true_random=False))
def test_run_lengths_are_lossless(height, width, random):
    mask = np.array([[random.random() < 0.4 for _ in range(width)] for _ in range(height)])
    rle = encode_rle(mask)
    assert sum(rle["counts"]) == height * width
    assert (decode_rle(rle) == mask).all()

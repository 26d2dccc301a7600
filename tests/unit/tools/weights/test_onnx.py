"""The backend `onnx`: SAM exported from torch gives the same masks without torch."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.tools.pictures import picture
from thinkimg import jsonfile
from thinkimg.cli.weights import export_weights
from thinkimg.errors import UserError
from thinkimg.image import Image
from thinkimg.results import ExportedSAM
from thinkimg.tools.backends.neural import onnx_export
from thinkimg.tools.registry import load_tool
from thinkimg.tools.tool import Tool, ToolResult
from thinkimg.tools.vision.masks import decode_rle

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[4]
POINTS = [[25, 25], [60, 70], [90, 10]]
BOXES = [[10, 10, 60, 60], [50, 40, 100, 100]]
PROMPTS = {"points": {"points": POINTS}, "boxes": {"boxes": BOXES}}
MAKE = "make them with: thinkimg weights export facebook/sam-vit-base FOLDER"


@pytest.fixture(scope="module")
def exported(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "sam"
    export_weights(str(saved / "sam-transformers"), folder)
    return folder


def call(tool: Tool, image: Image, **arguments: object) -> ToolResult:
    return tool.run({"image": "img_1", **arguments}, {"img_1": image})


def both(exported: Path, saved: Path, tool: str = "SAM") -> tuple[Tool, Tool]:
    theirs = load_tool(tool, "transformers", {"weights": str(saved / "sam-transformers"), "device": "cpu"})
    return load_tool(tool, "onnx", {"weights": str(exported)}), theirs


def masks_of(result: ToolResult) -> np.ndarray:
    return np.stack([decode_rle(rle) for rle in result.data["masks"]])


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    return float((one == other).mean())


@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_masks_are_those_of_torch(exported: Path, saved: Path, prompts: dict[str, object]) -> None:
    """At the network's own size nothing is resized: what could differ is the export and the prompts."""
    image = picture(64, 64, seed=3)
    ours, theirs = (call(tool, image, **prompts) for tool in both(exported, saved))
    assert 0.02 < masks_of(ours).mean() < 0.98
    assert agreement(masks_of(ours), masks_of(theirs)) > 0.999
    assert ours.data["scores"] == pytest.approx(theirs.data["scores"], abs=2e-4)


@pytest.mark.parametrize("size", [(150, 90), (40, 64), (300, 30), (2000, 9)])
def test_masks_are_those_of_torch_on_pictures_that_are_resized(
    exported: Path, saved: Path, size: tuple[int, int]
) -> None:
    """Pillow and torch resize in different ways, which a random network makes much of."""
    image = picture(*size, seed=4)
    ours, theirs = (call(tool, image, boxes=BOXES) for tool in both(exported, saved))
    assert masks_of(ours).shape == (2, size[1], size[0])
    assert agreement(masks_of(ours), masks_of(theirs)) > 0.97


def test_segment_region_gives_one_mask_for_all_points(exported: Path, saved: Path) -> None:
    image = picture(64, 64, seed=5)
    for points in (POINTS, POINTS[:1]):  # of one point several masks are made, and the best is taken
        ours, theirs = (call(tool, image, points=points) for tool in both(exported, saved, "SegmentRegionAroundPoint"))
        assert agreement(decode_rle(ours.data["mask"]), decode_rle(theirs.data["mask"])) > 0.999


def test_a_batch_equals_single_calls_and_a_picture_is_encoded_once(exported: Path) -> None:
    images = [picture(97, 61), picture(40, 80, seed=1), picture(97, 61)]
    calls = [{"points": POINTS}, {"boxes": BOXES}, {"points": POINTS[:1]}]
    single = [
        call(load_tool("SAM", "onnx", {"weights": str(exported)}), image, **each)
        for image, each in zip(images, calls, strict=True)
    ]
    tool = load_tool("SAM", "onnx", {"weights": str(exported)})
    model = tool._implementation.run.__self__.segmenter.model
    encode, encoded = model.encode, []
    model.encode = lambda pictures: encoded.append(len(pictures)) or encode(pictures)
    bound = [tool.bind({"image": "img_1", **each}, {"img_1": image}) for image, each in zip(images, calls, strict=True)]
    for one, other in zip(single, tool.run_batch(bound), strict=True):
        assert agreement(masks_of(one), masks_of(other)) > 0.999
        assert one.data["scores"] == pytest.approx(other.data["scores"], abs=1e-4)
    call(tool, images[0], boxes=BOXES)
    assert encoded == [2]


def test_the_record_says_what_was_exported_and_how_near_it_is(exported: Path, saved: Path) -> None:
    about = jsonfile.read(exported / "thinkimg-onnx.json", ExportedSAM)
    assert about.source == str(saved / "sam-transformers")
    assert about.side == 64
    assert about.differs < 1e-4
    for name, known in about.files.items():
        assert (exported / name).stat().st_size == known.size


PROGRAM = """
import json, sys
from pathlib import Path
from thinkimg.image import Image
from thinkimg.tools.registry import load_tool
tool = load_tool("SegmentRegionAroundPoint", "onnx", {"weights": sys.argv[1]})
result = tool.run({"image": "img_1", "points": [[25, 25]]}, {"img_1": Image.from_file(sys.argv[2])})
assert not {"torch", "transformers"} & sys.modules.keys()
print(json.dumps([result.data["mask"], dict(tool.details)]))
"""


def test_it_computes_where_there_is_no_torch(exported: Path, tmp_path: Path) -> None:
    image = picture(64, 64, seed=3)
    (tmp_path / "picture.png").write_bytes(image.data)
    blocker = ROOT / "tests" / "support" / "cli" / "without_extras"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(exported), str(tmp_path / "picture.png")], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(blocker), "THINKIMG_TEST_ABSENT": "torch,transformers,torchvision"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    mask, details = json.loads(done.stdout)
    here = call(load_tool("SegmentRegionAroundPoint", "onnx", {"weights": str(exported)}), image, points=[[25, 25]])
    assert mask == here.data["mask"]
    assert details["weights"] == str(exported)
    assert details["device"] == "cpu"


# ---- refusals --------------------------------------------------------------------------------------------------------


def refusal(**options: object) -> str:
    with pytest.raises(UserError) as caught:
        load_tool("SegmentRegionAroundPoint", "onnx", options)
    return str(caught.value)


def test_what_is_missing_or_not_whole_is_refused_with_the_command(exported: Path, tmp_path: Path) -> None:
    assert refusal() == f"options.weights: the backend onnx has no weights by default; where torch is, {MAKE}"
    assert "facebook/sam-vit-base is no folder with a thinkimg-onnx.json" in refusal(weights="facebook/sam-vit-base")
    folder = tmp_path / "sam"
    shutil.copytree(exported, folder)
    (folder / "decoder.onnx").unlink()
    said = refusal(weights=str(folder))
    assert f"{folder / 'decoder.onnx'} is missing; make the folder again with: thinkimg weights export" in said
    shutil.copy(exported / "decoder.onnx", folder)
    size = (exported / "encoder.onnx").stat().st_size
    with (folder / "encoder.onnx").open("r+b") as file:
        file.truncate(size - 1)
    assert f"encoder.onnx has {size - 1:,} bytes, not {size:,}" in refusal(weights=str(folder))
    (folder / "encoder.onnx").write_bytes(bytes(size))
    assert f"{folder / 'encoder.onnx'} is no whole file of ONNX" in refusal(weights=str(folder))
    (folder / "thinkimg-onnx.json").unlink()
    assert "is no folder with a thinkimg-onnx.json" in refusal(weights=str(folder))


@pytest.mark.parametrize(
    ("name", "value"), [("device", "cuda"), ("dtype", "float16"), ("revision", "v1"), ("trustRemoteCode", True)]
)
def test_options_that_it_does_not_honour_are_refused_by_name(exported: Path, name: str, value: object) -> None:
    assert refusal(weights=str(exported), **{name: value}).startswith(f"options.{name}: the backend onnx ")


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(saved: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a model of the kind sam2; what can be exported is sam"):
        export_weights(str(saved / "sam2"), tmp_path / "sam2")
    assert not (tmp_path / "sam2").exists()
    with pytest.raises(UserError, match="is there and not empty"):
        export_weights(str(saved / "sam-transformers"), exported)


def test_an_export_that_computes_something_else_is_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = onnx_export._run
    monkeypatch.setattr(onnx_export, "_run", lambda path, given: [1.01 * found for found in run(path, given)])
    with pytest.raises(UserError, match=r"differs from torch by 1\.0e-02"):
        export_weights(str(saved / "sam-transformers"), tmp_path / "sam")
    assert not (tmp_path / "sam" / "thinkimg-onnx.json").exists()

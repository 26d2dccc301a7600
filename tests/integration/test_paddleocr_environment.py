"""OCR with PaddleOCR: the real PP-OCRv6 networks, which RapidOCR's wheel brings, laid out as PaddleOCR's own folders.

PaddleOCR wants an environment of its own, which is made once (`hack/environment.sh paddleocr`).
"""

import shutil
from pathlib import Path

import pytest
import rapidocr
import yaml
from onnxruntime import InferenceSession
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from tests.support.tools.own_environments import call_tool
from thinkimg.image import Image
from thinkimg.tools.registry import load_tool

NETWORKS = Path(rapidocr.__file__).parent / "models"
STRINGS = {"Quarterly revenue": (200, 40), "Mango 42": (140, 200), "Peach 17.5": (480, 200), "2021": (420, 420)}


def save_detector(folder: Path) -> Path:
    scale = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "scale": 1 / 255, "order": "hwc"}
    operations = [{"DetResizeForTest": {"resize_long": 960}}, {"NormalizeImage": scale}, {"ToCHWImage": None}]
    after = {"name": "DBPostProcess", "thresh": 0.3, "box_thresh": 0.6, "max_candidates": 1000, "unclip_ratio": 1.5}
    return _save(folder, "PP-OCRv6_small_det", "PP-OCRv6_det_small.onnx", operations, after)


def save_recogniser(folder: Path) -> Path:
    network = NETWORKS / "PP-OCRv6_rec_small.onnx"
    characters = InferenceSession(network).get_modelmeta().custom_metadata_map["character"].splitlines()
    operations = [
        {"DecodeImage": {"channel_first": False, "img_mode": "BGR"}},
        {"RecResizeImg": {"image_shape": [3, 48, 320]}},
    ]
    after = {"name": "CTCLabelDecode", "character_dict": characters}
    return _save(folder, "PP-OCRv6_small_rec", network.name, operations, after)


def _save(folder: Path, name: str, network: str, operations: list[dict], after: dict) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(NETWORKS / network, folder / "inference.onnx")
    described = {
        "Global": {"model_name": name},
        "PreProcess": {"transform_ops": operations},
        "PostProcess": after,
    }
    (folder / "inference.yml").write_text(yaml.safe_dump(described, allow_unicode=True), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("paddle")
    return {"detection": str(save_detector(root / "det")), "recognition": str(save_recogniser(root / "rec"))}


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    picture = Pillow.new("RGB", (700, 480), "white")
    for text, place in STRINGS.items():
        ImageDraw.Draw(picture).text(place, text, fill="black", font=ImageFont.load_default(30))
    path = tmp_path_factory.mktemp("sheet") / "sheet.png"
    picture.save(path)
    return path


def ask(options: dict, *calls: dict) -> dict:
    return call_tool("paddleocr", {"tool": "OCR", "backend": "paddleocr", "options": options, "calls": list(calls)})


def test_it_reads_what_rapidocr_reads_where_it_stands(models, sheet):
    answer = ask(models, {"image": str(sheet)}, {"image": str(sheet), "region": [0, 70, 100, 100]})
    assert answer["details"] == {**models, "engine": "onnxruntime", "device": "chosen by PaddleOCR"}
    whole, part = answer["results"]
    ours = load_tool("OCR").run({"image": "img_1"}, {"img_1": Image.from_file(sheet)}).data
    assert whole["strings"] == ours["strings"] == list(STRINGS)
    for mine, theirs in zip(ours["boxes"], whole["boxes"], strict=True):
        assert mine == pytest.approx(theirs, abs=2)
    assert part["strings"] == ["2021"]
    assert part["boxes"][0] == pytest.approx(whole["boxes"][3], abs=2.5)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "inference.onnx").unlink(), "inference.onnx is missing; found: inference.yml"),
        (lambda folder: (folder / "inference.yml").unlink(), "inference.yml is missing; found: inference.onnx"),
        (lambda folder: (folder / "inference.yml").write_text("Global: {}"), "names no Global.model_name"),
        (lambda folder: (folder / "inference.onnx").write_bytes(b"half a file"), "PaddleOCR does not load"),
    ],
    ids=["no network", "no description", "no name", "a broken network"],
)
def test_a_folder_that_is_half_there_is_named(models, tmp_path, damage, said):
    folder = Path(shutil.copytree(models["detection"], tmp_path / "det"))
    damage(folder)
    refused = ask({**models, "detection": str(folder)})["refused"]
    assert str(folder) in refused
    assert said in refused


def test_the_main_environment_says_which_extra_is_missing():
    from thinkimg.errors import UserError

    with pytest.raises(UserError, match=r"pip install 'thinkimg\[tools,paddleocr\]'"):
        load_tool("OCR", "paddleocr")

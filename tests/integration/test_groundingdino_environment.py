"""groundingdino-py against transformers: one set of random weights, two implementations, the same boxes.

groundingdino-py wants an environment of its own, which is made once (`hack/environment.sh groundingdino`).
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.tools import tiny_models
from tests.support.tools.grounding_dino_names import to_original
from tests.support.tools.own_environments import call_tool
from tests.support.tools.pictures import picture
from thinkimg.image import Image
from thinkimg.tools.registry import load_tool

QUERIES = ["a bar. legend", "blue. the title of a pie. red line", "a cat"]
SIZES = [(960, 640), (320, 200), (90, 300)]
"""The tiny network of transformers takes pictures as the authors' does: 800 to 1333 pixels."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{number}.png" for number in range(len(SIZES))]
    for number, path in enumerate(paths):
        path.write_bytes(picture(*SIZES[number], seed=number).data)
    return paths


def test_both_implementations_find_the_same_boxes(pictures, tmp_path):
    folder = tiny_models.save_grounding_dino(tmp_path / "transformers", sizes=(800, 1333))
    tiny_models.save_bert(tmp_path / "bert")
    state = to_original(load_file(folder / "model.safetensors"), decoder_layers=2)
    weights = tmp_path / "groundingdino.pth"
    tiny_models.save_state(state, weights)
    calls = [
        {"image": str(path), "query": query, "box_threshold": 0.0, "text_threshold": 0.3}
        for path, query in zip(pictures, QUERIES, strict=True)
    ]
    request = {
        "tool": "GroundingDINO",
        "backend": "groundingdino",
        "options": {"weights": str(weights), "textEncoder": str(tmp_path / "bert")},
        "calls": calls,
    }
    answer = call_tool("groundingdino", request)
    assert answer["details"]["weights"] == str(weights)
    assert answer["details"]["device"] == "cpu" or torch.cuda.is_available()
    ours = load_tool("GroundingDINO", "transformers", {"weights": str(tmp_path / "transformers"), "device": "cpu"})
    for call, theirs in zip(calls, answer["results"], strict=True):
        mine = ours.run({**call, "image": "img_1"}, {"img_1": Image.from_file(call["image"])}).data
        assert len(mine["boxes"]) == len(theirs["boxes"]) > 5
        assert mine["scores"] == pytest.approx(theirs["scores"], abs=2e-3)
        assert mine["labels"] == theirs["labels"]
        for one, other in zip(mine["boxes"], theirs["boxes"], strict=True):
            assert one == pytest.approx(other, abs=0.3)


def test_a_checkpoint_of_something_else_is_refused_by_name(tmp_path):
    tiny_models.save_state({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    tiny_models.save_bert(tmp_path / "bert")
    options = {"weights": str(tmp_path / "other.pth"), "textEncoder": str(tmp_path / "bert")}
    answer = call_tool(
        "groundingdino", {"tool": "GroundingDINO", "backend": "groundingdino", "options": options, "calls": []}
    )
    assert answer["refused"].startswith("options.weights: ")
    assert "other.pth is not a checkpoint of GroundingDINO" in answer["refused"]


def test_the_other_backend_says_which_extra_is_missing():
    """Here transformers is there, but SAM's package is not; in the main environment groundingdino-py is not."""
    answer = call_tool("groundingdino", {"tool": "SAM", "backend": "segment-anything", "options": {}, "calls": []})
    assert "pip install 'thinkimg[tools,segment-anything]'" in answer["refused"]

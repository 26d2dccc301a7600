"""The same picture gives the same pixels wherever it comes in: a tool, RL and SFT data, rows of the hub, evaluation,
the gateway. Every way is the real one: a tool server, a job's data, a benchmark's rows, a caller's data URL."""

import asyncio
import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from PIL import Image as Pillow

from tests.support.data.odd_pictures import ODD_PICTURES, OddPicture
from tests.support.data.sets import as_struct, on_the_hub, table
from tests.support.serving.sample_servers import sample_url  # noqa: F401 - a fixture
from thinkimg.api import Data, QuestionSet
from thinkimg.client import ToolClient
from thinkimg.data.sharegpt import check_samples, read_samples
from thinkimg.evaluation.tasks import TASKS
from thinkimg.gateway.config import Limits
from thinkimg.gateway.pictures import Pictures
from thinkimg.image import Image
from thinkimg.jobs.stages.questions import load_tasks

ASKED = {"question": "What is it?", "answer": "1"}
TALK = [{"from": "human", "value": "What is it? <image>"}, {"from": "gpt", "value": "1"}]


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library takes two folders of one name for the same data set."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def trained_on(uri: str, folder: Path) -> Image:
    (task,) = load_tasks(Data(train=QuestionSet(uri=uri)), "train", 0, folder)
    return task.images[0]


def rl_data(data: bytes, folder: Path) -> Image:
    (folder / "picture").write_bytes(data)
    (folder / "train.jsonl").write_text(json.dumps({**ASKED, "image_path": "picture"}))
    return trained_on("train.jsonl", folder)


def rl_data_in_a_list(data: bytes, folder: Path) -> Image:
    (folder / "train.json").write_text(json.dumps([{**ASKED, "image": base64.b64encode(data).decode()}]))
    return trained_on("train.json", folder)


def rl_data_in_parquet(data: bytes, folder: Path) -> Image:
    table([{**ASKED, "image": as_struct(data)}], "image").to_parquet(folder / "train.parquet")
    return trained_on("train.parquet", folder)


def rl_data_of_the_hub(data: bytes, folder: Path) -> Image:
    on_the_hub(folder / "set", [{**ASKED, "image": as_struct(data)}], "train", "image")
    return trained_on("set", folder)


def rl_data_in_a_list_of_pictures(data: bytes, folder: Path) -> Image:
    on_the_hub(folder / "set", [{**ASKED, "images": [as_struct(data)]}], "train", "images")
    return trained_on("set", folder)


def sft_data(data: bytes, folder: Path) -> Image:
    (folder / "picture").write_bytes(data)
    (folder / "sft.json").write_text(json.dumps([{"conversations": TALK, "images": ["picture"]}]))
    (conversation,), broken = read_samples(str(folder / "sft.json"))
    assert not broken
    return conversation.messages[0].images[0]


def sft_data_of_the_hub(data: bytes, folder: Path) -> Image:
    rows = [{"conversations": TALK, "images": [as_struct(data)]}]
    (conversation,), broken = read_samples(f"hf://{on_the_hub(folder / 'sft', rows, 'train', 'images')}")
    assert not broken
    return conversation.messages[0].images[0]


def sft_data_that_somebody_decoded(data: bytes, folder: Path) -> Image:
    decoded = Pillow.open(io.BytesIO(data))
    (conversation,), broken = check_samples([{"conversations": TALK, "images": [decoded]}], folder)
    assert not broken
    return conversation.messages[0].images[0]


def evaluation(data: bytes, folder: Path) -> Image:
    (folder / "picture").write_bytes(data)
    (folder / "test.jsonl").write_text(json.dumps({**ASKED, "image": "picture"}))
    (task,) = TASKS["reachqa"].tasks(str(folder / "test.jsonl"))
    return task.images[0]


def evaluation_of_the_hub(data: bytes, folder: Path) -> Image:
    rows = [{"image": as_struct(data), "query": "What?", "label": ["1"], "human_or_machine": 0}]
    (task,) = TASKS["chartqa"].tasks(f"hf://{on_the_hub(folder / 'chartqa', rows, 'test', 'image')}")
    return task.images[0]


def gateway(data: bytes, folder: Path) -> Image:
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return asyncio.run(Pictures(Limits()).read("somebody", url))


WAYS: list[Callable[[bytes, Path], Image]] = [
    rl_data,
    rl_data_in_a_list,
    rl_data_in_parquet,
    rl_data_of_the_hub,
    rl_data_in_a_list_of_pictures,
    sft_data,
    sft_data_of_the_hub,
    sft_data_that_somebody_decoded,
    evaluation,
    evaluation_of_the_hub,
    gateway,
]


@pytest.mark.parametrize("odd", ODD_PICTURES.values(), ids=ODD_PICTURES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_picture_is_seen_alike(way: Callable[[bytes, Path], Image], odd: OddPicture, tmp_path: Path) -> None:
    image = way(odd.data, tmp_path)
    is_seen(odd, image.pixels())
    if way is not sft_data_that_somebody_decoded:
        assert image.data == odd.data
        assert image.media_type == odd.media_type


@pytest.mark.parametrize("odd", ODD_PICTURES.values(), ids=ODD_PICTURES)
def test_a_tool_sees_it_alike(odd: OddPicture, sample_url: str) -> None:  # noqa: F811
    """Crop of the whole picture, by a server."""

    async def cropped() -> Image:
        async with ToolClient([sample_url]) as client:
            images = {"img_1": Image.from_bytes(odd.data)}
            called = await client.call("Crop", {"image": "img_1", "box": [0, 0, 100, 100]}, images)
            return called.result.images[0]

    is_seen(odd, asyncio.run(cropped()).pixels())


def is_seen(odd: OddPicture, pixels: Pillow.Image) -> None:
    """All of it as `Image` sees it, and its halves in the right colours."""
    assert (pixels.mode, pixels.size) == ("RGB", odd.size)
    assert pixels.tobytes() == Image.from_bytes(odd.data).pixels().tobytes()
    for place, colour in odd.places:
        seen = pixels.getpixel(place)
        assert isinstance(seen, tuple)
        assert max(abs(a - b) for a, b in zip(seen, colour, strict=True)) <= 3, f"{seen} at {place}"

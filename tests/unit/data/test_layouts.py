"""Data sets as people have them: the layouts of LLaVA, ShareGPT, OpenAI, TRL, R1-V, EasyR1 and verl are read alike by
training, evaluation and synthesis; what is wrong with a row is said with its line and column."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image as Pillow

from tests.support.data.sets import as_struct, on_the_hub, table
from thinkimg.agent.agent import Agent
from thinkimg.agent.formats import get_format
from thinkimg.agent.tools import NoTools
from thinkimg.api import Data, QuestionSet
from thinkimg.data.questions import load_questions
from thinkimg.data.sharegpt import read_samples
from thinkimg.evaluation.tasks import EvaluationTask
from thinkimg.jobs.stages.questions import UnaskedModel, load_trajectories
from thinkimg.trajectory import Task


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library takes two folders of one name for the same data set."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def png(color: str = "red") -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (40, 30), color).save(buffer, "PNG")
    return buffer.getvalue()


RED, BLUE = png("red"), png("blue")
INLINE = "data:image/png;base64," + base64.b64encode(RED).decode()
ASKED = "<image>\nHow many bars?"
HUMAN, GPT = {"from": "human", "value": ASKED}, {"from": "gpt", "value": "3"}
PART, TEXT = {"type": "image"}, {"type": "text", "text": "How many bars?"}

ROWS: dict[str, dict[str, Any]] = {
    "LLaVA": {  # the picture is a text and no list: hiyouga/LlamaFactory#5883
        "id": "000000033471",
        "image": "red.png",
        "conversations": [HUMAN, GPT],
    },
    "ShareGPT": {"conversations": [{"from": "system", "value": "Look."}, HUMAN, GPT], "images": ["red.png"]},
    "ShareGPT with roles": {
        "messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "3"}],
        "images": ["red.png"],
    },
    "OpenAI": {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": INLINE}}, TEXT]},
            {"role": "assistant", "content": [{"type": "text", "text": "3"}]},
        ]
    },
    "Qwen's parts": {
        "messages": [
            {"role": "user", "content": [{"type": "image", "image": "file://red.png"}, TEXT]},
            {"role": "assistant", "content": "3"},
        ]
    },
    "ShareGPT as an object of lists": {  # what `datasets` makes of a Sequence of objects
        "conversations": {"from": ["human", "gpt"], "value": [ASKED, "3"]},
        "images": ["red.png"],
    },
    "TRL, prompt and completion": {
        "prompt": [{"role": "user", "content": [PART, TEXT]}],
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": "3"}]}],
        "images": ["red.png"],
    },
    "TRL, GRPO": {"prompt": [{"role": "user", "content": [PART, TEXT]}], "image": "red.png", "solution": "3"},
    "R1-V": {"image": "red.png", "problem": "How many bars?", "solution": "<answer> 3 </answer>"},
    "EasyR1": {"images": ["red.png"], "problem": "<image>How many bars?", "answer": "3"},
    "EasyR1, several answers": {"images": ["red.png"], "problem": "<image>How many bars?", "answer": ["3", "three"]},
    "verl": {
        "data_source": "hiyouga/geometry3k",
        "prompt": [{"role": "system", "content": ""}, {"role": "user", "content": "<image>How many bars?"}],
        "images": [{"bytes": None, "path": "red.png"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "3"},
        "extra_info": {"split": "train", "index": 0, "answer": "so it is 3", "question": "How many bars?"},
    },
    "no tag, and null for what is not there": {  # hiyouga/LlamaFactory#6135, NVlabs/Tool-N1#3
        "prompt": None,
        "messages": [{"role": "user", "content": "How many bars?"}, {"role": "assistant", "content": "3"}],
        "images": ["red.png"],
    },
    "a list of one": {"image": ["red.png"], "question": "How many bars?", "answer": 3},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/red.png").write_bytes(RED)
    (tmp_path / "data/blue.png").write_bytes(BLUE)
    return tmp_path / "data"


def lines(folder: Path, *rows: Any, name: str = "rows.jsonl", encoding: str = "utf-8") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding=encoding)
    return str(folder / name)


def listed(folder: Path, *rows: Any) -> str:
    (folder / "rows.json").write_text(json.dumps(list(rows), indent=1))
    return str(folder / "rows.json")


def marked(folder: Path, *rows: Any) -> str:
    """With a byte order mark, and line ends of Windows."""
    text = "".join(json.dumps(row) + "\r\n" for row in rows)
    (folder / "rows.jsonl").write_bytes(text.encode("utf-8-sig"))
    return str(folder / "rows.jsonl")


def for_training(uri: str) -> list[Task]:
    return load_questions(uri, "train")


def for_evaluation(uri: str) -> list[Task]:
    """And for synthesis, which reads a task's questions as evaluation does."""
    return list(EvaluationTask("mine", uri).tasks())


@pytest.mark.parametrize("layout", ROWS)
@pytest.mark.parametrize("written", [lines, listed, marked])
def test_a_layout_is_read_alike_for_training_evaluation_and_synthesis(
    layout: str, written: Callable[..., str], folder: Path
) -> None:
    uri = written(folder, ROWS[layout])
    for read in (for_training, for_evaluation):
        (task,) = read(uri)
        assert task.question.replace("<image>", "").strip() == "How many bars?"
        assert task.reference == "3"
        assert [image.data for image in task.images] == [RED]
        first, second = task.parts
        assert (first.data, second.strip()) == (RED, "How many bars?")  # type: ignore[union-attr]


@pytest.mark.parametrize("layout", [name for name, row in ROWS.items() if row.get("images") and "messages" not in row])
def test_a_layout_is_read_from_parquet_and_the_hub(layout: str, folder: Path) -> None:
    row = {name: [as_struct(RED)] if name == "images" else value for name, value in ROWS[layout].items()}
    table([row], "images").to_parquet(folder / "rows.parquet")
    laid_out = on_the_hub(folder / "set", [row], "train", "images")
    for uri in (str(folder / "rows.parquet"), laid_out, f"hf://{laid_out}"):
        (task,) = for_training(uri)
        assert (task.reference, [image.data for image in task.images]) == ("3", [RED])


def test_several_answers_are_kept_and_the_first_is_the_reference(folder: Path) -> None:
    (task,) = for_training(lines(folder, ROWS["EasyR1, several answers"]))
    assert task.meta["answer"] == ["3", "three"]
    (task,) = for_training(lines(folder, ROWS["verl"]))
    assert task.meta["answer"] == "3"
    assert task.meta["data_source"] == "hiyouga/geometry3k"
    assert "reward_model" not in task.meta


def test_each_tag_takes_the_next_picture(folder: Path) -> None:
    row = {"problem": "<image> or <image>?", "images": ["blue.png", "red.png"], "answer": "1"}
    (task,) = for_training(lines(folder, row))
    assert [part if isinstance(part, str) else part.data for part in task.parts] == [BLUE, " or ", RED, "?"]


TWO = [HUMAN, GPT, {"from": "human", "value": "And lines?"}, {"from": "gpt", "value": "4"}]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "more tags": (
        {**ROWS["EasyR1"], "problem": "<image><image>?"},
        ": the question has 2 times <image>, and there are 1",
    ),
    "more pictures": (
        {**ROWS["LLaVA"], "images": ["blue.png"]},
        ", column conversations: 1 times <image>, but 2 images",
    ),
    "two questions": (
        {**ROWS["LLaVA"], "conversations": TWO},
        ", column conversations: one question is needed.*4 messages",
    ),
    "a video": (
        {**ROWS["TRL, GRPO"], "prompt": [{"role": "user", "content": [{"type": "video"}]}]},
        ", column prompt: message 0: a part of type 'video': there are text, image and image_url",
    ),
    "another speaker": (
        {**ROWS["LLaVA"], "conversations": [{"from": "observation", "value": "x"}]},
        ", column conversations: message 0: 'from' must be human or gpt, not 'observation'",
    ),
    "no answer": ({**ROWS["verl"], "reward_model": {"style": "rule"}}, ": no answer or label or solution"),
    "no picture": ({**ROWS["EasyR1"], "images": [None]}, ", column images: there is no picture: NoneType"),
    "an absolute path": (
        {**ROWS["LLaVA"], "image": "/etc/hostname"},
        ", column image: the path '/etc/hostname' leads out of",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_row_is_named_with_line_and_column(bad: str, folder: Path) -> None:
    row, said = BAD[bad]
    uri = lines(folder, ROWS["R1-V"], row)
    for read in (for_training, for_evaluation):
        with pytest.raises(Exception, match=f"line 2{said}"):
            read(uri)


# ---- where pictures may be ------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/secret.png").write_bytes(BLUE)
    return tmp_path / "pictures"


@pytest.mark.parametrize("way", ["absolute", "above", "link to a file", "link to a folder", "file://"])
def test_a_path_that_leaves_the_folder_is_refused_unless_it_is_allowed(way: str, folder: Path, elsewhere: Path) -> None:
    (folder / "linked").symlink_to(elsewhere)
    (folder / "linked.png").symlink_to(elsewhere / "secret.png")
    path = {
        "absolute": str(elsewhere / "secret.png"),
        "above": "../pictures/secret.png",
        "link to a file": "linked.png",
        "link to a folder": "linked/secret.png",
        "file://": f"file://{elsewhere}/secret.png",
    }[way]
    uri = lines(folder, {"image": path, "question": "?", "answer": "1"})
    with pytest.raises(ValueError, match=r"line 1, column image: the path .* leads out of .*\?pictures=FOLDER"):
        for_training(uri)
    for allowed in (str(elsewhere), "../pictures"):
        (task,) = for_training(f"{uri}?pictures={allowed}")
        assert task.images[0].data == BLUE


def test_pictures_may_be_in_a_folder_of_their_own_as_llava_has_them(folder: Path, elsewhere: Path) -> None:
    uri = lines(folder, {**ROWS["LLaVA"], "image": "secret.png"}, ROWS["LLaVA"])
    first, second = for_training(f"{uri}?pictures=../pictures")
    assert (first.images[0].data, second.images[0].data) == (BLUE, RED)
    with pytest.raises(ValueError, match="there is no folder"):
        for_training(f"{uri}?pictures=../nowhere")
    with pytest.raises(ValueError, match=r"there is no picture 'secret\.png'"):
        for_training(uri)


def test_an_absolute_path_below_the_datas_folder_is_its_own(folder: Path) -> None:
    (task,) = for_training(lines(folder, {"image": str(folder / "red.png"), "question": "?", "answer": "1"}))
    assert task.images[0].data == RED


# ---- encodings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("written", [lines, lambda folder, row, encoding: lines(folder, [row], encoding=encoding)])
def test_another_encoding_is_refused_by_its_name(encoding: str, written: Any, folder: Path) -> None:
    uri = written(folder, ROWS["R1-V"], encoding=encoding)
    with pytest.raises(ValueError, match=r"it is UTF-(16|32), and UTF-8 is needed: convert it with `iconv"):
        for_training(uri)


def test_files_with_marks_that_were_put_together_are_read(folder: Path) -> None:
    row = json.dumps(ROWS["R1-V"]).encode("utf-8-sig") + b"\n"
    (folder / "rows.jsonl").write_bytes(row + row)
    assert len(for_training(str(folder / "rows.jsonl"))) == 2


# ---- conversations to learn from ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layout", [name for name in ROWS if {"conversations", "messages", "completion"} & ROWS[name].keys()]
)
@pytest.mark.parametrize("written", [lines, listed, marked])
def test_conversations_are_learnt_from_in_every_layout(layout: str, written: Callable[..., str], folder: Path) -> None:
    uri = written(folder, ROWS[layout])
    data = Data(trajectories=QuestionSet(uri=Path(uri).name), train=QuestionSet(uri="charts://"))
    agent = Agent(UnaskedModel(), NoTools(), format=get_format("hermes"))
    (trajectory,), broken = load_trajectories(data, folder, lambda: agent)
    assert not broken
    assert (trajectory.question, trajectory.answer) == ("How many bars?", "3")
    assert [image.data for image in trajectory.ordered_images] == [RED]
    assert trajectory.turns[-1].message.text == "<answer>3</answer>"


def test_a_sample_that_is_broken_is_named_and_counted(folder: Path) -> None:
    good, broken = read_samples(
        lines(folder, ROWS["LLaVA"], {"id": "b", "messages": []}, {**ROWS["LLaVA"], "image": None})
    )
    assert [one.name for one in good] == ["000000033471"]
    assert broken == {
        "b": "line 2: there is no list 'conversations' or 'messages'",
        "000000033471 (sample 2)": "line 3, column conversations: 1 times <image>, but 0 images",
    }

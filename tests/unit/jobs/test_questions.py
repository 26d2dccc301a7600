"""Questions become tasks; what cannot be used is refused while it is read."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image as Pillow

from thinkimg.agent.agent import Agent
from thinkimg.agent.tools import NoTools
from thinkimg.api import Data, Dataset, QuestionSet
from thinkimg.errors import UserError
from thinkimg.jobs.stages import questions
from thinkimg.jobs.stages.questions import UnaskedModel, load_tasks, load_trajectories
from thinkimg.trajectory import Trajectory, write_trajectories


def data(uri: str, **others: Dataset) -> Data:
    return Data(train=QuestionSet(uri=uri), **others)


def write(folder: Path, picture: bytes) -> None:
    (folder / "chart.jpg").write_bytes(picture)
    line = {"id": "q7", "question": "What?", "answer": "1", "image": "chart.jpg"}
    (folder / "train.jsonl").write_text(json.dumps(line))


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Pillow.linear_gradient("L").resize((96, 64)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_questions_of_a_file(tmp_path: Path) -> None:
    write(tmp_path, jpeg())
    (task,) = load_tasks(data("train.jsonl"), "train", 0, tmp_path)
    assert (task.id, task.question, task.reference) == ("q7", "What?", "1")
    assert (task.images[0].width, task.images[0].height) == (96, 64)


def test_a_truncated_picture_is_refused_with_its_question(tmp_path: Path) -> None:
    write(tmp_path, jpeg()[:-200])
    with pytest.raises(
        UserError, match=r"spec.data.train.uri: .*\nline 1: the picture of question 'q7' cannot"
    ) as refused:
        load_tasks(data("train.jsonl"), "train", 0, tmp_path)
    assert refused.value.field == "spec.data.train.uri"


def test_a_split_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"spec\.data\.test: there is no data for test"):
        load_tasks(data("charts://"), "test", 0, tmp_path)


def test_without_validation_data_those_to_train_on_are_taken(tmp_path: Path) -> None:
    assert [task.id for task in load_tasks(data("charts://?questions=3"), "validation", 0, tmp_path, 2)]


def test_a_revision_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr(questions, "load_questions", lambda uri, *_, **__: asked.append(uri) or [])
    for uri in ("hf://o/n", "hf://o/n?limit=5"):
        load_tasks(Data(train=QuestionSet(uri=uri, revision="v1")), "train", 0, tmp_path)
    assert asked == ["hf://o/n?revision=v1", "hf://o/n?limit=5&revision=v1"]


def test_only_repositories_have_revisions() -> None:
    with pytest.raises(ValueError, match="has no revisions"):
        Dataset(uri="charts://", revision="v1")


def test_a_file_of_trajectories(tmp_path: Path) -> None:
    write_trajectories(
        [Trajectory(question="What?", reference="1", answer="1", status="answered")], tmp_path / "t.jsonl"
    )
    (trajectory,), broken = load_trajectories(data("t.jsonl"), tmp_path, lambda: Agent(UnaskedModel(), NoTools()))
    assert (trajectory.question, broken) == ("What?", {})


def test_a_file_of_questions_is_not_one_of_trajectories(tmp_path: Path) -> None:
    write(tmp_path, jpeg())
    with pytest.raises(UserError, match=r"spec.data.train.uri: trajectories are needed.*line 1"):
        load_trajectories(data("train.jsonl"), tmp_path, lambda: Agent(UnaskedModel(), NoTools()))

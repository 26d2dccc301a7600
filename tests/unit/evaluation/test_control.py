"""Controls tell apart models that copy the question, read text only, or look; pictures change as the scope says."""

import asyncio
import base64
import csv
import io
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from tests.support.agent.scripted import InProcess, Result, answers, says
from tests.support.cli.commands import EVERY_COMMAND, parse
from tests.support.evaluation.stub_endpoint import Handler, start
from thinkimg.agent.agent import Agent
from thinkimg.agent.formats import Call
from thinkimg.api import Control
from thinkimg.errors import ModelError, UserError
from thinkimg.evaluation.control import Controlled, check
from thinkimg.evaluation.evaluate import Settings, evaluate
from thinkimg.evaluation.formats import FORMATS
from thinkimg.evaluation.scorers import find_rule
from thinkimg.evaluation.summary import row_of, summary_of
from thinkimg.evaluation.tables import compare
from thinkimg.evaluation.tasks import EvaluationTask
from thinkimg.image import Image
from thinkimg.jsonfile import read
from thinkimg.models.chat import Reply, SamplingParameters
from thinkimg.results import EvaluationResults
from thinkimg.tools.tool import ToolResult
from thinkimg.trajectory import Task, Trajectory
from thinkimg.trajectory.store import Store

GREY = "128"


def picture(number: int, width: int = 12) -> Image:
    """A number, as the brightness of the picture."""
    return Image.from_pixels(Pillow.new("RGB", (width, 8), (number, number, number)))


def seen(image: Image) -> str:
    return str(image.pixels().getpixel((0, 0))[0])


TASKS = [
    Task(f"q{n}", f"How bright? Hint: {n if n % 4 == 0 else 3}", (picture(n),), str(n), {"kind": "brightness"})
    for n in (4, 8, 16, 31, 60, 120, 200, 250)
]


async def ocr(images: Mapping[str, Image], image: str) -> Result:
    if image not in images:
        raise ModelError(f'there is no image "{image}"')
    return Result(ToolResult(seen(images[image])))


async def crop(images: Mapping[str, Image], image: str) -> Result:
    return Result(ToolResult("cropped", {}, (Image.from_pixels(images[image].pixels().crop((0, 0, 6, 6))),)))


class Model:
    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        return Reply(self.say(trajectory), "stop")

    def say(self, trajectory: Trajectory) -> str:
        raise NotImplementedError


class Copies(Model):
    def say(self, trajectory: Trajectory) -> str:
        return answers(trajectory.question.rpartition("Hint: ")[2])


class ReadsText(Model):
    def say(self, trajectory: Trajectory) -> str:
        if not trajectory.tool_results:
            return says(Call("ocr", {"image": "img_1"}))
        return answers(trajectory.tool_results[-1].text)


class Looks(Model):
    def say(self, trajectory: Trajectory) -> str:
        shown = trajectory.ordered_images
        return answers(seen(shown[0]) if shown else "I see no picture")


class LooksAtCrops(Model):
    def say(self, trajectory: Trajectory) -> str:
        if not trajectory.tool_results:
            return says(Call("crop", {"image": "img_1"}))
        return answers(seen(trajectory.images["img_2"]))


def ask(model: Any, folder: Path, control: Control | None, tools: Any = None) -> list[dict[str, Any]]:
    agent = Agent(model, tools or InProcess(ocr, crop))
    controlled = control and Controlled(control, TASKS)
    settings = Settings("m", "t", control=controlled)
    with Store(folder / (control.name if control else "true") / "t.jsonl") as store:
        asyncio.run(evaluate(agent, TASKS, [find_rule("exact")], store, settings))
        return [store.record(task.id) for task in TASKS]


def accuracy(model: Any, folder: Path, control: Control | None = None) -> float | None:
    return summary_of(map(row_of, ask(model, folder, control))).accuracy


@pytest.mark.parametrize("kind", ["grey", "other"])
def test_three_models_are_told_apart(kind: Any, tmp_path: Path) -> None:
    """What each owes to its eyes (scope `question`), and to what its tools see (`tools`)."""
    table = {
        model.__name__: [
            accuracy(model(), tmp_path / model.__name__, control)
            for control in (None, Control(kind, "question"), Control(kind, "tools"), Control(kind, "all"))
        ]
        for model in (Copies, ReadsText, Looks, LooksAtCrops)
    }
    hints = 6 / 8
    assert table == {
        "Copies": [hints, hints, hints, hints],
        "ReadsText": [1.0, 1.0, 0.0, 0.0],
        "Looks": [1.0, 0.0, 1.0, 0.0],
        "LooksAtCrops": [1.0, 1.0, 0.0, 0.0],
    }


def test_without_a_picture_the_model_sees_none_and_tools_have_it_by_its_name(tmp_path: Path) -> None:
    assert accuracy(Looks(), tmp_path / "looks", Control("none")) == 0.0
    assert accuracy(ReadsText(), tmp_path / "reads", Control("none")) == 1.0
    (record, *_) = ask(ReadsText(), tmp_path / "blind", Control("none", "all"))
    assert record["answer"] == 'ERROR: there is no image "img_1"'
    (record, *_) = ask(LooksAtCrops(), tmp_path / "crops", Control("none"))
    assert (record["answer"], list(record["images"])) == ("4", ["img_1", "img_2"])


def test_grey_is_the_size_of_the_true_picture_and_the_record_says_what_was_true(tmp_path: Path) -> None:
    (record, *_) = ask(Looks(), tmp_path, Control("grey"))
    assert record["answer"] == GREY
    shown = record["images"]["img_1"]
    assert (shown["width"], shown["height"]) == (12, 8)
    assert record["meta"]["control"] == {
        "kind": "grey",
        "scope": "question",
        "pictures": [TASKS[0].images[0].sha256],
    }
    (plain, *_) = ask(Looks(), tmp_path, None)
    assert row_of(record).picture == row_of(plain).picture != ""


def test_the_other_picture_is_always_the_same_one_of_the_same_kind_size_and_another_answer() -> None:
    wide = Task("wide", "How wide?", (picture(7, 30),), "7", {"kind": "brightness"})
    odd = Task("odd", "How odd?", (picture(9),), "9", {"kind": "odd"})
    odder = Task("odder", "How odd?", (picture(10),), "9.0", {"kind": "odd"})
    oddest = Task("oddest", "How odd?", (picture(11),), "90", {"kind": "odd"})
    tasks = [*TASKS, wide, odd, odder, oddest]
    found = Controlled(Control("other"), tasks)
    assert found._others == Controlled(Control("other"), tasks[::-1])._others
    assert {found._others[name].id for name in ("odd", "odder")} == {"oddest"}
    for task in TASKS:
        assert found._others[task.id].id not in (task.id, "wide", "odd", "odder", "oddest")
    resized = found._changed(wide, {"img_1": wide.images[0]})["img_1"]
    assert (resized.width, resized.height) == (30, 8)


def test_what_cannot_be_is_refused_before_anything_is_asked() -> None:
    lonely = Task("lonely", "?", (picture(1),), "1", {"kind": "of its own"})
    with pytest.raises(
        UserError, match=r"question 'lonely' has no other question of its kind .* or change pictures to grey ones"
    ):
        Controlled(Control("other"), [*TASKS, lonely])
    with pytest.raises(UserError, match="question 'words' has no picture that could be changed"):
        Controlled(Control("grey"), [*TASKS, Task("words", "?", (), "1")])
    with pytest.raises(UserError, match="evaluate without tools to see what they bring"):
        check(Control("none", "tools"), tools=True)
    with pytest.raises(UserError, match="the model has no tools"):
        check(Control("grey", "tools"), tools=False)
    check(Control("grey", "tools"), tools=True)


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[str, list[Any]]]:
    """A model that looks: it says how bright the picture is that it is sent. Beside it, what it was asked."""
    asked: list[Any] = []

    class Looker(Handler):
        def reply(self, body: dict[str, Any]) -> str:
            asked.append(body["messages"])
            urls = re.findall(r"data:image/png;base64,([^\"]+)", json.dumps(body["messages"]))
            return answers(seen(Image.from_bytes(base64.b64decode(urls[0]))) if urls else "nothing")

    server, url = start(Looker)
    yield url, asked
    server.shutdown()


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    for task in TASKS:
        (folder / f"{task.id}.png").write_bytes(task.images[0].data)
    rows = [
        {"id": task.id, "question": task.question, "answer": task.reference, "image": f"{task.id}.png"}
        for task in TASKS
    ]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "q.jsonl"


def command(url: str, questions: Path, out: Path, *words: str) -> None:
    fixed = f"--backend openai --model m --model-args base_url={url} --data {questions} --out {out} --scorer exact"
    _, parameters = parse(" ".join(["thinkimg eval charts", fixed, *words]))
    EVERY_COMMAND["eval"].function(**parameters)


def files(folder: Path) -> dict[str, bytes]:
    """Those that are the same whenever they were written."""
    found = [*folder.rglob("items.jsonl"), *folder.rglob("results.json"), *folder.rglob("settings.json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_the_command_asks_again_and_shows_what_is_owed(
    endpoint: tuple[str, list[Any]], questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, asked = endpoint
    command(url, questions, tmp_path, "--control none")
    before = len(asked)
    assert before == 16
    capsys.readouterr()
    command(url, questions, tmp_path, "--control grey --control-scope all")
    assert len(asked) == before + 8, "the true ones and those of the other control are not asked again"
    printed = capsys.readouterr().out
    assert "pictures changed (grey, all): 0.0 % " in printed
    assert "pictures changed (none, question): 0.0 % " in printed
    assert re.search(r"owed to seeing the true ones: \+100\.0 \(\+\d\d\.\d to \+100\.0, p", printed)
    results = read(tmp_path / "charts" / "results.json", EvaluationResults)
    assert results.accuracy == 1.0
    assert [(one.control, one.scope, one.n, one.accuracy) for one in results.controls] == [
        ("grey", "all", 8, 0.0),
        ("none", "question", 8, 0.0),
    ]
    found = compare([tmp_path])
    assert "| m (charts) | grey, all | 100.0 % | 0.0 % |" in FORMATS["md"](found)
    assert "grey, all" in FORMATS["tex"](found)
    (row,) = csv.DictReader(io.StringIO(FORMATS["csv"](found)))
    assert (row["grey_all"], row["grey_all_owed"], row["none_question_owed_high"]) == ("0.0", "1.0", "1.0")
    assert 0 < float(row["grey_all_owed_low"]) < 1
    assert json.loads(FORMATS["json"](found))["models"][0]["controls"][0]["owed"]["difference"] == 1.0


@pytest.mark.parametrize(("words", "times"), [("", 2), ("--control grey", 3), ("--control other", 1)])
def test_questions_are_read_no_more_often_than_pictures_can_be_kept(
    words: str,
    times: int,
    endpoint: tuple[str, list[Any]],
    questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`other` keeps all of them; else they are read to be looked at, and whenever they are asked."""
    read_, tasks_of = [0], EvaluationTask.tasks

    def counted(self: EvaluationTask, *given: Any) -> Iterator[Task]:
        read_[0] += 1
        yield from tasks_of(self, *given)

    monkeypatch.setattr(EvaluationTask, "tasks", counted)
    command(endpoint[0], questions, tmp_path, words)
    assert read_[0] == times


def test_a_control_is_resumed_and_shared_by_itself_and_never_mixed(
    endpoint: tuple[str, list[Any]], questions: Path, tmp_path: Path
) -> None:
    url, asked = endpoint
    whole, killed, shards = (tmp_path / name for name in ("whole", "killed", "shards"))
    command(url, questions, whole, "--control other")
    shutil.copytree(whole, killed)
    store = killed / "charts" / "control-other-question" / "trajectories.jsonl"
    lines = store.read_bytes().splitlines(keepends=True)
    store.write_bytes(b"".join(lines[:3]) + lines[3][:40])
    before = len(asked)
    command(url, questions, killed, "--control other")
    assert len(asked) - before == 5
    assert files(killed) == files(whole)
    for index in range(3):
        command(url, questions, shards, f"--control other --shard {index}/3")
    results = "charts/results.json", "charts/control-other-question/items.jsonl"
    assert [files(shards)[name] for name in results] == [files(whole)[name] for name in results]
    with pytest.raises(UserError, match="seed = 0, now 7"):
        command(url, questions, whole, "--control other --seed 7")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--control grey --control-scope tools", "the model has no tools"),
        ("--control none --control-scope tools", "tools without a picture can do nothing"),
        ("--control-scope all", "--control-scope: it says for whom pictures are changed, and nothing changes them"),
        ("--control other --limit 1", "question 'q4' has no other question"),
    ],
)
def test_the_command_refuses_before_it_asks(
    words: str, reason: str, endpoint: tuple[str, list[Any]], questions: Path, tmp_path: Path
) -> None:
    url, asked = endpoint
    before = len(asked)
    with pytest.raises(UserError, match=reason):
        command(url, questions, tmp_path, words)
    assert len(asked) == before
    assert list(tmp_path.iterdir()) == []

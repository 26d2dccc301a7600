"""An evaluation that was killed goes on with the same settings only: any other one is refused by name, before anything
is asked. Options and arguments are found by walking the command, so that a new one without a decision fails here."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli.commands import EVERY_COMMAND, parse
from tests.support.evaluation.answering import World, answering
from thinkimg.errors import UserError
from thinkimg.evaluation import identity
from thinkimg.evaluation.options import Chosen, Options
from thinkimg.evaluation.scorers import RULES
from thinkimg.jsonfile import read
from thinkimg.models.api import ApiModel
from thinkimg.models.loading import NAMES as LOADING
from thinkimg.models.reference import Folder, Hub, Model
from thinkimg.models.trained import Asking
from thinkimg.models.vllm.server import VLLMServerGenerator
from thinkimg.results import EvaluationSettings


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with answering() as found:
        yield found


def evaluate(world: World, out: Path, *changed: str, without: str = "", tasks: str = "charts") -> None:
    """The command with further words; one given again takes the place of the first."""
    words = {
        "--model": "--model m",
        "--model-args base_url": f"--model-args base_url={world.url}/v1",
        "--server": f"--server {world.url}",
        "--data": "--data 'charts://?questions=4'",
        "--out": f"--out {out}",
    }
    kept = [text for option, text in words.items() if option != without]
    _, parameters = parse(" ".join([f"thinkimg eval {tasks} --backend openai", *kept, *changed]))
    EVERY_COMMAND["eval"].function(**parameters)


@pytest.fixture(scope="module")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    evaluate(world, out)
    return out


@pytest.fixture
def killed(finished: Path, tmp_path: Path) -> Path:
    """What a kill leaves: two answers, half a line, no results."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    for name in ("results.json", "items.jsonl", "costs.json"):
        (out / "charts" / name).unlink()
    lines = (out / "charts" / "trajectories.jsonl").read_text().splitlines(keepends=True)
    (out / "charts" / "trajectories.jsonl").write_text("".join(lines[:2]) + lines[2][:100])
    return out


REFUSED = {
    "model": (["--model n"], "source.* now .'n'."),
    "model_args": (
        ["--model-args extra='{reasoning_effort: high}'"],
        "model_args.extra.reasoning_effort = None, now 'h",
    ),
    "name": (["--name another"], "name = 'm', now 'another'"),
    "no_tools": (["--no-tools"], r"tools = \['Crop', 'Point'\], now None"),
    "tool": (["--tool Crop"], r"tools = \['Crop', 'Point'\], now \['Crop'\]"),
    "data": (["--data 'charts://?questions=5'"], "data = 'charts.*now 'charts.*; questions = 4, now 5"),
    "split": (["--split train"], "split = None, now 'train'; data_content = "),
    "limit": (["--limit 3"], "limit = None, now 3; questions = 4, now 3"),
    "format": (["--format hermes"], "format = 'openthinkimg', now 'hermes'"),
    "prompt": (["--prompt compact"], "prompt = 'full', now 'compact'"),
    "max_rounds": (["--max-rounds 3"], "max_rounds = 6, now 3"),
    "max_tokens": (["--max-tokens 99"], "max_tokens = 512, now 99"),
    "temperature": (["--temperature 0.9"], "temperature = 0.0, now 0.9"),
    "samples": (["--samples 2", "--temperature 0.9"], "temperature = 0.0, now 0.9; samples = 1, now 2"),
    "seed": (["--seed 5"], "seed = 0, now 5"),
    "shard": (["--shard 0/2"], "shards = 1, now 2"),
}
"""Option of `thinkimg eval` -> with another value of it, and what the refusal names."""

CHANGES_NOTHING = {
    "control": "A control has a folder of its own, where it is compared.",
    "control_scope": "Likewise.",
    "out": "It is the folder.",
    "tasks": "Each task has a folder of its own.",
    "server": "Where tools are; what they are is compared (below).",
    "backend": "It needs weights: compared below.",
    "scorer": "Answers are scored again.",
    "judge": "Answers are scored again.",
    "max_seconds": "It detects hangs.",
    "concurrency": "How many at the same time.",
    "price": "Of what is asked from now on.",
    "secrets_dir": "Keys.",
    "as_json": "What is printed.",
    "list_": "It ends before anything is asked.",
}


def test_every_option_is_decided() -> None:
    command, _ = parse("thinkimg eval charts --model m --out o")
    options = {parameter.name for parameter in command.params} - {"help"}
    assert options == {*REFUSED, *CHANGES_NOTHING}, (
        "an option of `thinkimg eval` is part of what an answer depends on (EvaluationSettings, and REFUSED here), or "
        "stands in CHANGES_NOTHING with the reason"
    )


@pytest.mark.parametrize("option", REFUSED)
def test_killed_and_restarted_with_this_option_changed_it_is_refused_by_name(
    world: World, killed: Path, option: str
) -> None:
    before, asked = _content(killed), len(world.asked)
    words, named = REFUSED[option]
    with pytest.raises(UserError, match=f"it was begun with .*{named}.*choose another output"):
        evaluate(world, killed, *words, without=words[0].split()[0] if option != "no_tools" else "--server")
    assert len(world.asked) == asked
    assert _content(killed) == before


@pytest.mark.parametrize(
    "words",
    [
        "--concurrency 1",
        "--max-seconds 20",
        "--price 1 2",
        "--scorer exact --scorer relaxed",
        "--model-args retries=1 --model-args timeout_seconds=5 --model-args max_concurrency=2 "
        "--model-args requests_per_minute=60000 --model-args backoff_seconds=0.1 --model-args api_key_variable=PATH",
        "--split train --split test",
        "--limit 4",
    ],
)
def test_what_changes_no_answer_is_not_refused(world: World, killed: Path, finished: Path, words: str) -> None:
    asked = len(world.asked)
    evaluate(world, killed, words)
    assert len(world.asked) == asked + 2, "the two that were missing"
    figures = json.loads((killed / "charts/results.json").read_text())
    assert (figures["n"], figures["infrastructure"]) == (4, 0)
    if "--scorer" not in words:
        assert (killed / "charts/items.jsonl").read_bytes() == (finished / "charts/items.jsonl").read_bytes()


@pytest.mark.parametrize("spelling", ["http://localhost:{port}/v1", "HTTP://me:secret@127.0.0.1:{port}/v1/"])
def test_another_spelling_of_the_same_endpoint_is_not_another_one(
    world: World, finished: Path, spelling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, url = len(world.asked), spelling.format(port=world.url.rpartition(":")[2])
    evaluate(world, finished, f"--model-args base_url={url}", without="--model-args base_url")
    assert len(world.asked) == asked
    assert "charts: m, 4 questions" in capsys.readouterr().out


def test_a_field_that_is_left_out_is_another_setting_than_one_that_is_not_named(world: World, killed: Path) -> None:
    with pytest.raises(UserError, match=r"model_args\.extra\.temperature = None, now 'null'"):
        evaluate(world, killed, "--model-args extra='{temperature: null}'")


def test_a_finished_output_says_that_nothing_is_asked(
    world: World, finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluate(world, finished)
    assert "nothing is asked: all 4 answers are there" in caplog.text


def test_a_finished_output_does_not_pass_for_another_endpoint(world: World, finished: Path) -> None:
    with pytest.raises(UserError, match=r"base_url = 'http://127.*, now 'http://127.0.0.1:9/v1'"):
        evaluate(world, finished, "--model-args base_url=http://127.0.0.1:9/v1", without="--model-args base_url")


def test_a_tool_of_another_version_is_another_setting(world: World, killed: Path) -> None:
    world.version = "2"
    try:
        with pytest.raises(UserError, match=r"tool_versions\.Crop = '1 .*, now '2 "):
            evaluate(world, killed)
    finally:
        world.version = "1"


def test_keys_are_written_nowhere_and_are_no_part_of_it(world: World, tmp_path: Path) -> None:
    key = "--model-args extra='{api_key: sk-123, user_token: t0ken, top_p: 0.5}'"
    evaluate(world, tmp_path, key)
    text = (tmp_path / "charts/settings.json").read_text()
    assert "0.5" in text
    assert "sk-123" not in text + (tmp_path / "charts/results.json").read_text()
    assert "t0ken" not in text
    evaluate(world, tmp_path, key.replace("sk-123", "sk-456"))


# ---- arguments of models ---------------------------------------------------------------------------------------------

ARGUMENTS = {
    "base": "other",
    "base_url": "http://elsewhere/v1",
    "extra": {"top_p": 0.5},
    "max_model_len": 1000,
    "max_pixels": 9999,
    "min_pixels": 999,
    "revision": "other",
    "thinking": False,
    "trust_remote_code": True,
}
"""Argument of any backend that changes answers -> another value of it."""


def test_every_argument_of_every_backend_is_decided() -> None:
    kinds = (ApiModel, VLLMServerGenerator)
    fields = {one.name for kind in kinds for one in dataclasses.fields(kind) if one.init}
    known = {*fields, *LOADING, "max_batch", "api_key_variable"} - {"api_key", "model", "family"}
    assert known <= {*ARGUMENTS, *identity.CHANGES_NO_ANSWER}, "decide: ARGUMENTS here, or CHANGES_NO_ANSWER"
    assert not ARGUMENTS.keys() & identity.CHANGES_NO_ANSWER.keys()
    assert all(reason.endswith(".") for reason in identity.CHANGES_NO_ANSWER.values())


class Told:
    """Of an agent, what settings are made of."""

    system = "You look at pictures."

    class tools:
        schemas: dict[str, Any] = {}  # noqa: RUF012


def settings(model: Model, **options: Any) -> EvaluationSettings:
    questions = identity.Asked(("a", "b"), "same")
    options = {"backend": "transformers", **options}
    chosen = Chosen(Options(["charts"], model.written, Path("out"), **options), model, Asking())
    return chosen.settings("charts", Told(), questions, 1)  # type: ignore[arg-type]


HUB = Model("owner/model", Hub("owner/model"))


@pytest.mark.parametrize("name", sorted(ARGUMENTS.keys() - {"base", "revision"}))
def test_another_argument_of_a_model_is_named(name: str) -> None:
    changed = settings(HUB).differences(settings(HUB, model_args={name: ARGUMENTS[name]}))
    assert [one.removeprefix("model_args.").partition(".")[0] for one in changed] == [name]


def test_another_backend_or_revision_or_base_of_an_adapter_is_named(tmp_path: Path) -> None:
    assert list(settings(HUB).differences(settings(HUB, backend="vllm"))) == ["backend"]
    other = Model("owner/model", Hub("owner/model", "other"))
    assert settings(HUB).differences(settings(other)) == {"source": (["owner/model"], ["owner/model@other"])}


def test_a_folder_is_what_it_holds_wherever_it_stands(tmp_path: Path) -> None:
    for name, weights in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    a, b, c = (Model(str(tmp_path / name), Folder(tmp_path / name)) for name in "abc")
    assert not settings(a, name="m").differences(settings(b, name="m"))
    assert list(settings(a, name="m").differences(settings(c, name="m"))) == ["model", "source"]


def test_of_several_tasks_none_is_asked_when_the_output_of_one_is_anothers(
    world: World, killed: Path, tmp_path: Path
) -> None:
    for name, count in (("first", 4), ("charts", 3)):
        (tmp_path / f"{name}.py").write_text(
            "from thinkimg.evaluation.tasks import EvaluationTask\n"
            f"TASK = EvaluationTask('{name}', data='charts://?questions={count}')\n"
        )
    asked = len(world.asked)
    with pytest.raises(UserError, match=r"charts: it was begun with .*questions = 4, now 3"):
        evaluate(world, killed, without="--data", tasks=f"{tmp_path}/first.py {tmp_path}/charts.py")
    assert len(world.asked) == asked


# ---- scorers ---------------------------------------------------------------------------------------------------------


def test_a_rule_of_another_version_scores_what_is_there_anew(
    world: World, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    rule, asked = RULES["relaxed_normalised"], len(world.asked)

    def figures() -> dict[str, Any]:
        evaluate(world, tmp_path / "out")
        found = json.loads((tmp_path / "out/charts/results.json").read_text())["scores"]
        return {name: found[name]["mean"] for name in ("relaxed_normalised", "relaxed")}

    before = figures()
    other = dataclasses.replace(rule, rule=lambda answer, reference, _: before["relaxed_normalised"] != 1.0)
    monkeypatch.setitem(RULES, rule.name, other)
    assert figures() == before, "the same version says the same"
    monkeypatch.setitem(RULES, rule.name, dataclasses.replace(other, version="another"))
    after = float(before["relaxed_normalised"] != 1.0)
    assert figures() == {"relaxed_normalised": after, "relaxed": before["relaxed"]}
    monkeypatch.setitem(RULES, rule.name, rule)
    assert figures() == before
    assert len(world.asked) == asked, "no question is asked again"


def test_answers_of_an_earlier_version_are_scored_anew(world: World, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    path, asked = tmp_path / "out/charts/trajectories.jsonl", len(world.asked)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        del record["meta"]["scored_by"]
        record["rewards"] = dict.fromkeys(record["rewards"], 0.25)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    evaluate(world, tmp_path / "out")
    assert (tmp_path / "out/charts/items.jsonl").read_bytes() == (finished / "charts/items.jsonl").read_bytes()
    assert len(world.asked) == asked


# ---- judges ----------------------------------------------------------------------------------------------------------


def test_answers_that_another_judge_has_scored_are_scored_again(world: World, tmp_path: Path) -> None:
    judged = f"--scorer judge --judge base_url={world.url}/v1 --judge model="
    evaluate(world, tmp_path, f"{judged}one", "--limit 2")
    for judge, expected in (("one", 0), ("two", 2), ("two", 0)):
        asked = len(world.asked)
        evaluate(world, tmp_path, f"{judged}{judge}", "--limit 2")
        new = world.asked[asked:]
        assert [body["model"] for body in new] == [judge] * expected


# ---- outputs of earlier versions -------------------------------------------------------------------------------------


def of_an_earlier_version(out: Path) -> None:
    """Its settings without those that it did not know."""
    path = out / "charts" / "settings.json"
    new = ("source", "base_url", "model_args", "wording", "max_context", "data_content", "questions", "tool_versions")
    document = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in document.items() if name not in new}))


def test_a_finished_output_of_an_earlier_version_is_read_and_what_is_not_known_is_named(
    world: World, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    of_an_earlier_version(tmp_path / "out")
    evaluate(world, tmp_path / "out")
    assert "did not write down source, base_url, model_args" in caplog.text
    assert "base_url" in read(tmp_path / "out/charts/settings.json", EvaluationSettings).unknown()
    with pytest.raises(UserError, match=r"temperature = 0\.0, now 0\.9"):
        evaluate(world, tmp_path / "out", "--temperature 0.9")


def test_answers_of_an_earlier_version_are_not_mixed_with_others(world: World, killed: Path) -> None:
    of_an_earlier_version(killed)
    asked = len(world.asked)
    with pytest.raises(UserError, match=r"did not write down source, base_url.*2 of 4 questions are not answered"):
        evaluate(world, killed)
    assert len(world.asked) == asked


def test_answers_without_settings_are_not_taken_for_anybodys(world: World, killed: Path) -> None:
    (killed / "charts/settings.json").unlink()
    with pytest.raises(UserError, match=r"did not write down backend, .*2 of 4 questions are not answered"):
        evaluate(world, killed)
    assert not (killed / "charts/settings.json").exists()


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*.json*"))}

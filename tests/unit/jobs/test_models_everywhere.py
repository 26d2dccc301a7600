"""One grammar of models in every command, and what a run's model brings with it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image as Pillow
from typer.testing import CliRunner

from tests.support.evaluation.stub_endpoint import start
from tests.support.models.model_folders import MANIFEST, save_adapter, save_model, save_run
from thinkimg.api import ManifestError
from thinkimg.cli.app import app
from thinkimg.errors import UserError
from thinkimg.gateway.config import Upstream, read_config
from thinkimg.gateway.openai import upstream_model
from thinkimg.jobs.runner.run import prepare
from thinkimg.jobs.stages.context import Context
from thinkimg.models.checkpoint import check_checkpoint
from thinkimg.models.trained import Trained, read_trained

pytestmark = pytest.mark.slow

QUESTION = "charts://?questions=6"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a folder, adapters with a base and without, a folder that is no model."""
    root = tmp_path_factory.mktemp("world")
    model = save_model(root / "mine")
    save_run(root / "runs" / "demo", model, "sft", "plain", "v-toolrl")
    save_adapter(root / "adapter", "mine")
    save_adapter(root / "orphan", "/gone/away")
    (root / "pictures").mkdir()
    Pillow.new("RGB", (64, 48), "white").save(root / "pictures" / "one.png")
    return root


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: that world, to be changed."""
    folder = shutil.copytree(world, tmp_path / "here", copy_function=os.link)
    monkeypatch.chdir(folder)
    return folder


def thinkimg(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def evaluate(written: str, *more: Any) -> Result:
    return thinkimg(
        "eval", "charts", "--model", written, "--data", QUESTION, "--limit", 1, "--out", f"out-{len(more)}",
        "--max-seconds", 60, *more,
    )  # fmt: skip


def ask(written: str, *more: Any) -> Result:
    return thinkimg("ask", "What?", "--model", written, "--image", "pictures/one.png", "--out", "asked.jsonl", *more)


def export(written: str, *more: Any) -> Result:
    shutil.rmtree("exported", ignore_errors=True)
    return thinkimg("export", written, "exported", *more)


def synthesize(written: str, *more: Any) -> Result:
    options = ["--max-tokens", 8, "--max-rounds", 1] if "#" not in written else []
    return thinkimg(
        "synthesize", "charts", "--data", QUESTION, "--count", 1, "--out", "made", "--planner-args", f"model={written}",
        *options, *more,
    )  # fmt: skip


def judged(written: str, *more: Any) -> Result:
    """The model judges what an endpoint answers."""
    server, url = start()
    try:
        return thinkimg(
            "eval", "charts", "--model", f"{url}#two", "--data", QUESTION, "--limit", 1, "--out", "judged",
            "--scorer", "judge", "--judge", f"model={written}", *more,
        )  # fmt: skip
    finally:
        server.shutdown()


COMMANDS: dict[str, Callable[..., Result]] = {
    "eval": evaluate, "ask": ask, "export": export, "synthesize": synthesize, "judge": judged,
}  # fmt: skip


# ---- the grammar, by command ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("runs/demo", "it is a run, not a model"),
        ("runs/demo/v-tolrl", 'Did you mean "v-toolrl"?'),
        ("pictures", "exists and is no model"),
        ("orphan", "base=MODEL"),
        ("not/on/the/hub", "there is no folder"),
        ("pvc://claim/model", "in pods only"),
        ("https://host/v1", "#NAME"),
        ("s3://bucket/model", "owner/name"),
        ("preset://huge", "preset"),
    ],
)
def test_every_command_refuses_what_is_no_model_in_the_same_words(
    here: Path, command: str, written: str, said: str
) -> None:
    found = COMMANDS[command](written)
    assert found.exit_code != 0
    assert said in str(found.exception), found.output


@pytest.mark.parametrize("command", ["eval", "ask", "export", "synthesize"])
@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("mine", "model: folder {}/mine"),
        ("adapter", "model: adapter {0}/adapter, merged into folder {0}/mine"),
        ("runs/demo/plain", "model: folder {0}/runs/demo/stages/plain/model (stage plain of {0}/runs/demo)"),
    ],
)
def test_every_command_takes_folders_adapters_and_stages_and_says_which(
    here: Path, command: str, written: str, said: str
) -> None:
    found = COMMANDS[command](written)
    assert found.exception is None, found.exception
    assert said.format(here) in found.stderr


@pytest.mark.parametrize("command", ["eval", "ask", "synthesize", "judge"])
def test_every_command_that_asks_takes_an_endpoint_by_its_address(here: Path, command: str) -> None:
    server, url = start()
    try:
        found = COMMANDS[command](f"{url}#some/model")
        if command == "judge":  # the endpoint's reply is a call, which is no verdict
            assert "the judge says neither Yes nor No" in str(found.exception)
        else:
            assert found.exception is None, found.exception
    finally:
        server.shutdown()


def test_an_endpoint_has_no_weights_to_export(here: Path) -> None:
    found = export("https://host/v1#gpt")
    assert "has no weights here" in str(found.exception)


def test_the_older_way_to_name_an_endpoint_works_on(here: Path) -> None:
    server, url = start()
    try:
        found = evaluate("mine", "--backend", "openai", "--model-args", f"base_url={url}")
    finally:
        server.shutdown()
    assert found.exception is None, found.exception
    assert f"model: mine at {url}" in found.stderr, "the endpoint's own name, though there is a folder"


# ---- what a run's model brings --------------------------------------------------------------------------------------


TRAINED = "prompt compact with a system prompt of its own, tools DrawHorizontalLineByY, Crop"
OWN_PROMPT = "You see for yourself. Tools: Crop(image, box) DrawHorizontalLineByY(image, y) Be brief."


def settings(folder: str) -> dict[str, Any]:
    return json.loads((Path(folder) / "charts" / "settings.json").read_text())


def test_a_runs_model_is_evaluated_as_it_was_trained_with_its_tools_started(here: Path) -> None:
    found = evaluate("runs/demo/v-toolrl")
    assert found.exception is None, found.exception
    assert (
        "format hermes, prompt compact with a system prompt of its own, tools DrawHorizontalLineByY, Crop"
        in found.stderr
    )
    used = settings("out-0")
    assert (used["format"], used["prompt"], used["max_rounds"], used["max_tokens"]) == ("hermes", "compact", 3, 24)
    assert used["tools"] == ["Crop", "DrawHorizontalLineByY"]
    line = (here / "out-0" / "charts" / "trajectories.jsonl").read_text()
    assert OWN_PROMPT in line, "the run's own words, with the tools where it wants them"
    assert used["system_prompt"] == "You see for yourself. {tools} Be brief."


def test_what_is_said_goes_before_what_was_trained(here: Path) -> None:
    said = ["--format", "openthinkimg", "--prompt", "full", "--max-rounds", 1, "--max-tokens", 5, "--no-tools"]
    found = evaluate("runs/demo/v-toolrl", *said)
    assert found.exception is None, found.exception
    used = settings(f"out-{len(said)}")
    assert (used["format"], used["prompt"], used["max_rounds"], used["max_tokens"]) == ("openthinkimg", "full", 1, 5)
    assert used["tools"] == []


def test_a_model_of_nobodys_run_is_asked_as_is_documented(here: Path) -> None:
    evaluate("mine", "--max-tokens", 4)
    used = settings("out-2")
    assert (used["format"], used["prompt"], used["max_rounds"], used["tools"]) == ("openthinkimg", "full", 6, [])


def test_an_exported_model_brings_the_same(here: Path) -> None:
    assert export("runs/demo/v-toolrl").exception is None
    shutil.rmtree(here / "runs")
    check_checkpoint(here / "exported")
    trained = read_trained(here / "exported")
    assert isinstance(trained, Trained)
    assert [tool.name for tool in trained.tools] == ["ruler", "cutter"]
    assert "v-toolrl" in (here / "exported" / "README.md").read_text()
    found = ask("exported")
    assert found.exception is None, found.exception
    assert (
        "format hermes, prompt compact with a system prompt of its own, tools DrawHorizontalLineByY, Crop"
        in found.stderr
    )
    assert OWN_PROMPT in (here / "asked.jsonl").read_text()


def test_an_exported_adapter_is_a_whole_model(here: Path) -> None:
    assert export("adapter").exception is None
    check_checkpoint(here / "exported")
    assert not (here / "exported" / "adapter_config.json").exists()


def test_servers_and_no_tools_at_once_are_refused(here: Path) -> None:
    found = ask("mine", "--server", "http://127.0.0.1:9", "--no-tools")
    assert "--no-tools" in str(found.exception)


def test_a_checkpoint_of_training_is_exported_without_what_only_training_needs(here: Path) -> None:
    checkpoint = shutil.copytree(here / "mine", here / "runs/demo/stages/sft/checkpoint-8")
    for name in ("optimizer.pt", "trainer_state.json", "complete.json", "rng_state.pth"):
        (checkpoint / name).write_text("")
    assert export("runs/demo/sft/checkpoint-8").exception is None
    assert not {"optimizer.pt", "trainer_state.json", "complete.json", "rng_state.pth"} & {
        path.name for path in (here / "exported").iterdir()
    }


# ---- the gateway, and a manifest on this machine --------------------------------------------------------------------


def test_a_gateways_model_is_named_relative_to_its_file_and_is_asked_as_it_was_trained(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "gateway.yaml").write_text(
        "servers: [{url: 'http://127.0.0.1:9'}]\nmodels: [{name: mine, model: runs/demo/v-toolrl}]\n"
    )
    monkeypatch.chdir("/")
    (upstream,) = read_config(here / "gateway.yaml").models
    served = upstream_model(upstream, 60)
    assert type(served.format).__name__ == "Hermes"
    assert (served.prompt, served.rounds, served.tokens_per_turn) == ("compact", 3, 24)
    assert served.tools == ("DrawHorizontalLineByY", "Crop")
    assert served.words == "You see for yourself. {tools} Be brief."


def test_a_gateways_model_that_is_not_there_is_refused_with_its_name(here: Path) -> None:
    with pytest.raises(UserError, match=r"models\.mine: .*it is a run, not a model"):
        upstream_model(Upstream(name="mine", model="runs/demo"), 60)
    server, url = start()
    server.shutdown()
    served = upstream_model(Upstream(name="mine", model=f"{url}#two", format="hermes"), 60)
    assert type(served.format).__name__ == "Hermes"


@pytest.mark.parametrize("uri", ["mine", "adapter", "runs/demo/sft", "runs/demo/base"])
def test_a_manifest_on_this_machine_may_start_from_what_is_here(
    here: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "job.yaml").write_text(MANIFEST.replace('"preset://tiny"', f'"{uri}"'))
    monkeypatch.chdir("/")
    prepared = prepare(here / "job.yaml", here / "runs" / "next")
    context = Context(prepared.job, prepared.run, data_folder=here)
    assert context.load("base").processor.image_processor.size["longest_edge"] == 9216


@pytest.mark.parametrize(
    ("uri", "said"), [("runs/demo", "it is a run, not a model"), ("orphan", "base=MODEL"), ("./gone", "no folder")]
)
def test_a_manifest_that_starts_from_what_is_no_model_is_refused_before_anything_starts(
    here: Path, uri: str, said: str
) -> None:
    (here / "job.yaml").write_text(MANIFEST.replace('"preset://tiny"', f'"{uri}"'))
    with pytest.raises(ManifestError) as refused:
        prepare(here / "job.yaml", here / "runs" / "next")
    assert "spec.model.uri" in str(refused.value)
    assert said in str(refused.value)
    assert not (here / "runs" / "next").exists()

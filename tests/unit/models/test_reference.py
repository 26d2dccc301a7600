"""One grammar of models: what each way of naming one means, and what is refused with which words."""

import json
from pathlib import Path

import pytest

from tests.support.models.model_folders import MANIFEST
from thinkimg.errors import UserError
from thinkimg.models.reference import Adapter, Endpoint, Folder, Hub, Model, Preset, Reader


def read(written: str, **where: object) -> Model:
    return Reader(**where).read(written)  # type: ignore[arg-type]


def refusal(written: str, **where: object) -> str:
    with pytest.raises(UserError) as refused:
        read(written, **where)
    return str(refused.value)


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen3_vl"}')
    return folder


def adapter(folder: Path, **settings: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **settings}))
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a run in runs/demo."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "demo"
    checkpoint(run / "base")
    checkpoint(run / "stages" / "sft" / "model")
    checkpoint(run / "stages" / "v-toolrl" / "model")
    checkpoint(run / "stages" / "v-toolrl" / "checkpoint-50")
    checkpoint(run / "stages" / "v-toolrl" / "extended" / "checkpoint-7")
    (run / "stages" / "table").mkdir()
    (run / "plots").mkdir()
    (run / "manifest.yaml").write_text(MANIFEST)
    (run / "run.json").write_text(json.dumps({"manifest": MANIFEST, "job": "demo", "seed": 7}))
    return tmp_path


@pytest.mark.parametrize(
    ("written", "folder"),
    [
        ("runs/demo/v-toolrl", "stages/v-toolrl/model"),
        ("runs/demo/v-toolrl/", "stages/v-toolrl/model"),
        ("./runs/demo/v-toolrl", "stages/v-toolrl/model"),
        ("runs/demo/stages/v-toolrl", "stages/v-toolrl/model"),
        ("runs/demo/stages/v-toolrl/model", "stages/v-toolrl/model"),
        ("runs/demo/v-toolrl/model", "stages/v-toolrl/model"),
        ("runs/demo/stages/v-toolrl/checkpoint-50", "stages/v-toolrl/checkpoint-50"),
        ("runs/demo/v-toolrl/checkpoint-50", "stages/v-toolrl/checkpoint-50"),
        ("runs/demo/stages/v-toolrl/extended/checkpoint-7", "stages/v-toolrl/extended/checkpoint-7"),
        ("runs/demo/base", "base"),
    ],
)
def test_a_stage_of_a_run_is_found_in_every_spelling_and_brings_what_it_was_trained_with(
    here: Path, written: str, folder: str
) -> None:
    found = read(written)
    assert found.source == Folder(here / "runs" / "demo" / folder)
    assert found.place is not None
    assert found.place.run == here / "runs" / "demo"
    assert found.trained is not None
    assert (found.trained.format, found.trained.prompt, found.trained.max_rounds) == ("hermes", "compact", 3)
    assert found.trained.tool_names == ("DrawHorizontalLineByY", "Crop")
    assert (found.trained.min_pixels, found.trained.max_pixels, found.trained.max_tokens) == (4096, 9216, 24)
    assert found.trained.call_seconds == 45


def test_from_inside_of_a_run_a_stage_is_named_alone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here / "runs" / "demo")
    assert read("v-toolrl").source == Folder(here / "runs/demo/stages/v-toolrl/model")
    assert read("Qwen/Qwen3-VL").source == Hub("Qwen/Qwen3-VL"), "not a stage of this run"


def test_a_stage_that_was_trained_without_tools_brings_none(here: Path) -> None:
    checkpoint(here / "runs/demo/stages/plain/model")
    found = read("runs/demo/plain").trained
    assert found is not None
    assert found.tools == ()


def test_a_run_is_no_model_and_names_those_that_it_has(here: Path) -> None:
    for written in ("runs/demo", "runs/demo/stages"):
        said = refusal(written)
        assert "it is a run, not a model" in said
        assert "base" in said
        assert "runs/demo/sft" in said
        assert "runs/demo/v-toolrl" in said


def test_a_stage_that_is_not_there_is_refused_with_the_nearest_name(here: Path) -> None:
    said = refusal("runs/demo/v-tolrl")
    assert "it has no stage 'v-tolrl'" in said
    assert 'Did you mean "v-toolrl"?' in said
    assert "has no model" in refusal("runs/demo/table")
    assert "checkpoint-9 is not there" in refusal("runs/demo/v-toolrl/checkpoint-9")


def test_a_folder_of_a_run_that_is_no_stage_is_refused(here: Path) -> None:
    assert "exists and is no model" in refusal("runs/demo/plots")


def test_an_existing_folder_wins_over_the_hubs_name_and_hf_forces_the_hub(here: Path) -> None:
    assert read("Qwen/Qwen2.5-VL-3B-Instruct").source == Hub("Qwen/Qwen2.5-VL-3B-Instruct")
    checkpoint(here / "Qwen" / "Qwen2.5-VL-3B-Instruct")
    found = read("Qwen/Qwen2.5-VL-3B-Instruct")
    assert found.source == Folder(here / "Qwen" / "Qwen2.5-VL-3B-Instruct")
    assert str(found) == f"model: folder {here / 'Qwen' / 'Qwen2.5-VL-3B-Instruct'}"
    assert read("hf://Qwen/Qwen2.5-VL-3B-Instruct").source == Hub("Qwen/Qwen2.5-VL-3B-Instruct")


def test_a_folder_that_is_no_model_is_refused_although_the_hub_has_the_name(here: Path) -> None:
    (here / "Qwen" / "mine").mkdir(parents=True)
    said = refusal("Qwen/mine")
    assert "config.json" in said
    assert "adapter_config.json" in said
    assert "hf://" in said
    (here / "model.bin").write_text("")
    assert "is no folder" in refusal("model.bin")


def test_a_path_that_is_not_there_is_no_name_of_the_hub(here: Path) -> None:
    for written in ("models/of/mine", "./mine", "/models/mine", "~/mine", "../mine", "my model"):
        assert "there is no folder" in refusal(written)


def test_a_revision_is_of_the_hub(here: Path) -> None:
    assert read("Qwen/Qwen3-VL", revision="abc").source == Hub("Qwen/Qwen3-VL", "abc")
    assert read("hf://Qwen/Qwen3-VL@refs/pr/1").source == Hub("Qwen/Qwen3-VL", "refs/pr/1")
    assert str(read("Qwen/Qwen3-VL@v1")) == "model: hub model Qwen/Qwen3-VL at revision v1"
    assert "has no revision abc" in refusal("runs/demo/sft", revision="abc")


def test_an_endpoint_is_its_address_and_the_models_name(here: Path) -> None:
    found = read("https://host/v1#org/gpt-4.1:latest")
    assert found.source == Endpoint("https://host/v1", "org/gpt-4.1:latest")
    assert "Write https://host/v1#NAME" in refusal("https://host/v1")
    assert "Write https://host/v1#NAME" in refusal("https://host/v1#")


def test_presets_and_claims_have_their_scheme(here: Path) -> None:
    assert read("preset://tiny").source == Preset("tiny")
    checkpoint(here / "claims" / "models" / "mine")
    assert read("pvc://models/mine", claims=here / "claims").source == Folder(here / "claims" / "models" / "mine")
    assert "in pods only" in refusal("pvc://models/mine")


def test_what_is_not_understood_is_refused_with_the_grammar(here: Path) -> None:
    for written in ("s3://bucket/model", "", "  "):
        assert "owner/name" in refusal(written)
    assert "no name of a model on the hub" in refusal("hf://a/b/c")


def test_relative_paths_are_below_the_folder_that_is_given(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    checkpoint(other / "mine")
    assert read("mine", folder=other).source == Folder(other / "mine")
    assert read("mine").source == Hub("mine")


def test_an_adapter_names_its_base_in_the_same_grammar(here: Path) -> None:
    base = checkpoint(here / "base-model")
    found = read(str(adapter(here / "one", base_model_name_or_path="base-model")))
    assert found.source == Adapter(here / "one", Folder(base))
    adapter(here / "two", base_model_name_or_path="Qwen/Qwen3-VL", revision="v2")
    assert read("two").source == Adapter(here / "two", Hub("Qwen/Qwen3-VL", "v2"))
    adapter(here / "three", base_model_name_or_path="runs/demo/sft")
    assert read("three").source == Adapter(here / "three", Folder(here / "runs/demo/stages/sft/model"))
    adapter(here / "four", base_model_name_or_path="three")
    assert read("four").source == Adapter(here / "four", read("three").source)  # type: ignore[arg-type]
    assert read("two", base="base-model").source == Adapter(here / "two", Folder(base)), "told otherwise"


@pytest.mark.parametrize(
    ("base", "said"),
    [
        (None, "names no base model"),
        ("/gone/away", "there is no folder /gone/away"),
        ("one", "names itself"),
        ("https://host/v1#gpt", "has no weights here"),
    ],
)
def test_an_adapter_without_its_base_is_refused_with_the_remedy(here: Path, base: str | None, said: str) -> None:
    adapter(here / "one", base_model_name_or_path=base)
    refused = refusal("one")
    assert said in refused
    assert "--model-args base=MODEL" in refused


def test_the_base_of_a_run_that_downloads_it_is_what_the_manifest_names(here: Path) -> None:
    run = here / "runs" / "hub"
    text = MANIFEST.replace('uri: "preset://tiny"', 'uri: "hf://Qwen/Qwen3-VL", revision: v3')
    (run / "stages").mkdir(parents=True)
    (run / "base").mkdir()
    (run / "manifest.yaml").write_text(text)
    (run / "run.json").write_text(json.dumps({"manifest": text, "job": "demo", "seed": 1}))
    found = read("runs/hub/base")
    assert found.source == Hub("Qwen/Qwen3-VL", "v3")
    assert found.trained is not None
    assert found.trained.format == "hermes"


def test_a_preset_that_a_run_has_not_made_yet_is_refused(here: Path) -> None:
    (here / "runs/demo/base/config.json").unlink()
    assert "has not made its base" in refusal("runs/demo/base")


def test_a_run_from_a_cluster_has_models_and_says_nothing_of_their_training(here: Path) -> None:
    for name in ("run.json", "manifest.yaml"):
        (here / "runs/demo" / name).unlink()
    found = read("runs/demo/v-toolrl")
    assert found.source == Folder(here / "runs/demo/stages/v-toolrl/model")
    assert found.trained is None


def test_a_manifest_that_cannot_be_read_is_refused_not_ignored(here: Path) -> None:
    (here / "runs/demo/manifest.yaml").write_text("kind: [")
    assert "manifest cannot be read" in refusal("runs/demo/v-toolrl")

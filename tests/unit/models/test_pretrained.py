"""Models are loaded whole, adapters merged into the base that they name, and what is not whole is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration

from tests.support.models.model_folders import save_adapter, save_model
from tests.support.models.tiny_world import picture, processor, untrained
from thinkimg.errors import UserError
from thinkimg.models import pretrained, tiny
from thinkimg.models.loading import Loading
from thinkimg.models.pretrained import LoadedModel, load_model
from thinkimg.models.reference import Reader


def load(written: Path | str, how: Loading = Loading(), **where: Any) -> LoadedModel:
    return load_model(Reader(**where).read(str(written)), how)


def refusal(written: Path | str, **where: Any) -> str:
    with pytest.raises(UserError) as refused:
        load(written, **where)
    return str(refused.value)


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(20, 60)[None]
    with torch.no_grad():
        return model.eval()(input_ids=ids, mm_token_type_ids=torch.zeros_like(ids)).logits


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("made") / "model")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return shutil.copytree(made, tmp_path / "model")


@pytest.fixture
def no_weights_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("weights are read")

    monkeypatch.setattr(pretrained, "_load_weights", read)


def test_a_folder_is_loaded(made: Path) -> None:
    assert torch.equal(logits(load(made).model), logits(untrained()))


# ---- adapters -------------------------------------------------------------------------------------------------------


def test_an_adapter_is_merged_into_its_base(made: Path, tmp_path: Path) -> None:
    expected = logits(save_adapter(tmp_path / "adapter", made))
    loaded = load(tmp_path / "adapter")
    assert torch.allclose(logits(loaded.model), expected, atol=1e-5)
    assert float((expected - logits(untrained())).abs().max()) > 0.1, "the adapter does nothing"
    assert type(loaded.model) is Qwen3VLForConditionalGeneration, "nothing of peft is left around it"


def test_a_merged_model_is_saved_as_a_plain_one(made: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", made)
    loaded = load(tmp_path / "adapter")
    loaded.save(tmp_path / "merged")
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    assert torch.equal(logits(load(tmp_path / "merged").model), logits(loaded.model))


def test_an_adapter_on_an_adapter_is_merged_after_it(made: Path, tmp_path: Path) -> None:
    first = save_adapter(tmp_path / "first", made).merge_and_unload()
    expected = logits(save_adapter(tmp_path / "second", tmp_path / "first", seed=8, model=first))
    assert torch.allclose(logits(load(tmp_path / "second").model), expected, atol=1e-4)


def test_the_base_may_be_named_from_outside(made: Path, tmp_path: Path) -> None:
    expected = logits(save_adapter(tmp_path / "adapter", "/gone/away"))
    assert torch.allclose(logits(load(tmp_path / "adapter", base=str(made)).model), expected, atol=1e-5)


def test_an_adapter_that_was_saved_with_its_processor_keeps_it(made: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", made)
    own = tiny.build_processor(processor().tokenizer)
    own.image_processor.size = {"shortest_edge": 32**2, "longest_edge": 32**2}
    own.save_pretrained(tmp_path / "adapter")
    loaded = load(tmp_path / "adapter")
    assert loaded.family.image_tokens(picture()) < load(made).family.image_tokens(picture())


@pytest.mark.usefixtures("no_weights_are_read")
def test_an_adapter_of_another_architecture_is_refused_before_weights_are_read(made: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", made)
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    rename(weights, lambda name: name.replace("language_model.layers.0", "decoder.block.0"))
    said = refusal(tmp_path / "adapter")
    assert "decoder.block.0" in said
    assert "made for another model" in said
    assert "--model-args base=MODEL" in said


@pytest.mark.usefixtures("no_weights_are_read")
def test_an_adapter_of_the_language_model_alone_is_refused_not_passed_over(made: Path, tmp_path: Path) -> None:
    """Its layers have other names than those of the model with eyes; other programs merge nothing and say nothing."""
    save_adapter(tmp_path / "adapter", made)
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    rename(weights, lambda name: name.replace("model.language_model.layers", "model.layers"))
    assert "changes the layer model.layers.0" in refusal(tmp_path / "adapter")


@pytest.mark.usefixtures("no_weights_are_read")
def test_an_adapter_of_another_size_is_refused_before_weights_are_read(made: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", made)
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    rename(weights, lambda name: name, lambda tensor: torch.cat([tensor, tensor], 1))
    assert "a model of another size" in refusal(tmp_path / "adapter")


def rename(
    path: Path, name: Callable[[str], str], tensor: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor
) -> None:
    from safetensors.torch import load_file, save_file

    save_file({name(key): tensor(value).contiguous() for key, value in load_file(path).items()}, path)


def test_an_adapter_of_another_method_or_without_weights_is_refused(made: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "prompts", made, peft_type="PROMPT_TUNING")
    assert "of type PROMPT_TUNING" in refusal(tmp_path / "prompts")
    save_adapter(tmp_path / "empty", made)
    (tmp_path / "empty" / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors" in refusal(tmp_path / "empty")


def test_an_adapter_beside_the_configuration_of_its_base_is_an_adapter(made: Path, tmp_path: Path) -> None:
    expected = logits(save_adapter(tmp_path / "adapter", made))
    shutil.copy(made / "config.json", tmp_path / "adapter")
    assert torch.allclose(logits(load(tmp_path / "adapter").model), expected, atol=1e-5)


def test_an_adapter_and_a_whole_model_in_one_folder_are_refused(folder: Path, made: Path) -> None:
    save_adapter(folder, "/gone")
    assert "holds an adapter and a whole model" in refusal(folder, base=str(made))


# ---- what is not whole ----------------------------------------------------------------------------------------------


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def without_a_part(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))


def without_the_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n")


def without_processor(folder: Path) -> None:
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def typeless(folder: Path) -> None:
    (folder / "config.json").write_text('{"hidden_size": 4}')


@pytest.mark.usefixtures("no_weights_are_read")
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_weights, ["there are no weights"]),
        (without_a_part, ["1 of 2 files", "model-00002-of-00002.safetensors"]),
        (without_the_index, ["model.safetensors.index.json is missing"]),
        (cut_short, ["model.safetensors", "is cut short"]),
        (pointer, ["git lfs pull"]),
        (without_processor, ["lacks the image processor", "preprocessor_config.json"]),
        (without_tokenizer, ["lacks the tokenizer", "tokenizer.json"]),
        (config(quantization_config={"quant_method": "awq", "bits": 4}), ["is quantised (awq)"]),
        (config(model_type="llama"), ["llama is not supported", "qwen3_vl"]),
        (config(model_type="nobody_knows"), ["nobody_knows"]),
        (broken_config, ["config.json", "cannot be read"]),
        (typeless, ["names no model_type"]),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_before_weights_are_read(
    folder: Path, damage: Callable[[Path], None], said: list[str]
) -> None:
    damage(folder)
    found = refusal(folder)
    assert str(folder) in found or "not supported" in found
    for part in said:
        assert part in found


def test_weights_that_lack_a_layer_are_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    kept = {
        name: value for name, value in load_file(folder / "model.safetensors").items() if "layers.1.mlp" not in name
    }
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    assert "are incomplete" in refusal(folder)


# ---- pixels, revisions, the hub -------------------------------------------------------------------------------------


def test_pixel_limits_are_part_of_loading(made: Path) -> None:
    usual = load(made).family.image_tokens(picture(width=400, height=300))
    more = load(made, Loading(min_pixels=64 * 64, max_pixels=96 * 96))
    assert more.family.image_tokens(picture(width=400, height=300)) > usual
    assert more.processor.image_processor.size["longest_edge"] == 96 * 96


def hub_cache(root: Path, name: str, source: Path, revision: str = "main") -> None:
    """A repository as the hub's client keeps it."""
    repository = root / f"models--{name.replace('/', '--')}"
    shutil.copytree(source, repository / "snapshots" / f"commit-of-{revision}")
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / revision).write_text(f"commit-of-{revision}")


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_models_of_the_hub_are_loaded_at_their_revision(made: Path, tmp_path: Path, offline_hub: Path) -> None:
    hub_cache(offline_hub, "somebody/base", made)
    hub_cache(offline_hub, "somebody/base", save_model(tmp_path / "other", seed=3), "v3")
    assert torch.equal(logits(load("somebody/base").model), logits(untrained()))
    for found in (load("somebody/base@v3"), load("hf://somebody/base", revision="v3")):
        assert torch.equal(logits(found.model), logits(untrained(3)))
    save_adapter(
        tmp_path / "adapter", "somebody/base", seed=5, model=tiny.build_model(processor().tokenizer, 3), revision="v3"
    )
    untouched = "model.language_model.layers.0.mlp.gate_proj.weight"
    merged = load(tmp_path / "adapter").model.get_parameter(untouched)
    assert torch.equal(merged, untrained(3).get_parameter(untouched)), "not of the base at v3"


def test_an_adapter_on_the_hub_is_merged_into_its_base_on_the_hub(
    made: Path, tmp_path: Path, offline_hub: Path
) -> None:
    expected = logits(save_adapter(tmp_path / "adapter", "somebody/base"))
    hub_cache(offline_hub, "somebody/base", made)
    hub_cache(offline_hub, "somebody/adapter", tmp_path / "adapter")
    assert torch.allclose(logits(load("hf://somebody/adapter").model), expected, atol=1e-5)


def test_a_folder_of_the_same_name_does_not_stand_in_for_the_hubs(
    made: Path, tmp_path: Path, offline_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers takes the folder, even an empty one: huggingface/transformers#13836."""
    hub_cache(offline_hub, "somebody/base", made)
    expected = logits(save_adapter(tmp_path / "adapter", "hf://somebody/base"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "somebody" / "base").mkdir(parents=True)
    assert torch.equal(logits(load("hf://somebody/base").model), logits(untrained()))
    assert torch.allclose(logits(load("adapter").model), expected, atol=1e-5)
    save_model(tmp_path / "somebody" / "base", seed=3)
    assert torch.equal(logits(load("hf://somebody/base").model), logits(untrained())), "of the folder"
    assert torch.equal(logits(load("somebody/base").model), logits(untrained(3))), "of the hub"


def test_a_name_that_is_neither_here_nor_on_the_hub_is_refused_with_both(offline_hub: Path) -> None:
    said = refusal("nobody/nothing")
    assert "hub model nobody/nothing" in said
    assert "no folder nobody/nothing here" in said

"""What is trained can be saved: settings that transformers would refuse are mended, and weights come first."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, GenerationConfig

from tests.support.models.model_folders import save_model as save_tiny
from thinkimg.errors import UserError
from thinkimg.models.pretrained import LoadedModel, load_model
from thinkimg.models.reference import Folder, Model
from thinkimg.models.saving import check_can_be_saved


def with_settings(folder: Path, file: str, **settings: Any) -> Path:
    save_tiny(folder)
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return folder


def loaded_from(folder: Path) -> LoadedModel:
    return load_model(Model(str(folder), Folder(folder)))


def weights(model: Any) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in model.parameters()])


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1e-6, "do_sample": False},
        {"top_p": 0.9, "top_k": 5, "typical_p": 0.5, "min_p": 0.1, "epsilon_cutoff": 0.1},
        {"early_stopping": True, "length_penalty": 2.0, "output_scores": True, "pad_token_id": -1},
        {"use_cache": False, "cache_implementation": "static"},
    ],
    ids=str,
)
def test_settings_that_would_not_be_saved_are_left_out(tmp_path: Path, settings: dict[str, Any]) -> None:
    base = with_settings(tmp_path / "base", "generation_config.json", **settings)
    model = loaded_from(base)
    check_can_be_saved(model.model, model.processor, "spec.model.uri")
    model.save(tmp_path / "saved")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved")
    assert torch.equal(weights(again), weights(model.model))
    kept = GenerationConfig.from_pretrained(tmp_path / "saved")
    kept.validate(strict=True)
    assert kept.eos_token_id == model.model.generation_config.eos_token_id is not None


def test_settings_that_sample_are_kept(tmp_path: Path) -> None:
    model = loaded_from(with_settings(tmp_path / "base", "generation_config.json", temperature=0.7, do_sample=True))
    model.save(tmp_path / "saved")
    assert GenerationConfig.from_pretrained(tmp_path / "saved").temperature == 0.7


def test_settings_in_the_models_own_configuration_do_no_harm(tmp_path: Path) -> None:
    """Transformers refuses to save a configuration that has them."""
    model = loaded_from(with_settings(tmp_path / "base", "config.json", top_p=0.5, temperature=0.6))
    check_can_be_saved(model.model, model.processor, "spec.model.uri")
    model.save(tmp_path / "saved")


class Unsavable:
    """A processor that loads and cannot be written."""

    def save_pretrained(self, folder: str) -> None:
        raise TypeError("Object of type method is not JSON serializable")


def test_a_processor_that_cannot_be_written_is_refused_before_training(tmp_path: Path) -> None:
    model = loaded_from(save_tiny(tmp_path / "base"))
    with pytest.raises(UserError, match=r"spec\.model\.uri: what is trained from this model could not be saved: Obj"):
        check_can_be_saved(model.model, Unsavable(), "spec.model.uri")


def test_weights_are_written_whatever_fails_after_them(tmp_path: Path) -> None:
    model = loaded_from(save_tiny(tmp_path / "base"))
    broken = LoadedModel(model.model, Unsavable(), model.family, model.features, model.chat)
    with pytest.raises(TypeError):
        broken.save(tmp_path / "saved")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved")
    assert torch.equal(weights(again), weights(model.model))


def test_a_model_that_was_not_written_whole_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded_from(save_tiny(tmp_path / "base"))
    model.save(tmp_path / "saved")
    before = (tmp_path / "saved" / "model.safetensors").read_bytes()
    with torch.no_grad():
        next(model.model.parameters()).add_(1)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("transformers.modeling_utils.safe_save_file", full)
        with pytest.raises(OSError, match="No space left"):
            model.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").read_bytes() == before
    model.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").read_bytes() != before
    assert not (tmp_path / "saved.partial").exists()

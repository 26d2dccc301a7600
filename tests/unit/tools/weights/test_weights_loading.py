"""Where weights come from, and what is said of those that are not there, not whole or not what they should be."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from thinkimg.errors import UserError
from thinkimg.tools.backends.neural import weights
from thinkimg.tools.registry import load_tool

SA = ("SAM", "segment-anything")
SAM2 = ("SAM", "transformers")


def refusal_of(tool: tuple[str, str], path: Path | str, **options: object) -> UserError:
    with pytest.raises(UserError) as caught:
        load_tool(*tool, options={"weights": str(path), **options})
    return caught.value


@pytest.fixture
def sam2(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved / "sam2", tmp_path / "sam2"))


@pytest.mark.parametrize("name", ["sam", "sam/tiny.safetensors", "tiny_sam.pth"])
def test_a_folder_a_safetensors_file_and_a_pth_file_are_the_same_model(saved, name):
    tool = load_tool(*SA, options={"weights": str(saved / name)})
    loaded = tool._implementation.run.__self__.segmenter.model.sam.state_dict()
    for key, tensor in load_file(saved / "sam" / "tiny.safetensors").items():
        assert torch.equal(loaded[key], tensor), key
    assert tool.details == {"weights": str(saved / name), "device": "cpu", "dtype": "float32"}


def test_a_pth_file_may_keep_its_tensors_under_model_and_module(saved, tmp_path):
    state = load_file(saved / "sam" / "tiny.safetensors")
    torch.save({"model": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "own.pth")
    assert weights.read_state(tmp_path / "own.pth").keys() == state.keys()


def test_safetensors_are_preferred_where_both_are_there(saved, tmp_path):
    shutil.copy(saved / "sam" / "tiny.safetensors", tmp_path)
    (tmp_path / "tiny.pth").write_bytes(b"never opened")
    assert weights.find_checkpoint(tmp_path) == tmp_path / "tiny.safetensors"


def test_a_pth_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"weight": torch.zeros(2), "evil": Evil()}, tmp_path / "evil.pth")
    error = refusal_of(SA, tmp_path / "evil.pth")
    assert error.field == "options.weights"
    assert "evil.pth is cut short, or holds more than tensors; running what it holds is refused" in str(error)
    (tmp_path / "plain.bin").write_bytes(pickle.dumps(Evil()))
    refusal_of(SA, tmp_path / "plain.bin")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["sam/tiny.safetensors", "tiny_sam.pth"])
@pytest.mark.parametrize("keep", [0, 9, 20_000])
def test_a_file_that_was_cut_short_is_named(saved, tmp_path, name, keep):
    half = tmp_path / Path(name).name
    half.write_bytes((saved / name).read_bytes()[:keep])
    assert f"{half} is cut short" in str(refusal_of(SA, half))


def test_a_git_lfs_pointer_is_recognised(tmp_path, sam2):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 375042383\n"
    (tmp_path / "sam.pth").write_bytes(pointer)
    assert "sam.pth is a Git LFS pointer" in str(refusal_of(SA, tmp_path / "sam.pth"))
    (sam2 / "model.safetensors").write_bytes(pointer)
    assert "model.safetensors is a Git LFS pointer" in str(refusal_of(SAM2, sam2))


def test_missing_unknown_and_misshapen_tensors_are_named(saved, tmp_path):
    state = load_file(saved / "sam" / "tiny.safetensors")
    del state["mask_decoder.mask_tokens.weight"], state["image_encoder.neck.0.weight"]
    state["mask_decoder.mask_tokens.weight"] = torch.zeros(4, 16)
    state["prompt_encoder.extra"] = torch.zeros(1)
    save_file(state, tmp_path / "sam.safetensors")
    said = str(refusal_of(SA, tmp_path / "sam.safetensors"))
    assert "1 missing (image_encoder.neck.0.weight)" in said
    assert "1 unknown (prompt_encoder.extra)" in said
    assert "1 of another shape (mask_decoder.mask_tokens.weight is (4, 16), not (4, 32))" in said


def test_tensors_of_something_else_are_refused(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert "other.safetensors is not a checkpoint of segment-anything" in str(
        refusal_of(SA, tmp_path / "other.safetensors")
    )


@pytest.mark.parametrize("gone", ["config.json", "model.safetensors"])
def test_a_half_present_folder_is_named_with_what_it_lacks(sam2, gone):
    (sam2 / gone).unlink()
    said = str(refusal_of(SAM2, sam2))
    assert str(sam2) in said
    assert gone in said or "holds no weights" in said


def test_a_missing_shard_is_named(saved, sam2):
    state = load_file(sam2 / "model.safetensors")
    (sam2 / "model.safetensors").unlink()
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    index = {"metadata": {}, "weight_map": {name: part for part, inside in parts.items() for name in inside}}
    (sam2 / "model.safetensors.index.json").write_text(json.dumps(index))
    for part, inside in parts.items():
        save_file({name: state[name] for name in inside}, sam2 / part, metadata={"format": "pt"})
    assert load_tool(*SAM2, options={"weights": str(sam2)}).details["weights"] == str(sam2)
    (sam2 / "model-00002-of-00002.safetensors").unlink()
    assert "is half there: model-00002-of-00002.safetensors of model.safetensors.index.json missing" in str(
        refusal_of(SAM2, sam2)
    )


def test_a_folder_of_transformers_that_lacks_tensors_is_refused_not_filled_with_random_ones(sam2):
    state = load_file(sam2 / "model.safetensors")
    lost = sorted(state)[5]
    del state[lost]
    save_file(state, sam2 / "model.safetensors", metadata={"format": "pt"})
    said = str(refusal_of(SAM2, sam2))
    assert "does not fit this model: tensors 1 missing" in said


def test_a_file_is_no_model_of_transformers_and_a_model_of_transformers_no_checkpoint(saved):
    assert "is a file; models of transformers are folders" in str(refusal_of(SAM2, saved / "tiny_sam.pth"))
    assert "is not a checkpoint of segment-anything" in str(refusal_of(SA, saved / "sam2"))


def test_a_released_sam2_is_of_the_video_model_whose_memory_is_not_needed(sam2):
    """As `facebook/sam2.1-hiera-small` is: the image model's tensors among others."""
    state = load_file(sam2 / "model.safetensors")
    others = {"memory_encoder.projection.weight": torch.zeros(2), "no_object_pointer": torch.zeros(1)}
    save_file(state | others, sam2 / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((sam2 / "config.json").read_text())
    (sam2 / "config.json").write_text(
        json.dumps(config | {"model_type": "sam2_video", "architectures": ["Sam2VideoModel"]})
    )
    tool = load_tool(*SAM2, options={"weights": str(sam2)})
    loaded = tool._implementation.run.__self__.segmenter.model.model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items() if name in loaded)


def test_several_checkpoints_in_one_folder_must_be_told_apart(saved, tmp_path):
    for name in ("a.pth", "b.pth"):
        shutil.copy(saved / "tiny_sam.pth", tmp_path / name)
    assert "holds several weights (a.pth, b.pth); name one of them" in str(refusal_of(SA, tmp_path))
    (tmp_path / "empty").mkdir()
    assert "holds no weights" in str(refusal_of(SA, tmp_path / "empty"))


@pytest.mark.parametrize("wrong", ["/nowhere/sam.pth", "not a repository", "too/many//slashes", "hf://org"])
def test_what_is_neither_path_nor_repository_is_refused(wrong):
    assert "is neither a file, nor a folder, nor a hub repository" in str(refusal_of(SA, wrong))


def test_a_repository_comes_from_the_cache_without_a_network(saved, tmp_path, monkeypatch):
    """As `huggingface_hub` lays a downloaded snapshot out."""
    monkeypatch.setenv("THINKIMG_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--tiny-sam2"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(saved / "sam2", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    tool = load_tool(*SAM2, options={"weights": "hf://org/tiny-sam2"})
    assert tool.details["weights"] == "hf://org/tiny-sam2"
    with pytest.raises(
        UserError, match="org/other is not on this machine; bring it with: thinkimg weights fetch org/other"
    ):
        load_tool(*SAM2, options={"weights": "org/other"})


def test_a_gpu_that_is_not_there_is_refused(saved):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    error = refusal_of(SA, saved / "sam", device="cuda:3")
    assert error.field == "options.device"
    assert "cuda:3 is not there: this process sees 0 GPUs" in str(error)


def test_device_and_dtype_are_chosen_and_shown(saved):
    tool = load_tool(*SAM2, options={"weights": str(saved / "sam2"), "device": "cpu", "dtype": "bfloat16"})
    assert tool.details == {"weights": str(saved / "sam2"), "device": "cpu", "dtype": "bfloat16"}
    assert tool._implementation.run.__self__.segmenter.model.model.dtype == torch.bfloat16

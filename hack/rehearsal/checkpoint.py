"""A checkpoint of a given shape with random weights, written part by part so that it never stands in memory as a whole:
what a download from the hub would have left, tokenizer included."""

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForImageTextToText, Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from rehearsal.shapes import SPECIAL, Shape

ROOT = Path(__file__).parents[2]
FIRST_SPECIAL = 151643
MERGES = 12_000
PART = 2 * 2**30
"""Bytes of a file of weights, at most (one tensor may be larger)."""


def write_checkpoint(shape: Shape, folder: Path, seed: int = 0) -> int:
    """Configuration, processor, tokenizer and weights in bfloat16, by the names that the hub's checkpoint has; how many
    parameters there are."""
    folder.mkdir(parents=True)
    settings = {"config": shape.config, "preprocessor_config": shape.images, "generation_config": shape.generation}
    if shape.videos:
        settings["video_preprocessor_config"] = shape.videos
    for name, content in settings.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    template = files("trl").joinpath("chat_templates", shape.template).read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template)
    build_tokenizer(shape).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template)
    return _write_weights(shape, folder, seed)


def build_tokenizer(shape: Shape) -> Qwen2Tokenizer:
    """Qwen's kind of tokenizer, with the real special tokens at their real ids: byte-level BPE that has learned this
    repository's texts, filled up with entries that no text is cut into."""
    learned = Tokenizer(models.BPE())
    learned.normalizer = normalizers.NFC()
    cut = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated")
    learned.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(False, use_regex=False)])
    learned.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=MERGES + 256, initial_alphabet=alphabet, show_progress=False)
    learned.train([str(path) for path in _texts()], trainer)
    model = json.loads(learned.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    vocabulary |= {f"<unused {number}>": number for number in range(len(vocabulary), FIRST_SPECIAL)}
    ids = {token: number for number, token in enumerate((*SPECIAL, *shape.added), FIRST_SPECIAL)}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary | ids, merges=[tuple(merge) for merge in model["merges"]], unk_token=None,
        eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=list(SPECIAL[1:]),
        model_max_length=32768,
    )  # fmt: skip
    tokenizer.add_tokens(list(shape.added))
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in ids} == ids
    return tokenizer


def _texts() -> list[Path]:
    return sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("thinkimg/**/*.py")])


def _write_weights(shape: Shape, folder: Path, seed: int) -> int:
    generator = torch.Generator().manual_seed(seed)
    count, written = 0, []
    for number, part in enumerate(_parts(_shapes_of(shape, folder)), 1):
        tensors = {name: _random(name, size, generator) for name, size in part}
        count += sum(tensor.numel() for tensor in tensors.values())
        path = folder / f"part-{number}.safetensors"
        save_file(tensors, path, metadata={"format": "pt"})
        written.append((path, list(tensors)))
    if shape.parameters is not None and count != shape.parameters:
        raise ValueError(f"{shape.name} has {count} parameters here, {shape.parameters} on the hub")
    _name_parts(folder, written, 2 * count)
    return count


def _shapes_of(shape: Shape, folder: Path) -> Iterator[tuple[str, torch.Size]]:
    """Names as in the hub's checkpoint; a tied head has none of its own."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    model.tie_weights()
    for name, tensor in model.named_parameters():
        for ours, theirs in shape.renamed:
            if name.startswith(ours):
                name = theirs + name.removeprefix(ours)
                break
        yield name, tensor.shape


def _parts(tensors: Iterator[tuple[str, torch.Size]]) -> Iterator[list[tuple[str, torch.Size]]]:
    part: list[tuple[str, torch.Size]] = []
    size = 0
    for name, shape in tensors:
        if part and size + 2 * shape.numel() > PART:
            yield part
            part, size = [], 0
        part.append((name, shape))
        size += 2 * shape.numel()
    yield part


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """As a model of the family begins: normal with a standard deviation of 0.02, norms 1, biases 0."""
    if name.endswith(".bias"):
        return torch.zeros(shape, dtype=torch.bfloat16)
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(0.0, 0.02, generator=generator)


def _name_parts(folder: Path, written: list[tuple[Path, list[str]]], size: int) -> None:
    places = {}
    for number, (path, names) in enumerate(written, 1):
        name = f"model-{number:05d}-of-{len(written):05d}.safetensors"
        path.rename(folder / name)
        places |= dict.fromkeys(names, name)
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")

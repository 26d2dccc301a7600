"""What a folder must hold to be loaded as a model, checked before anything is loaded or paid for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thinkimg.errors import UserError

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model", "vocab.txt", "spiece.model")


def is_model(folder: Path) -> bool:
    """Whether the folder claims to hold a checkpoint or an adapter; `check_checkpoint` says whether it is whole."""
    return (folder / CONFIG).is_file() or (folder / ADAPTER).is_file()


def read_json(path: Path) -> dict[str, Any]:
    """Raises `UserError` naming the file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {error}", str(path)) from error
    if not isinstance(document, dict):
        raise UserError("is no JSON object", str(path))
    return document


def check_checkpoint(folder: Path, processor: bool = True, weights: bool = True) -> None:
    """Args:
        processor, weights: False where they are not needed from this folder.

    Raises:
        UserError: configuration, processor or weights are missing or cut short; the file is named.
    """
    if "model_type" not in read_json(folder / CONFIG):
        raise UserError("names no model_type: it is not the configuration of a model", str(folder / CONFIG))
    if processor and not has_processor(folder):
        missing = " and ".join(
            f"{what} ({', '.join(names)})"
            for what, names in (("the image processor", _PROCESSORS), ("the tokenizer", _TOKENIZERS[:3]))
            if not any((folder / name).is_file() for name in names)
        )
        raise UserError(f"the folder lacks {missing}; copy it from the model that it was trained from", str(folder))
    if weights:
        _check_weights(folder)


def has_processor(folder: Path) -> bool:
    """Whether image processor and tokenizer are there."""
    return all(any((folder / name).is_file() for name in names) for names in (_PROCESSORS, _TOKENIZERS))


def check_adapter(folder: Path) -> dict[str, Any]:
    """Its configuration.

    Raises:
        UserError: the adapter cannot be merged, or its weights are missing.
    """
    settings = read_json(folder / ADAPTER)
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise UserError(f"it is an adapter of type {kind}; LORA is merged, others are not", str(folder / ADAPTER))
    found = [folder / name for name in _ADAPTER_WEIGHTS if (folder / name).is_file()]
    if not found:
        raise UserError(f"the adapter's weights are missing: {_ADAPTER_WEIGHTS[0]}", str(folder))
    _check_file(found[0])
    if any((folder / name).is_file() for name in _INDEXES) or (folder / "model.safetensors").is_file():
        raise UserError(
            f"holds an adapter and a whole model; move one of them to another folder ({ADAPTER})", str(folder)
        )
    return settings


def adapter_shapes(folder: Path) -> dict[str, list[int]]:
    """Shapes of an adapter's tensors by name, from the header of its file; empty for one in another format."""
    path = folder / _ADAPTER_WEIGHTS[0]
    return {name: entry["shape"] for name, entry in _header(path)[1].items()} if path.is_file() else {}


def _check_weights(folder: Path) -> None:
    for index in (folder / name for name in _INDEXES):
        if index.is_file():
            named = sorted(set(read_json(index).get("weight_map", {}).values()))
            missing = [name for name in named if not (folder / name).is_file()]
            if missing:
                raise UserError(
                    f"{len(missing)} of {len(named)} files of weights are missing: {_few(missing)}", str(folder)
                )
            for name in named:
                _check_file(folder / name)
            return
    found = list(_weights(folder))
    if not found:
        raise UserError("there are no weights: neither model.safetensors nor an index of its parts", str(folder))
    parts = [path.name for path in found if "-of-" in path.name]
    if parts and len(parts) == len(found):
        raise UserError(f"the weights are in parts ({_few(parts)}), and {_INDEXES[0]} is missing", str(folder))
    for path in found:
        _check_file(path)


def _weights(folder: Path) -> Iterator[Path]:
    for pattern in _WEIGHTS:
        yield from sorted(path for path in folder.glob(pattern) if path.name not in _ADAPTER_WEIGHTS)


def _check_file(path: Path) -> None:
    """Whether a file of safetensors has the length that its header says: an interrupted copy has not."""
    if path.suffix != ".safetensors":
        return
    start, header = _header(path)
    expected = start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if path.stat().st_size < expected:
        raise UserError(f"is cut short: {path.stat().st_size} of {expected} bytes", str(path))


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the data of a file of safetensors begin, and its tensors by name. Raises `UserError`."""
    with path.open("rb") as file:
        first = file.read(8)
        if first == b"version ":
            raise UserError("is a pointer of Git LFS, not the weights: `git lfs pull` fetches them", str(path))
        length = int.from_bytes(first, "little")
        try:
            if len(first) < 8 or length > path.stat().st_size:
                raise ValueError("it ends before its header does")
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
        except (ValueError, AttributeError) as error:
            raise UserError(f"is no whole file of weights: {error}", str(path)) from error
    return 8 + length, header


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")

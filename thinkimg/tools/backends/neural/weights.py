"""Weights: whether they are whole, and what they run on. Every backend with weights loads through here; where they are
is looked up in `thinkimg.tools.weights.locate`.

safetensors files are preferred; `.pth` files are read by torch's restricted unpickler, which refuses code.
"""

import json
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from thinkimg.errors import InfrastructureError, UserError
from thinkimg.tools.backends.options import WeightsOptions
from thinkimg.tools.weights.locate import locate
from thinkimg.tools.weights.store import PICKLED, SAFE, files_of

State = dict[str, torch.Tensor]
_WEIGHTS_FIELD = "options.weights"
_DEVICE_FIELD = "options.device"
_INDEX = ".index.json"


# ---- what it runs on ------------------------------------------------------------------------------------------------


def choose_device(wanted: str) -> torch.device:
    """Raises `UserError` for a GPU that is not there."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"{wanted} is not there: this process sees {count} GPUs; use auto or cpu", _DEVICE_FIELD)
    return device


def choose_dtype(wanted: str) -> torch.dtype:
    """The torch type of that name."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]


def details(options: WeightsOptions, source: str, device: torch.device) -> Mapping[str, str]:
    """What was chosen, for people."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    revision = f" at {options.revision}" if options.revision else ""
    return {
        "weights": source + revision,
        "device": f"{device} ({name})" if name else str(device),
        "dtype": options.dtype,
    }


@contextmanager
def one_machine() -> Iterator[None]:
    """A GPU without memory left is the machine's fault, not the call's."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InfrastructureError(f"the GPU's memory is full: {str(error).splitlines()[0]}") from error


# ---- where they are -------------------------------------------------------------------------------------------------


def find_checkpoint(source: Path) -> Path:
    """The one file with weights: `source` itself, or what the folder holds, safetensors first.

    Raises:
        UserError: there is none, or several.
    """
    if source.is_file():
        return source
    for endings in (SAFE, PICKLED):
        found = files_of(source, endings)
        if len(found) > 1:
            listed = ", ".join(str(path.relative_to(source)) for path in found)
            raise UserError(f"{source} holds several weights ({listed}); name one of them by its path", _WEIGHTS_FIELD)
        if found:
            return found[0]
    there = ", ".join(sorted(path.name for path in source.iterdir())) or "nothing"
    endings_text = ", ".join(SAFE + PICKLED)
    raise UserError(f"{source} holds no weights ({endings_text}); found: {there}", _WEIGHTS_FIELD)


# ---- whether they are whole -----------------------------------------------------------------------------------------


def read_state(path: Path) -> State:
    """The tensors of one file, on the CPU.

    A pickled file may keep them under `model` or `state_dict`, with names that begin with `module.`.

    Raises:
        UserError: the file is cut short, is something else, or holds more than tensors.
    """
    _refuse_pointer(path)
    if path.suffix in SAFE:
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is cut short or no safetensors file: {error}", _WEIGHTS_FIELD) from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is cut short, or holds more than tensors; running what it holds is refused. "
            "Convert it to safetensors where you trust it",
            _WEIGHTS_FIELD,
        ) from error
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile, ValueError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is cut short or no file of torch: {first}", _WEIGHTS_FIELD) from error
    return _tensors(loaded, path)


def _tensors(loaded: Any, path: Path) -> State:
    for name in ("model", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise UserError(f"{path} holds no tensors by name", _WEIGHTS_FIELD)
    return {str(name).removeprefix("module."): value for name, value in loaded.items()}


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise UserError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull`", _WEIGHTS_FIELD)


def fill(model: nn.Module, state: State, source: Path, optional: re.Pattern[str] | None = None) -> None:
    """Put `state` into `model`, every tensor of it.

    Args:
        optional: finds something in the names that may be in only one of them.

    Raises:
        UserError: tensors are missing, unknown or of another shape; the first ones are named.
    """
    own = model.state_dict()
    needed = {name for name in {*own, *state} if optional is None or not optional.search(name)}
    missing = [name for name in own if name not in state and name in needed]
    unknown = [name for name in state if name not in own and name in needed]
    shapes = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    refuse_misfit(source, missing, unknown, shapes)
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in own}, strict=False)


def refuse_misfit(source: Path, missing: Iterable[str], unknown: Iterable[str], shapes: Iterable[str]) -> None:
    """Raises `UserError` that names the first tensors that do not fit, if any."""
    faults = [("missing", list(missing)), ("unknown", list(unknown)), ("of another shape", list(shapes))]
    said = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' if names[3:] else ''})" for what, names in faults if names
    ]
    if said:
        raise UserError(f"{source} does not fit this model: tensors {'; '.join(said)}", _WEIGHTS_FIELD)


# ---- models of transformers -----------------------------------------------------------------------------------------


def locate_pretrained(options: WeightsOptions, default: str) -> Path:
    """The folder of a model of transformers.

    Raises:
        UserError: it is not there, or half there; the missing file is named.
        InfrastructureError: the hub does not answer.
    """
    folder = locate(options.weights or default, options.revision, options.trust_remote_code)
    _refuse_half_present(folder)
    return folder


def load_pretrained(kind: Any, folder: Path, options: WeightsOptions, device: torch.device) -> Any:
    """A model of transformers, whole: its own loader would fill what is missing with random numbers.

    Args:
        kind: a class with `from_pretrained`.

    Raises:
        UserError: the folder is not of such a model, lacks tensors, or wants to run code that is not trusted.
    """
    try:
        model, found = kind.from_pretrained(
            folder,
            dtype=choose_dtype(options.dtype),
            trust_remote_code=options.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(f"{folder} is not a model for {kind.__name__}: {error}", _WEIGHTS_FIELD) from error
    shapes = [str(entry) for entry in found.get("mismatched_keys", ())]
    refuse_misfit(folder, sorted(found["missing_keys"]), sorted(found.get("unexpected_keys", ())), shapes)
    return model.to(device).eval()


def load_processor(kind: Any, folder: Path, options: WeightsOptions, **settings: Any) -> Any:
    """A processor, image processor or tokenizer of transformers. Raises `UserError` if the folder has none."""
    try:
        return kind.from_pretrained(
            folder, trust_remote_code=options.trust_remote_code, local_files_only=True, **settings
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} has no {kind.__name__}: {error}", _WEIGHTS_FIELD) from error


def _refuse_half_present(folder: Path) -> None:
    """Names the file that is not there or not whole, before a loader stumbles over it."""
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; models of transformers are folders", _WEIGHTS_FIELD)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder / 'config.json'} is missing", _WEIGHTS_FIELD)
    for index in sorted(folder.glob(f"*{_INDEX}")):
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        gone = sorted(shard for shard in shards if not (folder / shard).is_file())
        if gone:
            raise UserError(f"{folder} is half there: {', '.join(gone)} of {index.name} missing", _WEIGHTS_FIELD)
    weights = files_of(folder, SAFE) or files_of(folder, PICKLED)
    if not weights:
        raise UserError(f"{folder} holds no weights ({', '.join(SAFE + PICKLED)})", _WEIGHTS_FIELD)
    for path in weights:
        _refuse_pointer(path)
        if path.suffix in SAFE:
            _refuse_cut_short(path)


def _refuse_cut_short(path: Path) -> None:
    try:
        with safe_open(path, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is cut short or no safetensors file: {error}", _WEIGHTS_FIELD) from error

"""Models of this machine and of the hub: load one with its processor, adapters merged, wrapped as an agent's model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.utils import cached_file

from thinkimg.api import BASE
from thinkimg.errors import UserError
from thinkimg.models.chat import Family, TokenModel
from thinkimg.models.checkpoint import ADAPTER, CONFIG, adapter_shapes, check_adapter, check_checkpoint, has_processor
from thinkimg.models.families import family_of, refuse_unknown
from thinkimg.models.image_features import ImageFeatures
from thinkimg.models.loading import Loading
from thinkimg.models.reference import Adapter, Endpoint, Folder, Hub, Model, Preset, Reader, Source, Weights
from thinkimg.models.saving import mend_settings, save_model
from thinkimg.models.transformers_generator import TransformersGenerator

_FROM_CACHE: dict[str, Any] = {"local_files_only": True, "_raise_exceptions_for_connection_errors": False}


@dataclass(frozen=True)
class LoadedModel:
    """A model with all that works on it. Training changes `model` in place; `chat` always speaks with its newest
    weights.

    Attributes:
        dtypes: of the parameters by name, as they were loaded. Training may hold them in float32 (see
            `thinkimg.training.precision`); they are saved as they were loaded.
    """

    model: Any
    processor: Any
    family: Family
    features: ImageFeatures
    chat: TokenModel
    dtypes: Mapping[str, torch.dtype] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtypes", {name: each.dtype for name, each in self.model.named_parameters()})

    def save(self, folder: Path) -> None:
        """See `save_model`. Weights that training holds in float32 are rounded first, in place, to the type in which
        they were loaded."""
        for name, parameter in self.model.named_parameters():
            parameter.data = parameter.data.to(self.dtypes[name])
        save_model(self.model, self.processor, folder)


def load_model(model: Model, how: Loading = Loading()) -> LoadedModel:
    """A model with weights on this machine or on the hub; an adapter is merged into its base.

    Raises:
        UserError: it is incomplete, its family is none of `FAMILIES`, it is quantised, an adapter is another model's.
            What can be seen without the weights is seen before they are read or fetched.
    """
    known = examine(model, how)
    processor, family = known.processor, known.family
    features = ImageFeatures(processor.image_processor)
    gpu = torch.cuda.is_available()
    dtype = how.dtype if how.dtype is not None else torch.bfloat16 if gpu else torch.float32
    loaded = _load_weights(known.source, dtype, how)
    mend_settings(loaded)
    loaded.to("cuda" if gpu else "cpu")
    chat = TokenModel(family, TransformersGenerator(loaded, family, features))
    return LoadedModel(loaded, processor, family, features, chat)


@dataclass(frozen=True)
class Examined:
    """A model before its weights are read."""

    source: Weights
    config: Any
    processor: Any
    family: Family


def examine(model: Model, how: Loading = Loading()) -> Examined:
    """All that can be seen of a model without its weights.

    Raises:
        UserError: see `load_model`.
    """
    model = with_weights(model, how.field)
    config, processor = _load_processor(model, how)
    _refuse_quantised(model, config, how.field)
    assert isinstance(model.source, Folder | Hub | Adapter)
    _check_files(model.source, config, how)
    family = family_of(config.model_type, processor, how.field, how.thinks(model))
    return Examined(model.source, config, processor, family)


def load_processor(model: Model, how: Loading = Loading()) -> tuple[Any, Any]:
    """Configuration and processor of a model, its pixel limits set: all that is needed where an engine elsewhere has
    the weights.

    Raises:
        UserError: they are missing, or the family is none of `FAMILIES`.
    """
    model = with_weights(model, how.field)
    return _load_processor(model, how)


def _load_processor(model: Model, how: Loading) -> tuple[Any, Any]:
    root, shown = _root(model.source), _processor_source(model.source)
    if isinstance(root, Folder):
        check_checkpoint(root.path, processor=root == shown, weights=False)
    try:
        config = AutoConfig.from_pretrained(_name(root), **_options(root, how))
        refuse_unknown(config.model_type, how.field)
        processor = AutoProcessor.from_pretrained(_name(shown), **_options(shown, how))
    except (OSError, ValueError, KeyError) as error:
        raise _unloadable(model.source, error, how.field) from error
    limit_pixels(processor.image_processor, *how.pixels(model), field=how.field)
    return config, processor


def with_weights(model: Model, field: str) -> Model:
    """The same model if it has weights of its own; what only a folder can stand for is fetched from the hub.

    Raises:
        UserError: a model behind an endpoint, or one that must be made first.
    """
    source = model.source
    if isinstance(source, Endpoint):
        raise UserError(f"{source} has no weights here; take --backend openai", field)
    if isinstance(source, Preset):
        raise UserError(f"{source} is made by a run; name its base, as in runs/demo/{BASE}", field)
    source = _out_of_the_shadow(source, field)
    if isinstance(source, Hub) and _is_adapter_on_hub(source, field):
        source = _fetched(source, field)
    return replace(model, source=source)


def _out_of_the_shadow(source: Weights, field: str) -> Weights:
    """Where a folder has the name of a repository, transformers takes the folder, whatever was asked for. The
    repository's own files are named instead."""
    if isinstance(source, Adapter):
        return replace(source, base=_out_of_the_shadow(source.base, field))
    return _fetched(source, field) if isinstance(source, Hub) and Path(source.name).exists() else source


def _fetched(source: Hub, field: str) -> Weights:
    """The repository's files as a folder of the hub's cache."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(source.name, revision=source.revision))
    except OSError as error:
        raise UserError(f"{source} cannot be fetched: {error}", field) from error
    fetched = Reader(field).read(str(folder)).source
    assert isinstance(fetched, Folder | Adapter)
    return fetched


def limit_pixels(image_processor: Any, least: int | None, most: int | None, field: str = "--model") -> None:
    """Let an image processor resize pictures to at least `least` and at most `most` pixels; None: as it was.

    Raises:
        UserError: the processor knows no such limits.
    """
    if least is None and most is None:
        return
    size = dict(getattr(image_processor, "size", None) or {})
    if size.get("shortest_edge") is None or size.get("longest_edge") is None:
        raise UserError("this model's image processor has no limits in pixels", field)
    least = least if least is not None else min(size["shortest_edge"], most or size["shortest_edge"])
    most = most if most is not None else max(size["longest_edge"], least)
    image_processor.size = {"shortest_edge": least, "longest_edge": most}


# ---- what is checked before weights are read ------------------------------------------------------------------------


def _is_adapter_on_hub(source: Hub, field: str) -> bool:
    """Raises `UserError`: there is no such repository, or the hub cannot be reached and the cache has nothing of it."""
    where: dict[str, Any] = {"revision": source.revision, "_raise_exceptions_for_missing_entries": False}
    try:
        if cached_file(source.name, CONFIG, **where) is not None:
            return False
        return cached_file(source.name, ADAPTER, **where) is not None
    except OSError as error:
        if cached_file(source.name, ADAPTER, **where, **_FROM_CACHE) is not None:
            return True
        raise _unloadable(source, error, field) from error


def _refuse_quantised(model: Model, config: Any, field: str) -> None:
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        return
    method = (settings if isinstance(settings, Mapping) else vars(settings)).get("quant_method", "unknown method")
    raise UserError(
        f"{model.source} is quantised ({method}): it can be neither trained nor merged, nor generate in this process. "
        "Name the model that it was made from; an engine that serves quantised weights can be asked as an endpoint",
        field,
    )


def _check_files(source: Weights, config: Any, how: Loading) -> None:
    """Of every folder that takes part."""
    if isinstance(source, Folder):
        check_checkpoint(source.path, processor=False)
    if isinstance(source, Adapter):
        _check_files(source.base, config, how)
        check_adapter(source.path)
        _check_shapes(source, config, how)


def _check_shapes(adapter: Adapter, config: Any, how: Loading) -> None:
    """Whether every layer that the adapter changes is there and of its size. peft passes over what does not fit, or
    ends in a trace after the weights have been read."""
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(config, trust_remote_code=how.trust_remote_code)
    layers = {name: module for name, module in whole.named_modules() if isinstance(module, torch.nn.Linear)}
    experts = {name for name, _ in whole.named_modules() if name.endswith(".experts")}  # peft checks their sizes
    for key, shape in adapter_shapes(adapter.path).items():
        name, _, end = key.removeprefix("base_model.model.").partition(".lora_")
        if end not in ("A.weight", "B.weight") or name.removesuffix(".base_layer") in experts:
            continue
        if name not in layers:
            raise UserError(
                f"the adapter {adapter.path} changes the layer {name}, which {adapter.base} ({config.model_type}) does "
                "not have: it was made for another model. Give its own: --model-args base=MODEL",
                how.field,
            )
        layer = layers[name]
        found, own = (shape[1], layer.in_features) if end == "A.weight" else (shape[0], layer.out_features)
        if found != own:
            raise UserError(
                f"the adapter {adapter.path} has {found} features for the layer {name}, {adapter.base} has {own}: it "
                "was made for a model of another size. Give its own: --model-args base=MODEL",
                how.field,
            )


# ---- reading --------------------------------------------------------------------------------------------------------


def _load_weights(source: Weights, dtype: Any, how: Loading) -> Any:
    try:
        if isinstance(source, Adapter):
            from peft import PeftModel

            base = _load_weights(source.base, dtype, how)
            return PeftModel.from_pretrained(base, source.path).merge_and_unload()
        loaded: Any
        loaded, found = AutoModelForImageTextToText.from_pretrained(  # type: ignore[misc]
            _name(source), dtype=dtype, output_loading_info=True, **_options(source, how)
        )
    except (OSError, ValueError, KeyError) as error:
        raise _unloadable(source, error, how.field) from error
    if missing := sorted(found["missing_keys"]):  # type: ignore[has-type]
        said = f"the weights of {source} are incomplete: {len(missing)} are missing, {missing[0]} first"
        raise UserError(said, how.field)
    return loaded


def _root(source: Source) -> Folder | Hub:
    """What has the configuration: below all adapters."""
    while isinstance(source, Adapter):
        source = source.base
    assert isinstance(source, Folder | Hub)
    return source


def _processor_source(source: Source) -> Folder | Hub:
    """An adapter may have been saved with the processor that it was trained with."""
    while isinstance(source, Adapter):
        if has_processor(source.path):
            return Folder(source.path)
        source = source.base
    return _root(source)


def _name(source: Folder | Hub) -> str:
    return source.name if isinstance(source, Hub) else str(source.path)


def _options(source: Folder | Hub, how: Loading) -> dict[str, Any]:
    options: dict[str, Any] = {"trust_remote_code": how.trust_remote_code}
    if isinstance(source, Hub) and source.revision:
        options["revision"] = source.revision
    return options


def _unloadable(source: Source, error: Exception, field: str) -> UserError:
    hint = f" There is no folder {source.name} here, either." if isinstance(source, Hub) else ""
    return UserError(f"no model can be loaded from {source}: {error}{hint}", field)

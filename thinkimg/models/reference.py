"""How a model is named, the same in every command and in a manifest.

    runs/demo/v-toolrl               a stage of a run; also runs/demo/stages/v-toolrl, …/model, …/checkpoint-50
    runs/demo/base                   the model before any stage
    models/mine                      a folder with a checkpoint (config.json) or an adapter (adapter_config.json)
    Qwen/Qwen2.5-VL-3B-Instruct      the hub's, if there is no such folder; Qwen/…@REVISION
    hf://Qwen/Qwen2.5-VL-3B-Instruct the hub's, whatever folders there are
    https://host/v1#gpt-4.1          the model gpt-4.1 of an OpenAI-compatible endpoint
    preset://tiny                    the demo's, made on this machine
    pvc://claim/path                 a folder on a claim, in a pod

Here is found what a name means; `thinkimg.models.pretrained` and `thinkimg.models.backends` load it.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from thinkimg.api import BASE, suggestion
from thinkimg.errors import UserError, without_passwords
from thinkimg.models.checkpoint import ADAPTER, CONFIG, check_adapter, check_checkpoint, is_model, read_json
from thinkimg.models.runs import Origin, Place, models_of, origin_of, place_of
from thinkimg.models.trained import Trained, read_trained, trained_by

_HUB = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?)(@(?P<revision>[\w./-]+))?")
GRAMMAR = "write a folder, a stage of a run, owner/name or hf://owner/name, https://host/v1#NAME, or preset://tiny"
_ENDPOINT = re.compile(r"(?P<base_url>https?://[^\s#]+)#(?P<name>\S+)")


@dataclass(frozen=True)
class Folder:
    """A checkpoint on this machine."""

    path: Path

    def __str__(self) -> str:
        return f"folder {self.path}"


@dataclass(frozen=True)
class Hub:
    """A repository of the hub; without a revision its newest."""

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hub model {self.name}" + (f" at revision {self.revision}" if self.revision else "")


@dataclass(frozen=True)
class Adapter:
    """A folder with low-rank adapters, and the model that they change."""

    path: Path
    base: "Folder | Hub | Adapter"

    def __str__(self) -> str:
        return f"adapter {self.path}, merged into {self.base}"


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible address."""

    base_url: str
    name: str

    def __str__(self) -> str:
        return without_passwords(f"{self.name} at {self.base_url}")


@dataclass(frozen=True)
class Preset:
    """A model that a job makes itself."""

    name: str

    def __str__(self) -> str:
        return f"preset {self.name}"


def check_source(source: "Source") -> None:
    """Whether the folders of a model are whole, as far as that can be seen without loading it.

    Raises:
        UserError: a file is missing, cut short or of another kind; it is named.
    """
    if isinstance(source, Adapter):
        check_adapter(source.path)
        check_source(source.base)
    if isinstance(source, Folder):
        check_checkpoint(source.path)


def absolute(written: str, folder: Path) -> str:
    """The same model's name, understood from anywhere: what is a folder below `folder` becomes its whole path."""
    if "://" in written:
        return written
    path = (folder / Path(written).expanduser()).resolve()
    place = place_of(path)
    return str(path) if path.exists() or (place is not None and place.known) else written


Weights = Folder | Hub | Adapter
Source = Weights | Endpoint | Preset


@dataclass(frozen=True)
class Model:
    """What a name means.

    Attributes:
        written: the name.
        source: where the model is.
        place: the stage of a run that it is, if so.
        trained: what it was trained to be asked with, where that is known.
    """

    written: str
    source: Source
    place: Place | None = None
    trained: Trained | None = None

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.source.name if isinstance(self.source, Endpoint) else Path(self.written).name

    def __str__(self) -> str:
        stage = f" (stage {self.place.stage} of {self.place.run})" if self.place else ""
        return f"model: {self.source}{stage}" + (f"; {self.trained}" if self.trained else "")


@dataclass(frozen=True)
class Reader:
    """Reads names of models.

    Args:
        field: what messages call the place where the name stands.
        folder: what relative paths are below.
        claims: where a pod has the claims of `pvc://`; None anywhere else.
        revision: of a model of the hub, if the name says none.
        base: the model that an adapter changes, instead of the one that it names.
    """

    field: str = "--model"
    folder: Path = Path()
    claims: Path | None = None
    revision: str | None = None
    base: str | None = None

    def read(self, written: str) -> Model:
        """Raises `UserError`: the name means nothing here; what is missing and what there is are said."""
        scheme, separator, rest = written.partition("://")
        if not separator:
            return self._path_or_hub(written)
        if scheme == "hf":
            return self._hub(written, rest)
        if scheme in ("http", "https"):
            return self._endpoint(written)
        if scheme == "preset":
            return Model(written, Preset(rest))
        if scheme == "pvc":
            if self.claims is None:
                self._refuse(f"{written} cannot be read here: claims are mounted in pods only")
            return self._in_folder(written, self.claims / rest)
        self._refuse(f"{written!r} is not understood; {GRAMMAR}")

    def _path_or_hub(self, written: str) -> Model:
        """An existing folder wins."""
        if not written.strip():
            self._refuse(f"no model is named; {GRAMMAR}")
        path = (self.folder / Path(written).expanduser()).resolve()
        place = place_of(path)
        if path.exists() or (place and (place.known or self._goes_into(place))):
            return self._in_folder(written, path)
        if _HUB.fullmatch(written) is None:
            self._refuse(f"there is no folder {path}, and {written!r} is no name of a model on the hub")
        return self._hub(written, written)

    def _goes_into(self, place: Place) -> bool:
        """Whether a path leads into a run from outside. One that begins in a run may as well be the hub's name."""
        here = self.folder.resolve()
        return place.run not in (here, *here.parents)

    def _hub(self, written: str, name: str) -> Model:
        found = _HUB.fullmatch(name)
        if found is None:
            self._refuse(f"{name!r} is no name of a model on the hub: write owner/name, or owner/name@revision")
        return Model(written, Hub(found["name"], found["revision"] or self.revision))

    def _endpoint(self, written: str) -> Model:
        found = _ENDPOINT.fullmatch(written)
        if found is None:
            self._refuse(f"which model of the endpoint? Write {written.rstrip('#')}#NAME")
        return Model(written, Endpoint(found["base_url"], found["name"]))

    # ---- folders --------------------------------------------------------------------------------------------------

    def _in_folder(self, written: str, path: Path) -> Model:
        if self.revision is not None:
            self._refuse(f"{path} is a folder, which has no revision {self.revision}; hf:// before a name is the hub's")
        place = place_of(path)
        if place is not None and place.known:
            return self._of_stage(written, place)
        if place is not None and not is_model(path) and (place.stage is None or not path.exists()):
            missing = f"it has no stage {place.stage!r}" if place.stage else "it is a run, not a model"
            self._refuse(f"there is no trained model {written}; {place.run}: {missing}. {_models_hint(place)}")
        return Model(written, self._weights(path), trained=read_trained(path))

    def _of_stage(self, written: str, place: Place) -> Model:
        assert place.stage is not None
        origin, folder = origin_of(place.run), place.folder
        trained = read_trained(folder) or _trained(origin, place.stage)
        if is_model(folder):
            return Model(written, self._weights(folder), place, trained)
        if place.stage == BASE and not place.rest and origin is not None:
            return Model(written, self._downloaded(origin, place), place, trained)
        missing = f"has no {CONFIG}" if folder.is_dir() else "is not there"
        self._refuse(f"stage {place.stage} of {place.run} has no model: {folder} {missing}. {_models_hint(place)}")

    def _downloaded(self, origin: Origin, place: Place) -> Source:
        """The base of a run that has no copy of it: the manifest says which it is."""
        spec = origin.job.spec.model
        reader = replace(self, folder=origin.folder or self.folder, revision=spec.revision)
        found = reader.read(spec.uri).source
        if isinstance(found, Preset):
            self._refuse(f"{place.run} has not made its base, {found}, yet: `thinkimg run` makes it")
        return found

    def _weights(self, path: Path) -> Weights:
        if not path.is_dir():
            self._refuse(f"{path} is no folder")
        if not is_model(path):
            self._refuse(
                f"{path} exists and is no model: it has neither {CONFIG} (a checkpoint) nor {ADAPTER} (an adapter); "
                "hf:// before a name takes the hub's"
            )
        return self._adapter(path) if (path / ADAPTER).is_file() else Folder(path)

    def _adapter(self, path: Path) -> Adapter:
        settings = read_json(path / ADAPTER)
        named = str(self.base or settings.get("base_model_name_or_path") or "")
        remedy = f"give --model-args base=MODEL, or write base_model_name_or_path into its {ADAPTER}"
        if not named:
            self._refuse(f"the adapter {path} names no base model: {remedy}")
        # peft writes the path as it was given: relative to a folder that is not known any more.
        reader = Reader(self.field, self.folder, self.claims, base=None)
        if not self.base and not (self.folder / named).exists() and (path / named).exists():
            reader = replace(reader, folder=path)
        is_folder = (reader.folder / named).exists()
        if is_folder and (reader.folder / named).resolve() == path:
            self._refuse(f"the adapter {path} names itself as its base model: {remedy}")
        if not self.base and not is_folder:
            reader = replace(reader, revision=settings.get("revision"))
        try:
            base = reader.read(named).source
        except UserError as error:
            said = str(error).removeprefix(f"{self.field}: ")
            self._refuse(f"the base model of the adapter {path} is not found: {said}. {remedy[0].upper()}{remedy[1:]}")
        if not isinstance(base, Folder | Hub | Adapter):
            self._refuse(f"the base model of the adapter {path} is {base}, which has no weights here: {remedy}")
        return Adapter(path, base)

    def _refuse(self, why: str) -> NoReturn:
        raise UserError(why, self.field)


def _trained(origin: Origin | None, stage: str) -> Trained | None:
    if origin is None or stage not in (BASE, *(known.name for known in origin.job.spec.stages)):
        return None
    return trained_by(origin.manifest, origin.job, stage)


def _models_hint(place: Place) -> str:
    known = models_of(place.run)
    if not known:
        return "It has no models yet."
    near = suggestion(place.stage, known) if place.stage else ""
    named = "Its models: " + ", ".join(str(place.run / name) for name in known)
    return f"{near} {named}".strip()

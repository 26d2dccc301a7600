"""Where weights lie on this machine. Nothing here asks a network.

Looked through are, in this order: a path, the folder of weights (`THINKIMG_WEIGHTS`, or `~/.cache/thinkimg/weights`),
and the cache of huggingface_hub. The folder can be copied as it is to a machine without a network.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from thinkimg import jsonfile
from thinkimg.api.server_contract import Variable
from thinkimg.extras import is_there
from thinkimg.results import WeightsRecord
from thinkimg.tools.weights.repository import MAIN, Repository

RECORD = "thinkimg-weights.json"
SAFE = (".safetensors",)
PICKLED = (".pth", ".pt", ".bin")
CODE = (".py",)

Place = Literal["folder", "hub's cache"]


def folder() -> Path:
    """The folder of weights; it need not be there."""
    named = os.environ.get(Variable.WEIGHTS)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "thinkimg" / "weights"


def record_of(place: Path) -> WeightsRecord | None:
    """What was fetched into a repository's folder. Raises `UserError` for a record that cannot be read."""
    path = place / RECORD
    return jsonfile.read(path, WeightsRecord) if path.is_file() else None


def records(root: Path) -> list[tuple[Path, WeightsRecord]]:
    """Every repository of a folder of weights."""
    found = ((path.parent, record_of(path.parent)) for path in sorted(root.glob(f"*/*/{RECORD}")))
    return [(place, record) for place, record in found if record is not None]


def find(repository: Repository, root: Path | None = None, code: bool = False) -> tuple[Path, Place] | None:
    """Its folder, or its file, if all of it is here.

    Args:
        root: another folder of weights.
        code: its Python code is needed, too.
    """
    place = (root or folder()) / repository.folder
    record = record_of(place)
    whole = record is not None and record.whole and (record.code or not code)
    if record is not None and (repository.file in record.files if repository.file else whole):
        return place / repository.file, "folder"
    cached = _in_hub_cache(repository)
    return None if cached is None else (cached, "hub's cache")


def _in_hub_cache(repository: Repository) -> Path | None:
    if not is_there("huggingface_hub"):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        revision = None if repository.revision == MAIN else repository.revision
        snapshot = Path(snapshot_download(repository.name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    if repository.file:
        return snapshot / repository.file if (snapshot / repository.file).is_file() else None
    return snapshot if files_of(snapshot, SAFE) or files_of(snapshot, PICKLED) else None


def files_of(place: Path, endings: Iterable[str]) -> list[Path]:
    """Files below a folder by the ends of their names, sorted."""
    return sorted(path for path in place.rglob("*") if path.suffix in endings and path.is_file())

"""Results of tools, kept by content: the same call on the same pixels is made once, across epochs, ranks and runs."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinkimg import wire
from thinkimg.cache import BoundedCache
from thinkimg.errors import ModelError
from thinkimg.image import ImageDecodeError
from thinkimg.tools.tool import ToolResult, ToolSchema

_ENTRY_OVERHEAD = 500  # bytes that an entry takes beside its pictures, roughly


@dataclass(frozen=True)
class CachedError:
    """A deterministic error of the model's: told alike to all who wait for one request. What the tool found on looking
    (`refused`) is kept like a result; errors of arguments cost nothing to find again."""

    message: str
    kind: str

    def as_error(self) -> ModelError:
        return ModelError(self.message, self.kind)

    @property
    def is_kept(self) -> bool:
        return self.kind == "refused"


Entry = ToolResult | CachedError


def cache_key(schema: ToolSchema, arguments: Mapping[str, Any], hashes: Mapping[str, str], caller: str = "") -> str:
    """Hex digest of caller, tool, version, what computes it, and arguments, in which handles are replaced by the hashes
    of their images. Values of image parameters are marked as pictures or as written, so that no argument can be written
    which looks like a picture.

    Args:
        hashes: handle -> sha256 of the images that the arguments name.
        caller: whose results these are; empty where there is one user only.
    """
    named = {
        name: _by_content(value, hashes) if name in schema.image_parameters else value
        for name, value in arguments.items()
    }
    what = [caller, schema.name, schema.version, schema.computed_by, named]
    canonical = json.dumps(what, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _by_content(value: Any, hashes: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return ["several", *(_by_content(item, hashes) for item in value)]
    known = isinstance(value, str) and value in hashes
    return ["picture", hashes[value]] if known else ["written", value]


class ResultCache:
    """Memory first, then files.

    Args:
        max_entries, max_bytes: bounds of what is kept in memory; of whoever has most there, the least recently used
            goes first.
        folder: where results are kept on disk, one file each; None for memory only. Several processes may share it:
            files are written aside and renamed, and one that is damaged counts as absent. Nothing there is ever
            deleted but damaged files.
    """

    def __init__(self, max_entries: int = 8192, max_bytes: int = 512 * 1024 * 1024, folder: Path | None = None) -> None:
        self._entries: BoundedCache[str, Entry] = BoundedCache(max_bytes, max_entries=max_entries, fair=True)
        self.folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        """From memory only."""
        return self._entries.get(key)

    def put(self, key: str, entry: Entry, caller: str = "") -> None:
        """In memory only. Whose entries take most gives way first."""
        self._entries.put(key, entry, _size(entry), caller)

    def read_file(self, key: str) -> Entry | None:
        """From disk; None if it is not there or damaged."""
        path = self._path(key)
        if path is None:
            return None
        try:
            content = path.read_bytes()
        except OSError:
            return None
        try:
            return _decode_entry(content)
        except (ValueError, KeyError, TypeError):
            path.unlink(missing_ok=True)
            return None

    def write_file(self, key: str, entry: Entry) -> None:
        """To disk, whole or not at all. A full or read-only disk is not an error: the cache only saves time."""
        path = self._path(key)
        if path is None:
            return
        try:
            path.parent.mkdir(exist_ok=True)
            _write_whole(path, _encode_entry(entry))
        except (OSError, wire.WireError):
            pass

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / key[:2] / f"{key[2:]}.msgpack"


def _size(entry: Entry) -> int:
    if isinstance(entry, CachedError):
        return _ENTRY_OVERHEAD
    return _ENTRY_OVERHEAD + 4 * len(entry.text) + sum(len(image.data) for image in entry.images)


def _encode_entry(entry: Entry) -> bytes:
    if isinstance(entry, CachedError):
        document: dict[str, Any] = {"error": {"message": entry.message, "kind": entry.kind}}
    else:
        document = {"result": wire.result_document(entry)}
    body = wire.encode(document, wire.MSGPACK)
    return hashlib.sha256(body).digest() + body


def _decode_entry(content: bytes) -> Entry:
    digest, body = content[:32], content[32:]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("the file is damaged")
    document = wire.decode(body, wire.MSGPACK)
    if "error" in document:
        return CachedError(document["error"]["message"], document["error"]["kind"])
    try:
        return wire.result_of(document["result"])
    except ImageDecodeError as error:
        raise ValueError(str(error)) from error


def _write_whole(path: Path, content: bytes) -> None:
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(partial, path)
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise

"""What a result is made of: field to value, compared by name; and what files hold, as digests. Stages of a job,
evaluations and syntheses are compared with these alone."""

import hashlib
import importlib.util
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

Identity = dict[str, Any]
"""Field to value, as in `{"grpo.learningRate": 1e-06}`; a field without a value has its default."""

_SECRET = re.compile(
    r"(.*[_-])?((api|access|auth|bearer|hf|private|secret|subscription|client)[_-]?)*"
    r"(key|token|secret|password|passwd|authorization|credentials?|signature|sig)",
    re.IGNORECASE,
)
_TOKENS_OF_TEXT = re.compile(r"(.*[_-])?(stop|eos|bos|pad|unk|sep|start|end|image|chat)[_-]token", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}
_PICTURES = re.compile(rb'"([^"\\]+\.(?:png|jpe?g|webp|gif|bmp|tiff?))"', re.IGNORECASE)
_WHOLE = 16 * 2**20
"""Bytes up to which a model's file is read whole; of larger ones, both ends: training changes every tensor."""


def digest_of(value: Any) -> str:
    """Of anything that JSON can say; twelve characters."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def differences(before: Identity, now: Identity) -> dict[str, tuple[Any, Any]]:
    """Field to its value before and now, where these are not the same; None: the default."""
    names = [*now, *(name for name in before if name not in now)]
    return {name: (before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)}


def flat(path: str, value: Any, without: Collection[str] = ()) -> Identity:
    """The values below `path`, each under its whole path (`extra.top_p`); empty ones are left out.

    Args:
        without: paths that are left out, with all that is below them.
    """
    if path in without:
        return {}
    if isinstance(value, Mapping) and value:
        return {name: one for key, part in value.items() for name, one in flat(f"{path}.{key}", part, without).items()}
    return {} if value in (None, {}, []) else {path: value}


def is_secret(name: str) -> bool:
    """Whether a setting of this name holds a key or a password, which is part of no identity and written nowhere."""
    words = re.sub("(?<=[a-z])(?=[A-Z])", "_", name)
    return _SECRET.fullmatch(words) is not None and _TOKENS_OF_TEXT.fullmatch(words) is None


def without_secrets(value: Any) -> Any:
    """The same without what `is_secret`, however deep."""
    if isinstance(value, Mapping):
        return {str(name): without_secrets(part) for name, part in value.items() if not is_secret(str(name))}
    if isinstance(value, list | tuple):
        return [without_secrets(part) for part in value]
    return value


def address_of(url: str) -> str:
    """An http address in one spelling, without user, password and keys: `HTTP://me:pw@LocalHost:80/v1/` is
    `http://127.0.0.1/v1`."""
    parts = urlsplit(url.strip())
    host = (parts.hostname or "").rstrip(".")
    host = "127.0.0.1" if host in ("localhost", "::1") else host
    try:
        port = parts.port
    except ValueError:
        return url  # refused by whoever connects
    shown = f"[{host}]" if ":" in host else host
    if port is not None and port != _PORTS.get(parts.scheme):
        shown += f":{port}"
    query = urlencode(sorted((name, text) for name, text in parse_qsl(parts.query) if not is_secret(name)))
    return urlunsplit((parts.scheme, shown, parts.path.rstrip("/"), query, ""))


# ---- files ----------------------------------------------------------------------------------------------------------


def content_of(path: Path, pictures: Path | None = None) -> str:
    """Of a file with the pictures that it names, or of a folder.

    Args:
        pictures: a folder where those may be that are not beside the file.
    """
    whole = hashlib.sha256()
    for file in _files(path):
        whole.update(str(file.relative_to(path)).encode() if path.is_dir() else b"")
        data = file.read_bytes()
        whole.update(hashlib.sha256(data).digest())
        for name in dict.fromkeys(_PICTURES.findall(data)) if file.suffix in (".json", ".jsonl") else ():
            places = [folder / name.decode(errors="replace") for folder in (file.parent, pictures) if folder]
            if found := next((place for place in places if place.is_file()), None):
                whole.update(hashlib.sha256(found.read_bytes()).digest())
    return whole.hexdigest()[:16]


def module_content(module: str) -> str | None:
    """Of a module's file; None where there is none."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None  # refused by whoever calls it
    return content_of(Path(found.origin)) if found and found.origin and Path(found.origin).is_file() else None


def weights_of(folder: Path) -> str:
    """Of a model's folder."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        size = path.stat().st_size
        whole.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            whole.update(file.read(_WHOLE))
            file.seek(max(0, size - _WHOLE))
            whole.update(file.read())
    return whole.hexdigest()[:16]


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path] * path.is_file()

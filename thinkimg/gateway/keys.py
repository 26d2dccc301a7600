"""API keys: hashed in a file, each with its own rate, quotas and number of calls at once.

A key is 256 bits of randomness, so that one SHA-256 of it tells as little as a slow hash of a password would. The file
is read again when it changes: a key that is added or revoked counts within a second, without a restart.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from thinkimg.errors import UserError

KEY = re.compile(r"ti-([0-9a-f]{8})-[A-Za-z0-9_\-]{43}")
"""A key as it is presented; its first group is the id."""
_PARTIAL = "partial-"


class ApiKey(BaseModel):
    """A key as the file has it: everything but the key itself.

    Attributes:
        id: part of the key; what logs and metrics say.
        name: whose it is.
        sha256: hex digest of the whole key.
        created, expires: UTC; an expired key counts as none.
        requests_per_minute: HTTP requests, and calls of a batch one by one; a minute's worth may come at once. None:
            `limits.requests_per_minute`.
        calls_per_day: tool calls and chat completions of a UTC day.
        tokens_per_day: of models, read and written, of a UTC day. The completion during which they run out is finished.
        in_flight: requests under way at once, and the calls of a batch one by one. None: a share, see `Callers.share`.
        metrics: it may read `/metrics`, from which can be told how much others do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[0-9a-f]{8}$")
    name: str = Field(min_length=1, max_length=100)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: AwareDatetime
    expires: AwareDatetime | None = None
    requests_per_minute: int | None = Field(default=None, ge=1)
    calls_per_day: int | None = Field(default=None, ge=1)
    tokens_per_day: int | None = Field(default=None, ge=1)
    in_flight: int | None = Field(default=None, ge=1)
    metrics: bool = False


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[ApiKey]


# ---- the file -------------------------------------------------------------------------------------------------------


def read_keys(path: Path) -> list[ApiKey]:
    """Raises `UserError` that names what is wrong in the file."""
    try:
        return _Document.model_validate_json(path.read_bytes()).keys
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", "keys_file") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} is no file of keys: {where} {first['msg']}", "keys_file") from error


def add_key(path: Path, name: str, **limits: object) -> str:
    """Make a key, write its hash to the file (which is made if it is missing), and return it: nobody can read it again.

    Args:
        limits: fields of `ApiKey`: `expires`, `requests_per_minute`, `calls_per_day`, `tokens_per_day`, `in_flight`,
            `metrics`.

    Raises:
        UserError: the name is taken, a limit is wrong, the file cannot be read or written.
    """
    number = secrets.token_hex(4)
    key = f"ti-{number}-{secrets.token_urlsafe(32)}"
    try:
        entry = ApiKey.model_validate(
            {"id": number, "name": name, "sha256": digest(key), "created": datetime.now(UTC), **limits}
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(first["msg"], ".".join(map(str, first["loc"]))) from error
    with _locked(path) as path:
        keys = read_keys(path) if path.exists() else []
        if any(other.name == name for other in keys):
            raise UserError(f"there is a key of that name in {path}; remove it first, or take another name", "NAME")
        _write(path, [*keys, entry])
    return key


def remove_key(path: Path, name: str) -> None:
    """Take a key out of the file. Raises `UserError` if there is none of that name or id."""
    with _locked(path) as path:
        keys = read_keys(path)
        left = [key for key in keys if name not in (key.name, key.id)]
        if len(left) == len(keys):
            raise UserError(f"there is no key {name!r} in {path}", "NAME")
        _write(path, left)


@contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """The file itself, while nobody else writes it: a link is followed, so that what it leads to is changed, and stays
    what every gateway reads. What writers that were killed have left is removed."""
    try:
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.parent / f".{path.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}", "--file") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for left in path.parent.glob(f".{path.name}.{_PARTIAL}*"):
            left.unlink(missing_ok=True)
        yield path
    finally:
        os.close(descriptor)


def _write(path: Path, keys: list[ApiKey]) -> None:
    """Whole or not at all, and readable by its owner only."""
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{_PARTIAL}")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps(_Document(keys=keys).model_dump(mode="json", exclude_defaults=True), indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def digest(key: str) -> str:
    """What the file has instead of a key: SHA-256, hex."""
    return hashlib.sha256(key.encode()).hexdigest()


def redacted(text: str) -> str:
    """Text for a log, in which a caller may have put a key where none belongs."""
    return KEY.sub(r"ti-\1-***", text)

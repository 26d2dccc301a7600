"""API keys: hashed in a file, compared in constant time, each with its own rate, quota and number of calls at once.

A key is 256 bits of randomness, so that one SHA-256 of it tells as little as a slow hash of a password would. The file
is read again when it changes: a key that is added or revoked counts within a second, without a restart.
"""

import base64
import binascii
import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from thinkimg.errors import UserError

_KEY = re.compile(r"ti-([0-9a-f]{8})-[A-Za-z0-9_\-]{43}")
_CHECK_SECONDS = 1.0
_DAY_SECONDS = 86_400
log = logging.getLogger(__name__)


class ApiKey(BaseModel):
    """A key as the file has it: everything but the key itself.

    Attributes:
        id: part of the key; what logs and metrics say.
        name: whose it is.
        sha256: hex digest of the whole key.
        created, expires: UTC; an expired key counts as none.
        requests_per_minute: HTTP requests; a minute's worth may come at once.
        calls_per_day: tool calls and chat completions of a UTC day.
        in_flight: requests under way at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[0-9a-f]{8}$")
    name: str = Field(min_length=1, max_length=100)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: AwareDatetime
    expires: AwareDatetime | None = None
    requests_per_minute: int | None = Field(default=None, ge=1)
    calls_per_day: int | None = Field(default=None, ge=1)
    in_flight: int | None = Field(default=None, ge=1)


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
        limits: fields of `ApiKey`: `expires`, `requests_per_minute`, `calls_per_day`, `in_flight`.

    Raises:
        UserError: the name is taken, a limit is wrong, the file cannot be read or written.
    """
    number = secrets.token_hex(4)
    key = f"ti-{number}-{secrets.token_urlsafe(32)}"
    try:
        entry = ApiKey.model_validate(
            {"id": number, "name": name, "sha256": _digest(key), "created": datetime.now(UTC), **limits}
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(first["msg"], ".".join(map(str, first["loc"]))) from error
    with _locked(path):
        keys = read_keys(path) if path.exists() else []
        if any(other.name == name for other in keys):
            raise UserError(f"there is a key of that name in {path}; remove it first, or take another name", "NAME")
        _write(path, [*keys, entry])
    return key


def remove_key(path: Path, name: str) -> None:
    """Take a key out of the file. Raises `UserError` if there is none of that name or id."""
    with _locked(path):
        keys = read_keys(path)
        left = [key for key in keys if name not in (key.name, key.id)]
        if len(left) == len(keys):
            raise UserError(f"there is no key {name!r} in {path}", "NAME")
        _write(path, left)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.parent / f".{path.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}", "--file") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, keys: list[ApiKey]) -> None:
    """Whole or not at all, and readable by its owner only."""
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps(_Document(keys=keys).model_dump(mode="json", exclude_none=True), indent=2) + "\n")
    os.replace(partial, path)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def redacted(text: str) -> str:
    """Text for a log, in which a caller may have put a key where none belongs."""
    return _KEY.sub(r"ti-\1-***", text)


# ---- who calls ------------------------------------------------------------------------------------------------------


class LimitError(Exception):
    """A caller asks for more than it may.

    Attributes:
        kind: `rate_limited`, `quota_exceeded` or `overloaded`.
        retry_after: seconds.
    """

    def __init__(self, kind: str, detail: str, retry_after: float) -> None:
        super().__init__(detail)
        self.kind = kind
        self.retry_after = retry_after


class Caller:
    """Who sends requests, and what it has used. Counted by this process, since its start."""

    def __init__(self, key: ApiKey | None) -> None:
        self.key = key
        self.in_flight = 0
        self._tokens = float(key.requests_per_minute or 0) if key else 0.0
        self._filled = time.monotonic()
        self._day = 0
        self._calls = 0

    @property
    def id(self) -> str:
        """For logs, metrics and what is held for this caller."""
        return self.key.id if self.key else "anonymous"

    def enter(self) -> None:
        """A request begins; `leave` must follow. Raises `LimitError`."""
        if self.key and self.key.in_flight is not None and self.in_flight >= self.key.in_flight:
            raise LimitError("overloaded", f"{self.in_flight} requests of this key are under way", 0.1)
        if self.key and self.key.requests_per_minute is not None:
            self._take(self.key.requests_per_minute)
        self.in_flight += 1

    def leave(self) -> None:
        self.in_flight -= 1

    def spend(self, calls: int = 1) -> None:
        """Tool calls or chat completions are about to be made. Raises `LimitError` when the day's are used up."""
        if self.key is None or self.key.calls_per_day is None:
            return
        now = time.time()
        if self._day != now // _DAY_SECONDS:
            self._day, self._calls = int(now // _DAY_SECONDS), 0
        if self._calls + calls > self.key.calls_per_day:
            detail = f"this key may make {self.key.calls_per_day} calls a day"
            raise LimitError("quota_exceeded", detail, _DAY_SECONDS - now % _DAY_SECONDS)
        self._calls += calls

    def _take(self, per_minute: int) -> None:
        """One token of a bucket that holds a minute's worth."""
        now = time.monotonic()
        self._tokens = min(float(per_minute), self._tokens + (now - self._filled) * per_minute / 60)
        self._filled = now
        if self._tokens < 1:
            detail = f"this key may send {per_minute} requests a minute"
            raise LimitError("rate_limited", detail, (1 - self._tokens) * 60 / per_minute)
        self._tokens -= 1


class Callers:
    """Finds out who calls.

    Args:
        path: file of keys; None: everybody may call, and all are one caller.

    Raises:
        UserError: the file cannot be read. Later on, the keys that were last read stay in force.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._anonymous = Caller(None)
        self._callers: dict[str, Caller] = {}
        self._checked = time.monotonic()
        self._seen = _stamp(path)
        if path is not None:
            self._use(read_keys(path))

    @property
    def open(self) -> bool:
        """Whether calls need no key."""
        return self._path is None

    def identify(self, headers: Mapping[bytes, bytes]) -> Caller | None:
        """None: the key is missing, wrong or expired.

        Args:
            headers: names in lower case. `Authorization: Bearer KEY`, or Basic with the key as the password, which is
                what clients make of `http://any:KEY@host`.
        """
        if self._path is None:
            return self._anonymous
        self._look_again(self._path)
        presented = _presented(headers.get(b"authorization", b""))
        match = _KEY.fullmatch(presented)
        caller = self._callers.get(match.group(1)) if match else None
        expected = caller.key.sha256 if caller and caller.key else "0" * 64
        if not hmac.compare_digest(_digest(presented), expected) or caller is None or caller.key is None:
            return None
        return None if caller.key.expires and caller.key.expires <= datetime.now(UTC) else caller

    def _look_again(self, path: Path) -> None:
        now = time.monotonic()
        if now - self._checked < _CHECK_SECONDS:
            return
        self._checked = now
        stamp = _stamp(path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._use(read_keys(path))
        except UserError as error:
            log.error("the keys stay as they were: %s", error)

    def _use(self, keys: list[ApiKey]) -> None:
        """A key that is known keeps its counters."""
        callers = {}
        for key in keys:
            caller = self._callers.get(key.id) or Caller(key)
            caller.key = key
            callers[key.id] = caller
        self._callers = callers


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size) if status else None


def _presented(header: bytes) -> str:
    scheme, _, value = header.decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""

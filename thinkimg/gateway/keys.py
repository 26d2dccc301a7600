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
_MOST_SHARES = 4
log = logging.getLogger(__name__)


class ApiKey(BaseModel):
    """A key as the file has it: everything but the key itself.

    Attributes:
        id: part of the key; what logs and metrics say.
        name: whose it is.
        sha256: hex digest of the whole key.
        created, expires: UTC; an expired key counts as none.
        requests_per_minute: HTTP requests, and the calls of a batch one by one; a minute's worth may come at once. None:
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
        file.write(json.dumps(_Document(keys=keys).model_dump(mode="json", exclude_defaults=True), indent=2) + "\n")
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
        kind: `rate_limited` or `quota_exceeded`.
        retry_after: seconds.
    """

    def __init__(self, kind: str, detail: str, retry_after: float) -> None:
        super().__init__(detail)
        self.kind = kind
        self.retry_after = retry_after


class Caller:
    """Who sends requests, and what it has used. Counted by this process, since its start.

    Args:
        key: None where there are no keys: then all are one caller, which has no limits but the gateway's.
        requests_per_minute: of a key that says nothing of it; None: as many as it likes.

    Attributes:
        in_flight, body_bytes: places that its requests take, and bytes of their bodies; `Slots` counts them.
    """

    def __init__(self, key: ApiKey | None, requests_per_minute: int | None = None) -> None:
        self.key = key
        self.in_flight = self.body_bytes = 0
        self._usual_rate = requests_per_minute
        self._allowance = float(self._rate or 0)
        self._filled = time.monotonic()
        self._day = self._calls = self._tokens = 0

    @property
    def id(self) -> str:
        """For logs, metrics and what is held for this caller."""
        return self.key.id if self.key else "anonymous"

    @property
    def may_read_metrics(self) -> bool:
        return self.key is None or self.key.metrics

    def admit(self) -> None:
        """A request comes: one from an allowance that grows to a minute's worth. Raises `LimitError`."""
        if self._rate is None:
            return
        now = time.monotonic()
        self._allowance = min(float(self._rate), self._allowance + (now - self._filled) * self._rate / 60)
        self._filled = now
        if self._allowance < 1:
            detail = f"this key may send {self._rate} requests a minute"
            raise LimitError("rate_limited", detail, (1 - self._allowance) * 60 / self._rate)
        self._allowance -= 1

    def charge(self, requests: int) -> None:
        """Requests that came as one: whoever sends many waits the longer before the next."""
        self._allowance -= requests

    def spend(self, calls: int = 1) -> None:
        """Tool calls or chat completions are about to be made. Raises `LimitError` when the day's are used up."""
        if self.key is None or self.key.calls_per_day is None:
            return
        self._look_at_the_day()
        if self._calls + calls > self.key.calls_per_day:
            raise self._used_up(f"this key may make {self.key.calls_per_day} calls a day")
        self._calls += calls

    def check_tokens(self) -> None:
        """A model is about to be asked. Raises `LimitError` when the day's tokens are used up."""
        if self.key is None or self.key.tokens_per_day is None:
            return
        self._look_at_the_day()
        if self._tokens >= self.key.tokens_per_day:
            raise self._used_up(f"this key may use {self.key.tokens_per_day} tokens of models a day")

    def spend_tokens(self, tokens: int) -> None:
        """A model has read and written so many."""
        self._look_at_the_day()
        self._tokens += tokens

    @property
    def _rate(self) -> int | None:
        own = self.key.requests_per_minute if self.key else None
        return self._usual_rate if own is None else own

    def _look_at_the_day(self) -> None:
        today = int(time.time() // _DAY_SECONDS)
        if self._day != today:
            self._day, self._calls, self._tokens = today, 0, 0

    @staticmethod
    def _used_up(detail: str) -> LimitError:
        return LimitError("quota_exceeded", detail, _DAY_SECONDS - time.time() % _DAY_SECONDS)


class Callers:
    """Finds out who calls.

    Args:
        path: file of keys; None: everybody may call, and all are one caller.
        requests_per_minute: of each key that says nothing of it.

    Raises:
        UserError: the file cannot be read. Later on, the keys that were last read stay in force.
    """

    def __init__(self, path: Path | None, requests_per_minute: int | None = None) -> None:
        self._path = path
        self._rate = requests_per_minute
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

    def share(self, total: int) -> int:
        """What one caller may have of something that there is so much of: all, if there is one key; half of it with two,
        a third with three, a quarter with more, so that no key takes it all from the others."""
        return max(1, total // min(max(len(self._callers), 1), _MOST_SHARES))

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
            caller = self._callers.get(key.id) or Caller(key, self._rate)
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

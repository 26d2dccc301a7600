"""Who calls: found by the key, which is compared in constant time; and what each has used."""

import base64
import binascii
import hmac
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from thinkimg.errors import UserError
from thinkimg.gateway.keys import KEY, ApiKey, digest, read_keys

_CHECK_SECONDS = 1.0
_DAY_SECONDS = 86_400
_MOST_SHARES = 4
log = logging.getLogger(__name__)


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
        """What one caller may have of something that there is so much of: all, if there is one key; half of it with
        two, a third with three, a quarter with more, so that no key takes it all from the others."""
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
        match = KEY.fullmatch(presented)
        caller = self._callers.get(match.group(1)) if match else None
        expected = caller.key.sha256 if caller and caller.key else "0" * 64
        if not hmac.compare_digest(digest(presented), expected) or caller is None or caller.key is None:
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

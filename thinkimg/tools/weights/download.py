"""One file over HTTP: whole and as it should be, or not there at all.

What has come stands beside it, in a file `.partial`, until it is whole, so that the next try, or the next command, goes
on there. A server may not honour ranges, cut the connection, send less or more than it says, or something else: each is
noticed.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from thinkimg.errors import InfrastructureError, UserError, describe, full_disk
from thinkimg.tools.weights.catalogue import Digest

TRIES = 5
"""In a row without a single new byte."""
_PAUSE_SECONDS = 0.5
_MOST_PAUSE_SECONDS = 30.0
_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Wanted:
    """A file as it should be.

    Attributes:
        url: where it is; redirects are followed.
        size: bytes; None: whatever the server says.
        sha256: hex; "": not known.
        said_by: who says the digest, for a refusal.
        headers: of the request; the key goes to the first host only.
    """

    url: str
    size: int | None = None
    sha256: str = ""
    said_by: str = ""
    headers: Mapping[str, str] | None = None


Progress = Callable[[int, int | None], None]
"""Bytes that are here, and of how many."""


class _Interrupted(Exception):
    """Another try may go on; the text says why this one ended."""


def download(client: httpx.Client, wanted: Wanted, target: Path, progress: Progress | None = None) -> Digest:
    """Bring the file to `target`, whose folder is made.

    Raises:
        UserError: the server refuses it, or what came is not what was wanted; nothing of it is kept.
        InfrastructureError: the server does not answer, or the disk is full; what came is kept for the next time.
    """
    address = hashlib.sha256(wanted.url.encode()).hexdigest()[:8]  # another commit's file is another file
    partial = target.with_name(f"{target.name}.{address}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    resumed = partial.is_file() and partial.stat().st_size > 0
    _bring(client, wanted, partial, progress)
    found = digest_of(partial)
    if resumed and wanted.sha256 not in ("", found.sha256):  # its beginning may have been of another file
        partial.unlink()
        _bring(client, wanted, partial, progress)
        found = digest_of(partial)
    if wanted.sha256 not in ("", found.sha256):
        partial.unlink()
        raise UserError(
            f"what came has the SHA-256 {found.sha256}, not {wanted.sha256} as {wanted.said_by} says; "
            "it was thrown away",
            wanted.url,
        )
    partial.replace(target)
    return found


def _bring(client: httpx.Client, wanted: Wanted, partial: Path, progress: Progress | None) -> None:
    """Until `partial` has its whole length."""
    failures, pause = 0, _PAUSE_SECONDS
    while True:
        before = partial.stat().st_size if partial.is_file() else 0
        try:
            _try(client, wanted, partial, progress)
            return
        except _Interrupted as error:
            grown = partial.is_file() and partial.stat().st_size > before
            failures, pause = (0, _PAUSE_SECONDS) if grown else (failures + 1, min(2 * pause, _MOST_PAUSE_SECONDS))
            if failures >= TRIES:
                raise InfrastructureError(f"{wanted.url}: {error}, {TRIES} times in a row") from error
            time.sleep(pause)
        except OSError as error:
            raise full_disk(error) or error from error


def _try(client: httpx.Client, wanted: Wanted, partial: Path, progress: Progress | None) -> None:
    there = partial.stat().st_size if partial.is_file() else 0
    if wanted.size is not None and there > wanted.size:
        partial.unlink()
        there = 0
    if there and there == wanted.size:
        return
    headers = {"accept-encoding": "identity", **(wanted.headers or {})}
    if there:
        headers["range"] = f"bytes={there}-"
    with _failures(wanted), client.stream("GET", wanted.url, headers=headers) as response:
        if response.status_code == 416:  # nothing behind what is there: it is longer than the file
            partial.unlink(missing_ok=True)
            raise _Interrupted("the server has no such range")
        _refuse(wanted, response)
        start = _start(response, there)
        whole = _whole(wanted, response, start)
        if wanted.size is not None and whole is not None and whole != wanted.size:
            partial.unlink(missing_ok=True)
            raise UserError(f"it has {whole:,} bytes, not {wanted.size:,} as is known of it", wanted.url)
        _write(response, partial, start, whole, progress)
    came = partial.stat().st_size
    if whole is not None and came < whole:
        raise _Interrupted(f"it ended after {came:,} of {whole:,} bytes")
    if whole is not None and came > whole:
        partial.unlink()
        raise UserError(f"more came than the {whole:,} bytes that it has; it was thrown away", wanted.url)


@contextmanager
def _failures(wanted: Wanted) -> Iterator[None]:
    try:
        yield
    except (httpx.TooManyRedirects, httpx.UnsupportedProtocol) as error:
        raise InfrastructureError(f"{wanted.url}: redirected without an end, or to no web server") from error
    except httpx.HTTPError as error:
        raise _Interrupted(describe(error)) from error


def _refuse(wanted: Wanted, response: httpx.Response) -> None:
    if response.status_code in _TRANSIENT:
        raise _Interrupted(f"the server answers {response.status_code}")
    if wanted.url.startswith("https:") and response.url.scheme != "https":
        raise UserError(f"it redirects to {response.url.host} without encryption", wanted.url)
    if response.status_code not in (200, 206):
        remedy = "; private and gated weights need HF_TOKEN" if response.status_code in (401, 403) else ""
        raise UserError(f"the server answers {response.status_code}{remedy}", wanted.url)


def _start(response: httpx.Response, there: int) -> int:
    """At which byte the answer begins. A server that does not honour ranges sends all of it."""
    if response.status_code == 200:
        return 0
    found = _RANGE.fullmatch(response.headers.get("content-range", ""))
    if found is None or int(found[1]) > there:
        raise _Interrupted("the server sends another range than was asked for")
    return int(found[1])


def _whole(wanted: Wanted, response: httpx.Response, start: int) -> int | None:
    """The file's length, as the server says it, or as is known."""
    length = response.headers.get("content-length")
    return start + int(length) if length and length.isdecimal() else wanted.size


def _write(response: httpx.Response, partial: Path, start: int, whole: int | None, progress: Progress | None) -> None:
    with partial.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        for chunk in response.iter_bytes():  # as they come: what is gathered to larger ones is lost with a connection
            file.write(chunk)
            start += len(chunk)
            if progress is not None:
                progress(start, whole)


def digest_of(path: Path) -> Digest:
    """SHA-256 and length of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return Digest(digest.hexdigest(), file.tell())

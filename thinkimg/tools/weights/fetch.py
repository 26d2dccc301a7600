"""All files of some weights into a folder, with a record of their digests; and whether they still have them."""

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from thinkimg import jsonfile
from thinkimg.errors import UserError
from thinkimg.results import WeightsFile, WeightsRecord
from thinkimg.tools.weights import hub, store
from thinkimg.tools.weights.catalogue import CATALOGUE, Digest, Weights
from thinkimg.tools.weights.download import Progress, Wanted, digest_of, download
from thinkimg.tools.weights.repository import Repository

_SMALL = (".json", ".txt", ".model", ".jinja")
HUB = "the hub's listing"
RECORDED = "recorded when it was fetched first"


@dataclass(frozen=True)
class Fetched:
    """What was done.

    Attributes:
        brought: paths that were downloaded.
        kept: paths that were here and right.
        recorded: those of `brought` whose digest nobody stated before: what came is recorded, and must stay so.
    """

    folder: Path
    commit: str
    brought: tuple[str, ...]
    kept: tuple[str, ...]
    recorded: tuple[str, ...]


def fetch(
    repository: Repository,
    root: Path,
    code: bool = False,
    progress: Callable[[str], Progress] | None = None,
    catalogue: Sequence[Weights] = CATALOGUE,
) -> Fetched:
    """Bring the file that is named, or of a repository what is needed: safetensors and small files; pickled weights
    only if there are no others.

    Files that are here and have their recorded digest are not downloaded again. Several processes may do this at once.

    Args:
        root: the folder of weights.
        code: Python code of the repository, too.
        progress: what to tell of a file's progress.

    Raises:
        UserError: no such repository, revision or file; what came is not what was stated or recorded.
        InfrastructureError: the hub does not answer; what came is kept, and the next call goes on there.
    """
    with httpx.Client(follow_redirects=True, timeout=hub.SECONDS) as client:
        listing = hub.listing(repository, client)
        place = _made(root / repository.folder)
        with _alone(place):
            record = store.record_of(place)
            if record is None or record.commit != listing.commit:  # a branch moves
                record = WeightsRecord(source=repository.name, revision=repository.revision, commit=listing.commit)
            stated = _stated(repository, catalogue)
            wanted = {
                remote.path: _wanted(repository, listing.commit, remote, stated, record.files.get(remote.path))
                for remote in _needed(repository, listing, code)
            }
            brought: list[str] = []
            kept: list[str] = []
            recorded: list[str] = []
            for path, one in wanted.items():
                found = digest_of(place / path) if one.sha256 and (place / path).is_file() else None
                if found is not None and found.sha256 == one.sha256:
                    kept.append(path)
                else:
                    found = download(client, one, place / path, progress(path) if progress else None)
                    brought.append(path)
                    recorded += [path] if not one.sha256 else []
                said_by = one.said_by or RECORDED
                record.files[path] = WeightsFile(sha256=found.sha256, size=found.size, said_by=said_by)
                jsonfile.write(place / store.RECORD, record)  # after each: what is whole stays so
            record.whole = record.whole or not repository.file
            record.code = record.code or (code and not repository.file)
            jsonfile.write(place / store.RECORD, record)
    return Fetched(place, listing.commit, tuple(brought), tuple(kept), tuple(recorded))


def _made(place: Path) -> Path:
    try:
        place.mkdir(parents=True, exist_ok=True)
        return place
    except OSError as error:
        raise UserError(f"the folder of weights cannot be made: {error}", str(place)) from error


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel frees it, however the process ends
        yield


def _stated(repository: Repository, catalogue: Sequence[Weights]) -> dict[str, tuple[Digest, str]]:
    """Digests of the catalogue, by path, with who states them."""
    return {
        path: (digest, entry.digests_from)
        for entry in catalogue
        if entry.source == repository.name or entry.source.startswith(f"{repository.name}/")
        for path, digest in entry.files.items()
    }


def _needed(repository: Repository, listing: hub.Listing, code: bool) -> list[hub.RemoteFile]:
    if repository.file:
        found = [remote for remote in listing.files if remote.path == repository.file]
        if not found:
            raise UserError(f"the hub repository {repository.name} has no file {repository.file}", "weights")
        return found
    safe = [remote for remote in listing.files if Path(remote.path).suffix in store.SAFE]
    weights = safe or [remote for remote in listing.files if Path(remote.path).suffix in store.PICKLED]
    if not weights:
        raise UserError(f"the hub repository {repository.name} holds no weights", "weights")
    others = _SMALL + (store.CODE if code else ())
    return [*(remote for remote in listing.files if Path(remote.path).suffix in others), *weights]


def _wanted(
    repository: Repository,
    commit: str,
    remote: hub.RemoteFile,
    stated: dict[str, tuple[Digest, str]],
    known: WeightsFile | None,
) -> Wanted:
    """The file with the digest that is trusted most: the catalogue's, the hub's, the one that was recorded."""
    url = hub.address_of(repository, commit, remote.path)
    if remote.path in stated:
        digest, source = stated[remote.path]
        if remote.sha256 not in ("", digest.sha256):
            raise UserError(
                f"{repository.name}/{remote.path}: the hub has a file with the SHA-256 {remote.sha256}, not "
                f"{digest.sha256} as {source} says; nothing was fetched",
                "weights",
            )
        return Wanted(url, digest.size, digest.sha256, source, hub.headers())
    if remote.sha256:
        return Wanted(url, remote.size, remote.sha256, HUB, hub.headers())
    if known is not None:
        return Wanted(url, remote.size, known.sha256, known.said_by, hub.headers())
    return Wanted(url, remote.size, headers=hub.headers())


def verify(place: Path, record: WeightsRecord) -> dict[str, str]:
    """Path -> what is wrong with it ("" if nothing), for every file that was fetched."""
    return {path: _fault(place / path, known) for path, known in record.files.items()}


def _fault(path: Path, known: WeightsFile) -> str:
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    if size != known.size:
        return f"has {size:,} bytes, not {known.size:,}"
    found = digest_of(path).sha256
    return "" if found == known.sha256 else f"has the SHA-256 {found}, not {known.sha256}"

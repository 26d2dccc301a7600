"""What a repository of the Hugging Face hub holds. The hub's address is `HF_ENDPOINT`, the key `HF_TOKEN`.

One request, of the hub's own API: `GET /api/models/ORG/NAME/revision/REVISION?blobs=true`. Files that the hub keeps in
Git LFS, which weights are, come with their SHA-256.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from thinkimg.api.server_contract import Variable
from thinkimg.errors import InfrastructureError, UserError, describe
from thinkimg.tools.weights.repository import Repository

_ENDPOINT = "https://huggingface.co"
SECONDS = 30.0
"""Without a byte, of any request to the hub."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository.

    Attributes:
        size: bytes, None if the hub does not say.
        sha256: hex; "" for small files, whose SHA-256 the hub does not know.
    """

    path: str
    size: int | None
    sha256: str


@dataclass(frozen=True)
class Listing:
    """A revision.

    Attributes:
        commit: what the revision means today.
    """

    commit: str
    files: tuple[RemoteFile, ...]


def endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", _ENDPOINT).rstrip("/")


def headers() -> dict[str, str]:
    token = os.environ.get(Variable.HUB_TOKEN, "").strip()
    return {"authorization": f"Bearer {token}"} if token else {}


def address_of(repository: Repository, commit: str, path: str) -> str:
    """Where a file of a commit is."""
    return f"{endpoint()}/{repository.name}/resolve/{quote(commit, safe='')}/{quote(path)}"


def page_of(repository: Repository) -> str:
    """What people read of it."""
    return f"{endpoint()}/{repository.name}"


def listing(repository: Repository, client: httpx.Client) -> Listing:
    """What the revision holds.

    Raises:
        UserError: there is no such repository or revision, or it may not be read.
        InfrastructureError: the hub does not answer, or answers something else.
    """
    url = f"{endpoint()}/api/models/{repository.name}/revision/{quote(repository.revision, safe='')}"
    try:
        response = client.get(url, params={"blobs": "true"}, headers=headers())
    except httpx.HTTPError as error:
        raise InfrastructureError(f"{endpoint()} does not answer: {describe(error)}") from error
    if response.status_code in (401, 403, 404):
        raise _refusal(repository, response)
    if response.status_code != 200:
        raise InfrastructureError(f"{url} answers {response.status_code}")
    try:
        document = response.json()
        files = tuple(_file(entry) for entry in document["siblings"])
        return Listing(str(document["sha"]), files)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InfrastructureError(f"{url} does not answer as the hub does: {describe(error)}") from error


def _refusal(repository: Repository, response: httpx.Response) -> UserError:
    if response.headers.get("x-error-code") == "RevisionNotFound":
        return UserError(f"{repository.name} has no revision {repository.revision!r}", "revision")
    return UserError(
        f"{repository.name!r} is no repository of the hub that may be read "
        f"(status {response.status_code}; private and gated ones need HF_TOKEN)",
        "weights",
    )


def _file(entry: Mapping[str, Any]) -> RemoteFile:
    path = str(entry["rfilename"])
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"a path that leaves the repository: {path!r}")
    large = entry.get("lfs") or {}
    size = entry.get("size", large.get("size"))
    return RemoteFile(path, None if size is None else int(size), str(large.get("sha256", "")))

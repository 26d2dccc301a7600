"""Where weights that somebody names are: what loads them asks here, and no network is asked, but where the environment
allows it."""

import os
from pathlib import Path

from thinkimg.api.server_contract import Variable
from thinkimg.errors import UserError
from thinkimg.tools.weights import store
from thinkimg.tools.weights.repository import MAIN, Repository, read_repository

_FIELD = "options.weights"


def locate(weights: str, revision: str | None = None, trust_remote_code: bool = False, field: str = _FIELD) -> Path:
    """The folder or file of `weights`, which are a path or a hub repository.

    Raises:
        UserError: they are not on this machine; the command that brings them is named.
        InfrastructureError: they may be downloaded (`THINKIMG_FETCH_WEIGHTS`), and the hub does not answer.
    """
    path = Path(weights).expanduser()
    if not weights.startswith("hf://") and path.exists():
        return path
    repository = read_repository(weights, revision, field)
    found = store.find(repository, code=trust_remote_code)
    if found is not None:
        return found[0]
    if os.environ.get(Variable.FETCH_WEIGHTS) == "1":
        from thinkimg.tools.weights.fetch import fetch

        fetch(repository, store.folder(), code=trust_remote_code)
        return store.folder() / repository.folder / repository.file
    raise UserError(
        f"{repository} is not on this machine; bring it with: {_command(repository, trust_remote_code)}", field
    )


def _command(repository: Repository, code: bool) -> str:
    revision = "" if repository.revision == MAIN else f" --revision {repository.revision}"
    return f"thinkimg weights fetch {repository}{revision}{' --code' if code else ''}"
